// Cascade attention on a device: sequences that were forked from one prefix get the same attention in one step, where the
// prefix's keys are read once for all of them, as each in a step of its own.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "test_device.hpp"

namespace {

using namespace kvant::tools;

constexpr uint32_t kSequences = 8, kPrefix = 1060, kOwn = 21, kHeads = 2, kDim = 64;

struct Tree {
  std::shared_ptr<Cache> cache;
  std::vector<kvant_sequence> sequences;
  std::mt19937 random{11};

  std::vector<float> normal(size_t count) {
    std::normal_distribution<float> distribution;
    std::vector<float> x(count);
    std::generate(x.begin(), x.end(), [&] { return distribution(random); });
    return x;
  }

  // One step of these sequences, each with so many fresh tokens, or with one query that brings none.
  void step(std::vector<kvant_sequence> asked, uint32_t append, uint32_t group, const float* q, float* out) {
    std::vector<kvant_step_entry> entries;
    for (const kvant_sequence sequence : asked) {
      kvant_step_entry entry{};
      entry.struct_size = sizeof(entry);
      entry.sequence = sequence;
      entry.append = append;
      entry.queries = q != nullptr ? 1 : 0;
      entries.push_back(entry);
    }
    kvant_step_args args{};
    args.struct_size = sizeof(args);
    args.entry_count = static_cast<uint32_t>(entries.size());
    args.entries = entries.data();
    kvant_step* planned = nullptr;
    const auto plan = cache->check(cache->api().step_plan(cache->handle(), &args, &planned));
    REQUIRE_MESSAGE(plan.ok(), plan.failure().message);
    const size_t row = size_t{kHeads} * kDim;
    const std::vector<float> k = normal(append * asked.size() * row), v = normal(k.size());
    const kvant_tensor k_tensor = float_tensor(k.data(), k.size()), v_tensor = float_tensor(v.data(), v.size());
    const kvant_tensor q_tensor = float_tensor(q, asked.size() * row * group), out_tensor = float_tensor(out, asked.size() * row * group);
    kvant_run_args run{};
    run.struct_size = sizeof(run);
    run.k = append > 0 ? &k_tensor : nullptr;
    run.v = append > 0 ? &v_tensor : nullptr;
    run.q = q != nullptr ? &q_tensor : nullptr;
    run.out = q != nullptr ? &out_tensor : nullptr;
    run.q_heads = q != nullptr ? kHeads * group : 0;
    const auto ran = cache->check(cache->api().step_run(planned, 0, &run));
    REQUIRE_MESSAGE(ran.ok(), ran.failure().message);
    REQUIRE(cache->check(cache->api().step_commit(planned)).ok());
  }

  kvant_sequence fork(kvant_sequence parent, uint32_t tokens) {
    kvant_sequence child = 0;
    const auto forked = cache->check(cache->api().sequence_fork(cache->handle(), parent, tokens, &child));
    REQUIRE_MESSAGE(forked.ok(), forked.failure().message);
    sequences.push_back(child);
    return child;
  }

  // A prefix of prefixes: all share kPrefix tokens, the last four another kOwn.
  void grow() {
    const auto root = cache->create_sequence();
    REQUIRE(root.ok());
    sequences = {*root};
    for (uint32_t done = 0; done < kPrefix; done += 265) step({*root}, 265, 1, nullptr, nullptr);
    while (sequences.size() < kSequences / 2) fork(*root, kPrefix);
    const kvant_sequence branch = fork(*root, kPrefix);
    step({branch}, kOwn, 1, nullptr, nullptr);
    while (sequences.size() < kSequences) fork(branch, kPrefix + kOwn);
    step(sequences, kOwn, 1, nullptr, nullptr);
  }
};

void check_tree(const std::shared_ptr<Device>& device, const std::string& format_k, const std::string& format_v, uint32_t transforms,
                uint32_t group) {
  CAPTURE(format_k);
  CAPTURE(format_v);
  CAPTURE(group);
  CacheShape shape;
  shape.kv_heads = kHeads;
  shape.head_dim = kDim;
  const auto k = device->library()->format(format_k), v = device->library()->format(format_v);
  REQUIRE((k.ok() && v.ok()));
  shape.format_k = k->id;
  shape.format_v = v->id;
  shape.transform_k = shape.transform_v = transforms;
  shape.capacity_tokens = 2048;
  const auto cache = Cache::create(device, shape);
  REQUIRE_MESSAGE(cache.ok(), cache.failure().message);
  Tree tree{*cache, {}};
  tree.grow();

  const size_t row = size_t{kHeads} * kDim * group;
  const std::vector<float> q = tree.normal(kSequences * row);
  std::vector<float> together(q.size()), alone(q.size());
  device->take_profile();
  tree.step(tree.sequences, 0, group, q.data(), together.data());
  if (group == 1) {  // one query row a KV head: any device serves several queries at once
    const auto profile = device->take_profile();
    const bool shared = std::any_of(profile.begin(), profile.end(), [](const ProfileEntry& entry) { return entry.label.starts_with("attend_prefill"); });
    CHECK((shared || profile.empty()));  // a device may have no timestamps
  }
  for (uint32_t s = 0; s < kSequences; ++s) tree.step({tree.sequences[s]}, 0, group, q.data() + s * row, alone.data() + s * row);
  double worst = 0, largest = 0;
  for (size_t i = 0; i < q.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(together[i]) - static_cast<double>(alone[i])));
    largest = std::max(largest, std::abs(static_cast<double>(alone[i])));
  }
  CHECK(largest > 0.01);
  // Queries times keys may go by fp16 or by 8 bits on some devices, a little differently for one query than for many.
  CHECK(worst < 0.02 * largest);
  if (device->facts().type == KVANT_DEVICE_CPU) CHECK(worst < 1e-5 * largest);
}

TEST_CASE("shared prefix: forks get the same attention in one step as each in its own") {
  const auto device = open_test_device(true, true);
  if (device == nullptr) return;
  check_tree(device, "f16", "f16", 0, 1);
  check_tree(device, "q4_0", "q8_0", 0, 1);
  check_tree(device, "t4", "nf4", KVANT_TRANSFORM_ROTATE | KVANT_TRANSFORM_CENTRE, 1);
  check_tree(device, "q8_0", "q4_0", 0, 2);
  check_quiet(*device);
}

}  // namespace
