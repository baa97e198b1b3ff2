// Centred layers through the ABI: what is measured can be asked for and given to the next cache, attention stays the same.
#include "cache_state.hpp"

#include <cmath>

using namespace abi_test;

namespace {

constexpr std::uint32_t kHeads = 2, kDim = 64, kTokens = 48;

// Keys and values with a constant in one channel.
std::vector<float> biased_rows(std::uint32_t tokens, std::uint32_t seed) {
  std::vector<float> rows = random_floats(std::size_t{tokens} * kHeads * kDim, seed);
  for (std::size_t i = 5; i < rows.size(); i += kDim) rows[i] += 60.0f;
  return rows;
}

struct Seen {
  std::vector<float> out, mean;
};

// Appends all tokens, attends with the last one, and asks for K's mean.
Seen run(const Session& session, const char* format, std::uint32_t transform, const std::vector<float>& given) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kHeads;
  layer.head_dim_k = kDim;
  layer.format_k = layer.format_v = session.format(format);
  layer.transform_k = layer.transform_v = transform;
  if (!given.empty()) layer.means_k = given.data();
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 64;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = kTokens;
  entry.queries = 1;
  auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  step_args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &step_args, &step));
  Seen outcome;
  outcome.out.assign(kHeads * kDim, -1.0f);
  std::vector<float> k = biased_rows(kTokens, 1), v = biased_rows(kTokens, 2), q = random_floats(outcome.out.size(), 3);
  kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v), q_tensor = tensor_of(q), out_tensor = tensor_of(outcome.out);
  auto run = make<kvant_run_args>();
  run.k = &k_tensor;
  run.v = &v_tensor;
  run.q = &q_tensor;
  run.out = &out_tensor;
  run.q_heads = kHeads;
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
  outcome.mean.assign(kHeads * kDim, -1.0f);
  require_ok(api().cache_means(cache, 0, 0, outcome.mean.data(), outcome.mean.size()));
  check_error(api().cache_means(cache, 1, 0, outcome.mean.data(), outcome.mean.size()), KVANT_ERROR_INVALID_ARGUMENT, "cache_means", "layer (1)");
  check_error(api().cache_means(cache, 0, 2, outcome.mean.data(), outcome.mean.size()), KVANT_ERROR_INVALID_ARGUMENT, "cache_means", "side (2)");
  check_error(api().cache_means(cache, 0, 1, outcome.mean.data(), 7), KVANT_ERROR_INVALID_ARGUMENT, "cache_means", "count (7) is not the 128");
  check_error(api().cache_means(cache, 0, 1, nullptr, 128), KVANT_ERROR_INVALID_ARGUMENT, "cache_means", "out is NULL");
  api().cache_destroy(cache);
  return outcome;
}

}  // namespace

TEST_CASE("means: centred layers attend as others do, and narrow formats err less") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const Seen exact = run(session, "f32", 0, {}), centred = run(session, "f32", KVANT_TRANSFORM_CENTRE, {});
  CHECK(distance(exact.mean, std::vector<float>(kHeads * kDim, 0.0f)) == 0.0);
  CHECK(std::fabs(centred.mean[5] - 60.0f) < 1.0f);
  CHECK(distance(exact.out, centred.out) < 2e-4);
  const Seen narrow = run(session, "q4_0", 0, {}), both = run(session, "q4_0", KVANT_TRANSFORM_CENTRE | KVANT_TRANSFORM_ROTATE, {});
  CHECK(distance(exact.out, both.out) < 0.25 * distance(exact.out, narrow.out));
}

TEST_CASE("means: what one cache measured another is given") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const Seen first = run(session, "q8_0", KVANT_TRANSFORM_CENTRE, {});
  const Seen second = run(session, "q8_0", KVANT_TRANSFORM_CENTRE, first.mean);
  CHECK(first.mean == second.mean);
  CHECK(first.out == second.out);
}
