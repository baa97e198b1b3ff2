// Protected tokens through the ABI: where all tokens are protected attention is that of an f16 cache, where some are it lies between, and
// memory is counted.
#include "cache_state.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kHeads = 2, kDim = 64, kPrompt = 100;

struct Seen {
  std::vector<float> out;
  std::uint64_t used_bytes = 0;
};

// A prompt and three single tokens, each of which asks; what the last one is answered.
Seen run(const Session& session, const char* format, std::uint32_t transform, std::uint32_t sides, std::uint32_t newest) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kHeads;
  layer.head_dim_k = kDim;
  layer.format_k = layer.format_v = session.format(format);
  layer.transform_k = layer.transform_v = transform;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 256;
  args.protect_sides = sides;
  args.protect_newest = newest;
  args.protect_tokens = newest == 0 ? 0 : 256;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  Seen seen;
  seen.out.assign(kHeads * kDim, -1.0f);
  for (std::uint32_t i = 0; i < 4; ++i) {
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence;
    entry.append = i == 0 ? kPrompt : 1;
    entry.queries = 1;
    auto step_args = make<kvant_step_args>();
    step_args.entry_count = 1;
    step_args.entries = &entry;
    kvant_step* step = nullptr;
    require_ok(api().step_plan(cache, &step_args, &step));
    std::vector<float> k = random_floats(std::size_t{entry.append} * kHeads * kDim, 10 + i), v = random_floats(k.size(), 20 + i),
                       q = random_floats(seen.out.size(), 30 + i);
    kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v), q_tensor = tensor_of(q), out_tensor = tensor_of(seen.out);
    auto run = make<kvant_run_args>();
    run.k = &k_tensor;
    run.v = &v_tensor;
    run.q = &q_tensor;
    run.out = &out_tensor;
    run.q_heads = kHeads;
    require_ok(api().step_run(step, 0, &run));
    require_ok(api().step_commit(step));
  }
  auto stats = make<kvant_cache_stats>();
  require_ok(api().cache_stats(cache, &stats));
  seen.used_bytes = stats.used_bytes;
  api().cache_destroy(cache);
  return seen;
}

}  // namespace

TEST_CASE("protection: f16 for all tokens, for some and for none") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  constexpr std::uint32_t kBoth = KVANT_PROTECT_K | KVANT_PROTECT_V;
  for (const std::uint32_t transform : {0u, KVANT_TRANSFORM_ROTATE | KVANT_TRANSFORM_CENTRE}) {
    CAPTURE(transform);
    const Seen wide = run(session, "f16", transform, 0, 0), narrow = run(session, "t2", transform, 0, 0);
    const Seen all = run(session, "t2", transform, kBoth, 65536), some = run(session, "t2", transform, kBoth, 32);
    const double of_narrow = distance(wide.out, narrow.out);
    CHECK(of_narrow > 1e-2);
    CHECK(distance(wide.out, all.out) < 1e-5);
    CHECK(distance(wide.out, some.out) > 1e-3);
    CHECK(distance(narrow.out, some.out) > 1e-3);
    CHECK(distance(wide.out, run(session, "t2", transform, KVANT_PROTECT_K, 65536).out) > 1e-3);
    CHECK(distance(wide.out, run(session, "t2", transform, KVANT_PROTECT_V, 65536).out) > 1e-3);
    CHECK(all.used_bytes == wide.used_bytes + narrow.used_bytes);
    CHECK(some.used_bytes == wide.used_bytes / 7 * 3 + narrow.used_bytes);  // of seven pages the last three
  }
}
