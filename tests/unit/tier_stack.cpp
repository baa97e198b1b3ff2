// The stack of tiers by itself: what its queue holds and what it drops, which tier is asked for what, and where entries end up.
#include "tier_stack.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <thread>

namespace kvant {
namespace {

using Value = std::vector<std::byte>;

TierKey key_of(int number) {
  TierKey key;
  key.bytes[0] = static_cast<std::byte>(number);
  return key;
}
Value value_of(int number, std::size_t size = 10) { return Value(size, static_cast<std::byte>(number + 1)); }
int number_of(const TierKey& key) { return std::to_integer<int>(key.bytes[0]); }

// What a tier holds and was asked, and a gate that its puts wait at.
struct Box {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<int, Value> entries;
  std::vector<int> asked, put;
  bool closed = false, throws = false;
  TierStats stats;

  void open() {
    const std::lock_guard lock(mutex);
    closed = false;
    changed.notify_all();
  }
  std::vector<int> held() {
    const std::lock_guard lock(mutex);
    std::vector<int> numbers;
    for (const auto& [number, value] : entries) numbers.push_back(number);
    return numbers;
  }
};

class BoxTier final : public Tier {
 public:
  explicit BoxTier(Box& box) : box_(box) {}
  std::string_view name() const override { return "box"; }
  bool put(const TierKey& key, std::span<const std::byte> value) override {
    std::unique_lock lock(box_.mutex);
    box_.changed.wait(lock, [&] { return !box_.closed; });
    box_.put.push_back(number_of(key));
    if (box_.throws) throw std::bad_alloc();
    box_.entries[number_of(key)].assign(value.begin(), value.end());
    return true;
  }
  std::vector<Value> get(std::span<const TierKey> keys) override {
    const std::lock_guard lock(box_.mutex);
    std::vector<Value> values;
    for (const TierKey& key : keys) {
      box_.asked.push_back(number_of(key));
      const auto found = box_.entries.find(number_of(key));
      values.push_back(found == box_.entries.end() ? Value() : found->second);
    }
    return values;
  }
  std::vector<bool> contains(std::span<const TierKey> keys) override {
    const std::lock_guard lock(box_.mutex);
    std::vector<bool> there;
    for (const TierKey& key : keys) there.push_back(box_.entries.contains(number_of(key)));
    return there;
  }
  void erase(const TierKey& key) override {
    const std::lock_guard lock(box_.mutex);
    box_.entries.erase(number_of(key));
  }
  void clear() override {
    const std::lock_guard lock(box_.mutex);
    box_.entries.clear();
  }
  TierStats stats() const override {
    const std::lock_guard lock(box_.mutex);
    return box_.stats;
  }

 private:
  Box& box_;
};

std::vector<std::unique_ptr<Tier>> tiers(std::initializer_list<Box*> boxes) {
  std::vector<std::unique_ptr<Tier>> made;
  for (Box* box : boxes) made.push_back(std::make_unique<BoxTier>(*box));
  return made;
}
std::vector<TierKey> keys_of(std::initializer_list<int> numbers) {
  std::vector<TierKey> keys;
  for (const int number : numbers) keys.push_back(key_of(number));
  return keys;
}
using Numbers = std::vector<int>;

TEST_CASE("tier stack: prefetches beyond those that wait are dropped, and later ones are not") {
  Box near, far;
  for (int number = 0; number < 100; ++number) far.entries[number] = value_of(number);
  near.closed = true;
  TierStack stack(tiers({&near, &far}), 1000);
  for (int number = 0; number < 99; ++number) stack.prefetch(keys_of({number}));
  near.open();
  stack.drain();
  CHECK(near.held().size() == TierStack::kMostPrefetches);
  stack.prefetch(keys_of({99}));
  stack.drain();
  CHECK(near.held().back() == 99);
}

TEST_CASE("tier stack: the queue takes what fits, each key once, and is found until it is stored") {
  Box box;
  box.closed = true;
  TierStack stack(tiers({&box}), 150);
  stack.store(key_of(1), value_of(1, 100));
  stack.store(key_of(2), value_of(2, 51));  // one byte too much
  CHECK(stack.stats().dropped_stores == 1);
  stack.store(key_of(1), value_of(1, 40));  // waits already
  CHECK(stack.stats().queued_bytes == 100);
  stack.store(key_of(3), value_of(3, 50));
  CHECK(stack.stats().queued_bytes == 150);
  CHECK(stack.stats().dropped_stores == 1);
  CHECK(box.held().empty());
  for (const bool near_only : {true, false}) {
    CHECK(stack.find(keys_of({3, 1, 2}), near_only) == 2);
    std::vector<std::size_t> places;
    const std::vector<Value> values = stack.load(keys_of({3, 1, 2}), near_only, &places);
    CHECK(values == std::vector<Value>{value_of(3, 50), value_of(1, 100)});
    CHECK(places == std::vector<std::size_t>{0, 0});
  }
  box.open();
  stack.drain();
  CHECK(stack.stats().queued_bytes == 0);
  CHECK(box.held() == Numbers{1, 3});
  CHECK(box.put == Numbers{1, 3});
  stack.store(key_of(2), value_of(2, 150));  // there is room again
  stack.drain();
  CHECK(box.held() == Numbers{1, 2, 3});
  // What has left the queue has left: the tier alone is asked now.
  stack.clear();
  CHECK(stack.find(keys_of({1}), false) == 0);
  stack.store(key_of(1), value_of(1));
  stack.drain();
  CHECK(box.held() == Numbers{1});
}

TEST_CASE("tier stack: draining and clearing wait for everything that was queued") {
  for (int round = 0; round < 20; ++round) {
    Box box;
    box.closed = true;
    TierStack stack(tiers({&box}), 1000);
    for (int i = 0; i < 3; ++i) stack.store(key_of(i), value_of(i));
    std::thread opener([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      box.open();
    });
    if (round % 2 == 0) {
      stack.drain();
      CHECK(box.held() == Numbers{0, 1, 2});
      CHECK(stack.stats().queued_bytes == 0);
    } else {
      stack.clear();
      stack.drain();
      CHECK(box.held().empty());
    }
    opener.join();
  }
}

TEST_CASE("tier stack: what is queued at the end is stored") {
  Box box;
  box.closed = true;
  std::thread opener;
  {
    TierStack stack(tiers({&box}), 1000);
    for (int i = 0; i < 5; ++i) stack.store(key_of(i), value_of(i));
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      box.open();
    });
  }
  opener.join();
  CHECK(box.held() == Numbers{0, 1, 2, 3, 4});
}

