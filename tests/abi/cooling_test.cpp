// cache_cool through the C ABI: V of pages that got little attention takes less memory and loses precision, nothing else changes.
#include <kvant/kvant_ext_manager.h>

#include "cache_state.hpp"
#include "mass_model.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kTokens = 400;
constexpr std::uint64_t kRow = 2 * 64;

std::vector<float> rows_of(const MassCache& counted, kvant_sequence sequence, std::uint32_t layer, std::uint32_t side, std::uint64_t tokens = kTokens) {
  std::vector<float> data(tokens * kRow);
  kvant_tensor out = tensor_of(data);
  require_ok(api().sequence_read(counted.cache, sequence, layer, side, 0, tokens, &out));
  return data;
}

std::vector<float> part(const std::vector<float>& rows, std::uint64_t begin, std::uint64_t end) {
  return {rows.begin() + static_cast<std::ptrdiff_t>(begin * kRow), rows.begin() + static_cast<std::ptrdiff_t>(end * kRow)};
}

kvant_cool_args cool_args(std::uint64_t target) {
  auto args = make<kvant_cool_args>();
  args.target_bytes = target;
  return args;
}

}  // namespace

TEST_CASE("cooling: V of old pages narrows, K and the newest tokens do not, and the cache goes on") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  MassCache counted(session, {{2, 64, "q8_0"}, {2, 64, "t4"}}, 512, 4096);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, kTokens, kTokens, KVANT_RUN_MASS);
  std::vector<std::vector<float>> before;
  for (const std::uint32_t layer : {0u, 1u})
    for (const std::uint32_t side : {0u, 1u}) before.push_back(rows_of(counted, sequence, layer, side));
  const kvant_cache_stats full = stats_of(counted.cache);
  const std::vector<float> masses = counted.masses(sequence, KVANT_MASS_ALL, KVANT_MASS_ALL);

  std::uint64_t pages = 0;
  kvant_cool_args args = cool_args(full.pool_bytes);
  require_ok(counted.manager.cache_cool(counted.cache, &args, &pages));
  CHECK(pages == 0);
  CHECK(rows_of(counted, sequence, 0, 1) == before[1]);

  args = cool_args(full.pool_bytes * 85 / 100);
  require_ok(counted.manager.cache_cool(counted.cache, &args, &pages));
  CHECK(pages >= 5);
  CHECK(pages <= kTokens / 16 - 1 - 4);
  const kvant_cache_stats cooled = stats_of(counted.cache);
  CHECK(cooled.pool_bytes <= args.target_bytes);
  CHECK(cooled.used_bytes < full.used_bytes);
  CHECK(cooled.used_pages == full.used_pages);
  CHECK(counted.masses(sequence, KVANT_MASS_ALL, KVANT_MASS_ALL) == masses);
  for (const std::uint32_t layer : {0u, 1u}) {
    CHECK(rows_of(counted, sequence, layer, 0) == before[layer * 2]);
    const std::vector<float> now = rows_of(counted, sequence, layer, 1), then = before[layer * 2 + 1];
    CHECK(part(now, 0, 16) == part(then, 0, 16));
    CHECK(part(now, kTokens - 64, kTokens) == part(then, kTokens - 64, kTokens));
    std::uint64_t changed = 0;
    double error = 0, energy = 0;
    for (std::uint64_t page = 0; page < kTokens / 16; ++page) changed += part(now, page * 16, page * 16 + 16) != part(then, page * 16, page * 16 + 16) ? 1 : 0;
    for (std::size_t i = 0; i < now.size(); ++i) {
      error += std::pow(static_cast<double>(now[i]) - static_cast<double>(then[i]), 2);
      energy += std::pow(static_cast<double>(then[i]), 2);
    }
    CHECK(changed == pages);
    CHECK(error < 0.1 * energy);  // t2's relMSE is 0.08 on normal values
    CHECK(error > 1e-4 * energy);
  }

  // What leaves the cache has the layer's format, and can come back.
  const std::vector<float> cold = rows_of(counted, sequence, 1, 1);
  const CacheState state = state_of(counted.cache, {sequence}, 2, 64);
  CHECK(state_of(counted.cache, {sequence}, 2, 64) == state);
  kvant_sequence fork = 0;
  require_ok(api().sequence_fork(counted.cache, sequence, 100, &fork));  // its open page may be cold
  CHECK(part(rows_of(counted, fork, 0, 0, 100), 0, 100) == part(before[0], 0, 100));
  counted.step(sequence, 1, 1, 0);
  CHECK(rows_of(counted, sequence, 1, 1) == cold);
  require_ok(api().sequence_truncate(counted.cache, sequence, 200));
  counted.forget(sequence);
  counted.step(fork, 1, 1, 0);
  CHECK(part(rows_of(counted, sequence, 1, 1, 200), 0, 200) == part(cold, 0, 200));
}

