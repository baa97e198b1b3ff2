// Pages of the prefix cache in tiers: where they go when they leave the device, how they come back, and what happens when a tier is
// slow, full, wrong or gone.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>

#include "host_prefix_model.hpp"
#include "tier_blob.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;

// A tier of a test: a map, and the ways in which tiers fail.
struct Shelf {
  std::mutex mutex;
  std::map<std::string, std::vector<std::byte>> entries;
  std::atomic<bool> gone{false}, full{false};
  std::atomic<int> gets{0}, puts{0};
  std::atomic<double> seconds_per_read{0.0};
  TierStats stats;
};

class ShelfTier final : public Tier {
 public:
  explicit ShelfTier(Shelf& shelf, const char* name = "shelf") : shelf_(shelf), name_(name) {}
  std::string_view name() const override { return name_; }
  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const std::lock_guard lock(shelf_.mutex);
    ++shelf_.puts;
    if (shelf_.gone || shelf_.full) return false;
    shelf_.entries[tier_key_text(key)].assign(value.begin(), value.end());
    return true;
  }
  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    const std::lock_guard lock(shelf_.mutex);
    std::vector<std::vector<std::byte>> out(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      ++shelf_.gets;
      const auto found = shelf_.entries.find(tier_key_text(keys[i]));
      if (shelf_.gone || found == shelf_.entries.end()) continue;
      out[i] = found->second;
      ++shelf_.stats.hits;
      shelf_.stats.bytes_read += out[i].size();
      shelf_.stats.read_seconds += shelf_.seconds_per_read;
    }
    return out;
  }
  std::vector<bool> contains(std::span<const TierKey> keys) override {
    const std::lock_guard lock(shelf_.mutex);
    std::vector<bool> out;
    for (const TierKey& key : keys) out.push_back(shelf_.entries.contains(tier_key_text(key)));
    return out;
  }
  void erase(const TierKey& key) override {
    const std::lock_guard lock(shelf_.mutex);
    shelf_.entries.erase(tier_key_text(key));
  }
  void clear() override {
    const std::lock_guard lock(shelf_.mutex);
    shelf_.entries.clear();
  }
  TierStats stats() const override {
    const std::lock_guard lock(shelf_.mutex);
    return shelf_.stats;
  }

 private:
  Shelf& shelf_;
  const char* name_;
};

std::vector<std::unique_ptr<Tier>> tiers(std::initializer_list<Shelf*> shelves) {
  std::vector<std::unique_ptr<Tier>> made;
  for (Shelf* shelf : shelves) made.push_back(std::make_unique<ShelfTier>(*shelf));
  return made;
}

void open_tiers(PrefixModel& model, std::initializer_list<Shelf*> shelves, const TierOptions& options = {}) {
  const Status status = model.cache->set_tiers(tiers(shelves), options);
  REQUIRE_MESSAGE(status.ok(), status.message());
}

TEST_CASE("host tiers: what leaves the device comes back bit for bit") {
  Shelf shelf;
  PrefixModel model(PrefixModel::small(6));
  open_tiers(model, {&shelf});
  model.destroy(model.prompt(counting(0, 80)).sequence);
  model.destroy(model.prompt(counting(1000, 80)).sequence);  // pushes four of the first five pages out
  PrefixCounters counters = model.cache->prefix_counters().value();
  CHECK(counters.spilled == 4);
  CHECK(counters.evicted_capacity == 4);
  REQUIRE(model.cache->drain_tiers().ok());
  CHECK(shelf.entries.size() == 4);
  const SequenceStart start = model.create(counting(0, 80));  // compares every token
  CHECK(start.reused_tokens == 80);
  CHECK(model.cache->prefix_counters().value().loaded == 4);
  model.check_references();
  // Once more, from the device.
  const int gets = shelf.gets;
  CHECK(model.create(counting(0, 80)).reused_tokens == 80);
  CHECK(shelf.gets == gets);
}