TEST_CASE("tier stack: a load asks each tier for what the nearer ones do not have, and leaves it with those") {
  Box near, middle, far;
  near.entries = {{3, value_of(3)}};
  middle.entries = {{2, value_of(2)}};
  far.entries = {{1, value_of(1)}, {5, value_of(5)}};
  TierStack stack(tiers({&near, &middle, &far}), 1000);
  CHECK(stack.find(keys_of({3, 2, 1}), false) == 3);
  CHECK(stack.find(keys_of({3, 2, 1}), true) == 1);
  CHECK(stack.find(keys_of({1, 4, 3}), false) == 1);
  CHECK(stack.find(keys_of({4, 1, 3}), false) == 0);
  CHECK(stack.load(keys_of({3, 2}), true, nullptr) == std::vector<Value>{value_of(3)});
  for (Box* box : {&near, &middle, &far}) box->asked.clear();
  std::vector<std::size_t> places;
  CHECK(stack.load(keys_of({2, 1, 3, 4, 5}), false, &places) == std::vector<Value>{value_of(2), value_of(1), value_of(3)});
  CHECK(places == std::vector<std::size_t>{1, 2, 0});
  CHECK(near.asked == Numbers{2, 1, 3, 4, 5});
  CHECK(middle.asked == Numbers{2, 1, 4, 5});
  CHECK(far.asked == Numbers{1, 4, 5});
  CHECK(near.held() == Numbers{1, 2, 3, 5});
  CHECK(middle.held() == Numbers{1, 2, 5});
  CHECK(far.held() == Numbers{1, 5});
  CHECK(near.entries[1] == value_of(1));
  CHECK(stack.load(keys_of({4, 3}), false, &places).empty());
  CHECK(places.empty());
}

TEST_CASE("tier stack: what is fetched ahead comes to the nearest tier, and no tier is asked for what is near") {
  Box near, middle, far;
  near.entries = {{3, value_of(3)}};
  middle.entries = {{2, value_of(2)}, {3, value_of(3)}};
  far.entries = {{1, value_of(1)}, {2, value_of(2)}, {3, value_of(3)}};
  TierStack stack(tiers({&near, &middle, &far}), 1000);
  stack.prefetch(keys_of({1, 2, 3, 4}));
  stack.drain();
  CHECK(near.held() == Numbers{1, 2, 3});
  CHECK(near.entries[1] == value_of(1));
  CHECK(near.entries[2] == value_of(2));
  CHECK(middle.held() == Numbers{1, 2, 3});
  CHECK(middle.asked == Numbers{1, 2, 4});
  CHECK(far.asked == Numbers{1, 4});
  CHECK(near.put == Numbers{2, 1});
}

TEST_CASE("tier stack: memory that runs out in a tier costs that entry, and is counted") {
  Box box;
  box.throws = true;
  TierStack stack(tiers({&box}), 1000);
  stack.store(key_of(1), value_of(1));
  stack.drain();
  CHECK(stack.stats().dropped_stores == 1);
  CHECK(stack.stats().queued_bytes == 0);
  box.throws = false;
  stack.store(key_of(1), value_of(1));
  stack.drain();
  CHECK(box.held() == Numbers{1});
  CHECK(stack.stats().dropped_stores == 1);
}

TEST_CASE("tier stack: the time of a load follows from enough hits of all tiers, and declined entries are counted") {
  Box near, far;
  near.stats.hits = 3;
  near.stats.bytes_read = 100;
  near.stats.read_seconds = 1;
  far.stats.hits = 4;
  far.stats.bytes_read = 300;
  far.stats.read_seconds = 3;
  TierStack stack(tiers({&near, &far}), 1000);
  CHECK(stack.load_seconds(50) == 0);
  far.stats.hits = 5;
  CHECK(stack.load_seconds(50) == doctest::Approx(0.5));
  stack.count_declined(3);
  stack.count_declined(4);
  CHECK(stack.stats().declined_loads == 7);
  CHECK(stack.stats().tiers.size() == 2);
}

}  // namespace
}  // namespace kvant
