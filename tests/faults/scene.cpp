#include "scene.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace faults {
namespace {

std::unique_ptr<Host>& host_place() {
  static auto& place = *new std::unique_ptr<Host>;  // not destroyed at exit: the driver may be gone by then
  return place;
}

struct CloseAtEnd : doctest::IReporter {
  explicit CloseAtEnd(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {
    host_place().reset();
    if (live_vulkan_objects() == 0) return;
    std::fprintf(stderr, "%lld Vulkan objects were made and not destroyed\n", static_cast<long long>(live_vulkan_objects()));
    std::_Exit(1);
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
REGISTER_LISTENER("close_shared_host", 1, CloseAtEnd);

}  // namespace

Host& shared_host() {
  if (host_place() == nullptr) host_place() = std::make_unique<Host>();
  return *host_place();
}

std::vector<std::int32_t> token_ids(std::uint32_t count, std::int32_t first) {
  std::vector<std::int32_t> ids(count);
  for (std::int32_t& id : ids) id = first++;
  return ids;
}

std::vector<kvant_layer_args> layers_of(const Host& host, const Shape& shape) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kHeads;
  layer.head_dim_k = layer.head_dim_v = kDim;
  layer.format_k = host.format("q8_0");
  layer.format_v = host.format("q8_0");
  std::vector<kvant_layer_args> layers(shape.layers, layer);
  if (shape.two_groups) layers.back().window = 1u << 20;  // a window makes a group of its own; it never ends here
  return layers;
}

kvant_cache_args cache_args(const std::vector<kvant_layer_args>& layers, const Shape& shape) {
  auto args = make<kvant_cache_args>();
  args.layer_count = static_cast<std::uint32_t>(layers.size());
  args.layers = layers.data();
  args.capacity_tokens = shape.capacity;
  args.page_tokens = kPage;
  args.flags = shape.flags;
  args.model_id = (shape.flags & KVANT_CACHE_PREFIXES) != 0 ? "faults" : nullptr;
  args.slab_bytes = shape.slab_bytes;
  return args;
}

Scene::Scene(Pass& pass, Host& host, const Shape& shape) : pass_(pass), host_(host) {
  const std::vector<kvant_layer_args> layers = layers_of(host, shape);
  const kvant_cache_args args = cache_args(layers, shape);
  pass.call("cache_create", [&] { return api().cache_create(host.device, &args, &watched_.cache); });
  watched_.layers.assign(shape.layers, {kHeads, kDim});
  watched_.prefixes = (shape.flags & KVANT_CACHE_PREFIXES) != 0;
  pass.watched.push_back(&watched_);
}

Scene::~Scene() {
  std::erase(pass_.watched, &watched_);
  api().cache_destroy(watched_.cache);
}

void Scene::drop(kvant_sequence sequence) { std::erase(watched_.sequences, sequence); }

void Scene::adopt(kvant_cache* cache) {
  api().cache_destroy(watched_.cache);
  watched_.cache = cache;
  watched_.sequences.clear();
  watched_.prefixes = false;
}

void Scene::destroy() {
  std::erase(pass_.watched, &watched_);
  kvant_cache* cache = std::exchange(watched_.cache, nullptr);
  pass_.call_void("cache_destroy", [&] { api().cache_destroy(std::exchange(cache, nullptr)); });
}

kvant_sequence Scene::create() {
  kvant_sequence sequence = 0;
  pass_.call("sequence_create", [&] { return api().sequence_create(cache(), &sequence); });
  hold(sequence);
  return sequence;
}

kvant_sequence Scene::open(const std::vector<std::int32_t>& tokens, std::uint64_t* reused, std::uint64_t leave) {
  auto args = make<kvant_sequence_args>();
  args.tokens = tokens.data();
  args.token_count = tokens.size();
  args.leave_tokens = leave;
  kvant_sequence sequence = 0;
  pass_.call("sequence_open", [&] { return api().sequence_open(cache(), &args, &sequence, reused); });
  hold(sequence);
  return sequence;
}

void Scene::step(kvant_sequence sequence, std::uint32_t append, std::uint32_t queries, const std::int32_t* tokens,
                 std::uint32_t run_flags, bool commit) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  entry.tokens = tokens;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  pass_.call("step_plan", [&] { return api().step_plan(cache(), &args, &step); });
  try {
    for (std::uint32_t layer = 0; layer < watched_.layers.size(); ++layer) {
      const std::uint32_t seed = seed_++;
      abi_test::StepData data;
      data.k = abi_test::random_floats(append * kRow, 3 * seed);
      data.v = abi_test::random_floats(append * kRow, 3 * seed + 1);
      data.q = abi_test::random_floats(queries * kQueryRow, 3 * seed + 2);
      data.out.assign(queries * kQueryRow, 0.0F);
      data.q_heads = queries != 0 ? kQueryHeads : 0;
      data.flags = run_flags;
      std::vector<kvant_tensor> tensors;
      const kvant_run_args run = abi_test::run_args_of(data, tensors);
      pass_.call("step_run", [&] { return api().step_run(step, layer, &run); });
      if (queries != 0) pass_.result(data.out);
    }
    if (commit) {
      pass_.call("step_commit", [&] { return api().step_commit(step); });
    } else {
      pass_.call_void("step_abort", [&] { api().step_abort(std::exchange(step, nullptr)); });
    }
  } catch (...) {
    api().step_abort(step);  // of another run of the scenario than this one nothing may be left
    throw;
  }
}

void Scene::results(kvant_sequence sequence) {
  Watched one = watched_;
  one.sequences = {sequence};
  for (Bits& content : state_of(one).contents) pass_.result(std::move(content));
}

}  // namespace faults