TEST_CASE("cooling: what cannot be met or is not meant changes nothing") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager_of(session);
  kvant_cache* plain = make_cache(session, {});
  std::uint64_t pages = 7;
  kvant_cool_args args = cool_args(1);
  check_error(m.cache_cool(plain, &args, &pages), KVANT_ERROR_FAILED_PRECONDITION, "cache_cool", "created without KVANT_CACHE_MASS");
  api().cache_destroy(plain);

  MassCache counted(session, {{2, 64, "q8_0"}, {2, 64, "t4"}}, 512, 4096);
  const kvant_sequence sequence = counted.create();
  counted.step(sequence, kTokens, 1, KVANT_RUN_MASS);
  const CacheState before = state_of(counted.cache, {sequence}, 2, 64);
  const std::uint64_t pool = stats_of(counted.cache).pool_bytes;
  const auto refused = [&](const kvant_cool_args* given, std::uint32_t code, const char* text) {
    check_error(m.cache_cool(counted.cache, given, &pages), code, "cache_cool", text);
    CHECK(pages == 7);
    CHECK(state_of(counted.cache, {sequence}, 2, 64) == before);
    CHECK(stats_of(counted.cache).pool_bytes == pool);
  };
  refused(&args, KVANT_ERROR_RESOURCE_EXHAUSTED, "target_bytes (1) cannot be met");
  refused(nullptr, KVANT_ERROR_INVALID_ARGUMENT, "args is NULL");
  check_error(m.cache_cool(nullptr, &args, &pages), KVANT_ERROR_INVALID_ARGUMENT, "cache_cool", "cache is NULL");
  args.reserved = 1;
  refused(&args, KVANT_ERROR_INVALID_ARGUMENT, "args.reserved (1) is not 0");
  args = cool_args(pool / 2);
  args.format_count = 1;
  refused(&args, KVANT_ERROR_INVALID_ARGUMENT, "args.formats is NULL although args.format_count (1)");
  std::uint32_t formats[3] = {session.format("t2"), session.format("t3"), session.format("t4")};
  args.formats = formats;
  for (const std::uint32_t count : {0u, 3u}) {
    args.format_count = count;
    refused(&args, KVANT_ERROR_INVALID_ARGUMENT, "is not 1 or 2");
  }
  args.format_count = 2;
  refused(&args, KVANT_ERROR_INVALID_ARGUMENT, "formats[1] (t3) is not narrower than formats[0], t2");
  formats[1] = 4242;
  refused(&args, KVANT_ERROR_INVALID_ARGUMENT, "args.formats[1] (4242)");
  args = cool_args(pool / 2);
  args.sinks = args.recent = ~0u;
  refused(&args, KVANT_ERROR_RESOURCE_EXHAUSTED, "cannot be met");
  kvant_step* step = counted.plan(sequence, 1, 0);
  args = cool_args(pool / 2);
  check_error(m.cache_cool(counted.cache, &args, &pages), KVANT_ERROR_FAILED_PRECONDITION, "cache_cool", "a step of the cache is open");
  api().step_abort(step);

  // While pages are cold, the others can only follow them.
  args = cool_args(pool * 9 / 10);
  require_ok(m.cache_cool(counted.cache, &args, nullptr));
  args = cool_args(pool / 2);
  args.formats = formats;
  args.format_count = 1;
  check_error(m.cache_cool(counted.cache, &args, &pages), KVANT_ERROR_FAILED_PRECONDITION, "cache_cool", "pages have been cooled to t3 and t2");
  CHECK(pages == 7);
  require_ok(api().sequence_destroy(counted.cache, sequence));
  args.target_bytes = 1;
  require_ok(m.cache_cool(counted.cache, &args, &pages));
  CHECK(pages == 0);
  CHECK(stats_of(counted.cache).pool_bytes == 0);
}