TEST_CASE("host tiers: what is queued is found before it is stored, and a new cache finds what an old one stored") {
  Shelf shelf;
  {
    PrefixModel model(PrefixModel::small(8));
    open_tiers(model, {&shelf});
    model.prompt(counting(0, 64));
    REQUIRE(model.cache->store_prefixes().ok());
    REQUIRE(model.cache->clear_prefixes().ok());
  }  // stores what is queued
  CHECK(shelf.entries.size() == 4);
  PrefixModel model(PrefixModel::small(8));
  open_tiers(model, {&shelf});
  CHECK(model.create(counting(0, 64), "salt").reused_tokens == 0);
  CHECK(model.create(counting(0, 64), "", 1).reused_tokens == 63);
  model.check_references();
}

TEST_CASE("host tiers: what does not fit, is wrong, is too short or would be computed quicker is not loaded") {
  Shelf shelf;
  PrefixModel source(PrefixModel::small(16));
  open_tiers(source, {&shelf});
  source.prompt(counting(0, 160));
  REQUIRE(source.cache->store_prefixes().ok());
  REQUIRE(source.cache->drain_tiers().ok());
  CHECK(shelf.entries.size() == 10);
  SUBCASE("room for some") {
    PrefixModel model(PrefixModel::small(8));
    open_tiers(model, {&shelf});
    const SequenceId held = model.prompt(counting(7000, 48)).sequence;
    CHECK(model.create(counting(0, 160)).reused_tokens == 5 * 16);
    model.check(held);
    model.check_references();
  }
  SUBCASE("an entry of another size, and the ones behind it") {
    PrefixModel model(PrefixModel::small(16));
    open_tiers(model, {&shelf});
    const Tokens prompt = counting(0, 160);
    PrefixKey key = root_key(cache_debug(*model.cache).prefix_index()->content(), "");
    for (int page = 0; page < 4; ++page) key = page_key(key, std::span(prompt).subspan(static_cast<std::size_t>(page) * 16, 16));
    shelf.entries.at(tier_key_text(tier_key(key, {}))).pop_back();
    CHECK(model.create(prompt).reused_tokens == 3 * 16);
    model.check_references();
  }
  SUBCASE("fewer tokens than are worth it") {
    TierOptions options;
    options.min_tokens = 161;
    PrefixModel model(PrefixModel::small(16));
    open_tiers(model, {&shelf}, options);
    CHECK(model.create(counting(0, 160)).reused_tokens == 0);
  }
  SUBCASE("slower than computing") {
    PrefixModel model(PrefixModel::small(16));
    open_tiers(model, {&shelf});
    shelf.seconds_per_read = 0.5;  // a page
    cache_debug(*model.cache).set_seconds_per_token(0.01);
    CHECK(model.create(counting(0, 160)).reused_tokens == 160);  // nothing is known of the tier yet
    model.destroy(model.sequences.begin()->first);
    REQUIRE(model.cache->clear_prefixes().ok());
    CHECK(model.create(counting(0, 160)).reused_tokens == 0);
    CHECK(model.cache->tier_stats().value().declined_loads == 10);
    cache_debug(*model.cache).set_seconds_per_token(1.0);
    CHECK(model.create(counting(0, 160)).reused_tokens == 160);
  }
  SUBCASE("the device refuses") {
    PrefixModel model(PrefixModel::small(16));
    open_tiers(model, {&shelf});
    for (int* countdown : {&model.executor.fail_create, &model.executor.fail_stage, &model.executor.fail_submit}) {
      *countdown = 0;
      CHECK(model.create(counting(0, 160)).reused_tokens == 0);
      CHECK(*countdown == -1);
      CHECK(model.used_pages() == 0);
      model.check_references();
    }
    CHECK(model.create(counting(0, 160)).reused_tokens == 160);
  }
}

TEST_CASE("host tiers: a far tier is asked last, brings its entries near, and may be gone") {
  Shelf near, far;
  PrefixModel model(PrefixModel::small(8));
  open_tiers(model, {&near, &far});
  model.destroy(model.prompt(counting(0, 64)).sequence);
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->drain_tiers().ok());
  CHECK(near.entries.size() == 4);
  CHECK(far.entries.size() == 4);
  REQUIRE(model.cache->clear_prefixes().ok());
  near.entries.clear();
  SequenceSpec spec;
  const Tokens prompt = counting(0, 64);
  spec.tokens = prompt;
  spec.near_tiers_only = true;
  auto start = model.cache->create_sequence(spec);
  CHECK(start.value().reused_tokens == 0);
  REQUIRE(model.cache->destroy_sequence(start.value().sequence).ok());
  REQUIRE(model.cache->prefetch_prefix(spec).ok());
  REQUIRE(model.cache->drain_tiers().ok());
  CHECK(near.entries.size() == 4);
  start = model.cache->create_sequence(spec);
  CHECK(start.value().reused_tokens == 64);
  REQUIRE(model.cache->destroy_sequence(start.value().sequence).ok());
  REQUIRE(model.cache->clear_prefixes().ok());
  near.entries.erase(near.entries.begin());
  far.gone = true;  // its index still says that it has them
  CHECK(model.create(prompt).reused_tokens < 64);
  model.check_references();
}

TEST_CASE("host tiers: narrower formats, admission and a full queue") {
  Shelf shelf;
  PrefixModel model(PrefixModel::small(16));
  TierOptions options;
  options.formats.k = FormatId::q8_0;
  open_tiers(model, {&shelf}, options);
  const SequenceId a = model.prompt(counting(0, 32)).sequence;
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->drain_tiers().ok());
  // One token: f16 and f32 keys of 32 and 64 elements as q8_0, f16 values as they are.
  CHECK(shelf.entries.begin()->second.size() == 2 + 16 * (34 + 64 + 2 * 34 + 2 * 64));
  std::vector<float> exact(32 * 32), narrow(32 * 32);
  const auto read = [&](SequenceId id, std::vector<float>& out) {
    TensorView view;
    view.host = reinterpret_cast<std::byte*>(out.data());
    REQUIRE(model.cache->read(id, 0, Side::k, 0, 32, view).ok());
  };
  read(a, exact);
  model.destroy(a);
  REQUIRE(model.cache->clear_prefixes().ok());
  SequenceSpec spec;
  const Tokens prompt = counting(0, 32);
  spec.tokens = prompt;
  const SequenceStart start = model.cache->create_sequence(spec).value();
  CHECK(start.reused_tokens == 32);
  read(start.sequence, narrow);
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::fabs(exact[i] - narrow[i]) <= 8.0f / 254 + 0.01f);
  CHECK(exact != narrow);
  // Exact entries have other keys.
  PrefixModel other(PrefixModel::small(16));
  open_tiers(other, {&shelf});
  CHECK(other.create(prompt).reused_tokens == 0);

  TierOptions few;
  few.store_after_uses = 1;
  few.queue_bytes = 1;
  Shelf second;
  PrefixModel busy(PrefixModel::small(2));
  open_tiers(busy, {&second}, few);
  busy.destroy(busy.prompt(counting(0, 32)).sequence);
  busy.destroy(busy.prompt(counting(0, 16)).sequence);  // one of the two pages is used a second time
  busy.destroy(busy.prompt(counting(500, 32)).sequence);
  CHECK(busy.cache->prefix_counters().value().spilled == 1);
  CHECK(busy.cache->tier_stats().value().dropped_stores == 1);
}

TEST_CASE("host tiers: sliding windows store what they hold") {
  Shelf shelf;
  CacheSpec spec = PrefixModel::small(12);
  spec.layers[1].window = 20;
  PrefixModel model(spec);
  open_tiers(model, {&shelf});
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(model.append(a, counting(i * 16, 16)).ok());
  model.destroy(a);
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.create(counting(0, 96)).reused_tokens == 96);
  model.check_references();
}

TEST_CASE("host tiers: without a prefix cache or tiers each call says so") {
  CacheSpec plain = PrefixModel::small(4);
  plain.prefix_cache = false;
  plain.model_id.clear();
  PrefixModel model(plain);
  CHECK(model.cache->set_tiers({}, {}).code() == StatusCode::failed_precondition);
  PrefixModel without(PrefixModel::small(4));
  for (const Status& status : {without.cache->store_prefixes(), without.cache->drain_tiers(), without.cache->prefetch_prefix({}),
                               without.cache->tier_stats().status()})
    CHECK(status.message() == "this cache has no tiers");
}

}  // namespace
}  // namespace kvant
