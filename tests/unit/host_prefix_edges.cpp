// The prefix cache where sequences and the index hold different pages of a node: written over, merged, shed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "cache_key.hpp"
#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;

// Every token of one layer anew, in pages that the sequence then holds alone.
Status write_over(PrefixModel& model, SequenceId id, std::uint32_t layer, std::uint64_t tokens) {
  const LayerSpec& facts = model.spec.layers[layer];
  std::vector<float> rows(tokens * facts.kv_heads * facts.head_dim_k, 1.0f);
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(rows.data());
  return model.cache->write(id, layer, 0, tokens, view, view);
}

TEST_CASE("host prefix: only pages that nobody else holds are shed") {
  std::vector<PagePool> pools;
  pools.emplace_back(8, 4);
  PolicySpec lru;
  lru.capacity_entries = 8;
  PrefixIndex index({}, 16, pools, EvictionPolicy::create(lru).value());
  PrefixNode* node = index.root("");
  std::vector<std::int32_t> pages;
  for (int i = 0; i < 5; ++i) {
    pages.push_back(pools[0].take(kNoPage));
    node = index.insert(node, counting(i * 16, 16), std::span(pages).last(1), {}, 1);
    REQUIRE(node != nullptr);
  }
  for (const int i : {1, 3}) pools[0].release(static_cast<std::uint32_t>(pages[static_cast<std::size_t>(i)]));
  CHECK(index.shed_group(0, 8) == 2);
  CHECK(pools[0].used_pages() == 3);
  for (const PrefixNode* left : index.nodes()) CHECK((left->pages[0] == kNoPage) == (left->depth == 2 || left->depth == 4));
  CHECK(index.shed_group(0, 8) == 0);
  for (const int i : {0, 2, 4}) pools[0].release(static_cast<std::uint32_t>(pages[static_cast<std::size_t>(i)]));
  CHECK(index.shed_group(0, 1) == 1);  // no more than are wanted
}

TEST_CASE("host prefix: a page that a sequence holds makes no room, and the next one goes as well") {
  PrefixModel model(PrefixModel::small(8));
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  const SequenceId a = model.prompt(counting(0, 32)).sequence;
  REQUIRE(write_over(model, a, 0, 32).ok());  // it holds the other layer's published pages still
  model.now_ms += 10;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms += 10;
  const SequenceId d = model.prompt(counting(200, 32)).sequence;
  REQUIRE(write_over(model, d, 1, 32).ok());
  model.now_ms += 10;
  const SequenceId fork = model.cache->fork_sequence(d, 32).value();
  REQUIRE(model.used_pages() == 16);
  const Status written = write_over(model, fork, 1, 32);
  CHECK_MESSAGE(written.ok(), written.message());
  CHECK(model.cache->prefix_counters().value().evicted_capacity == 4);
  REQUIRE(model.cache->destroy_sequence(fork).ok());
  for (const SequenceId id : {a, d}) model.destroy(id);
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.used_pages() == 0);
}

TEST_CASE("host prefix: writing a part of a shared page leaves the others' as it is") {
  PrefixModel model(PrefixModel::small(12));
  const SequenceId a = model.prompt(counting(0, 48)).sequence, fork = model.fork(a, 48);
  REQUIRE(write_over(model, a, 1, 40).ok());  // ends within the third page
  model.check(fork);
  CHECK(model.used_pages() == 3 + 3 + 3);
}

TEST_CASE("host prefix: behind a page that was taken in part stands what follows its own tokens") {
  PrefixModel model(PrefixModel::small(16));
  const Tokens prompt = counting(0, 48), more = counting(900, 16);
  model.destroy(model.prompt(prompt).sequence);
  const SequenceId a = model.create(prompt, "", 1).sequence;
  REQUIRE(model.append(a, {777}).ok());
  REQUIRE(model.append(a, more).ok());
  Tokens other = prompt, own = model.sequences.at(a).tokens;
  other.insert(other.end(), more.begin(), more.end());
  CHECK(model.create(other).reused_tokens == 48);
  CHECK(model.create(own).reused_tokens == 64);
  model.check_all();
  model.check_references();
}

TEST_CASE("host prefix: a new sequence does not begin with what has expired") {
  CacheSpec spec = PrefixModel::small(16);
  spec.policy.ttl_ms = 100;
  PrefixModel model(spec);
  model.destroy(model.prompt(counting(0, 32)).sequence);
  model.now_ms += 99;
  model.destroy(model.create(counting(0, 16)).sequence);  // a use of the first page alone
  model.now_ms += 1;
  CHECK(model.create(counting(0, 32)).reused_tokens == 16);
  CHECK(model.cache->prefix_counters().value().evicted_expired == 1);
  model.check_references();
}

TEST_CASE("host prefix: a new policy goes on with the order of uses that the old one left") {
  PrefixModel model(PrefixModel::small(8, PolicyKind::none));
  for (const int first : {0, 100, 200}) {
    model.destroy(model.prompt(counting(first, 32)).sequence);
    model.now_ms += 10;
  }
  model.destroy(model.create(counting(0, 32)).sequence);  // the first becomes the last
  REQUIRE(model.cache->set_policy({}).ok());
  model.prompt(counting(300, 48));  // one page more than are free
  for (const auto& [first, left] : {std::pair{0, 32u}, {100, 16u}, {200, 32u}}) {
    SequenceSpec look;
    const Tokens prompt = counting(first, 32);
    look.tokens = prompt;
    CHECK(model.cache->find_prefix(look).value() == left);
  }
}

TEST_CASE("host prefix: under a new policy entries expire by their last use, not by its beginning") {
  PrefixModel model(PrefixModel::small(8));
  model.now_ms = 1000;
  model.destroy(model.prompt(counting(0, 32)).sequence);
  model.now_ms = 1040;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms = 1080;
  PolicySpec policy;
  policy.ttl_ms = 100;
  REQUIRE(model.cache->set_policy(policy).ok());
  const auto found = [&](std::int32_t first) {
    SequenceSpec look;
    const Tokens prompt = counting(first, 32);
    look.tokens = prompt;
    return model.cache->find_prefix(look).value();
  };
  model.now_ms = 1099;
  CHECK(found(0) == 32);
  model.now_ms = 1100;
  CHECK(found(0) == 0);
  CHECK(found(100) == 32);
  model.now_ms = 1140;
  CHECK(found(100) == 0);
}

TEST_CASE("host prefix: after a conversion every page has the key of its new content") {
  PrefixModel model(PrefixModel::small(8));
  model.destroy(model.prompt(counting(0, 32)).sequence);
  model.prompt(counting(50, 32), "tenant");
  REQUIRE(model.cache->convert(1, Side::k, FormatId::f16).ok());
  const PrefixIndex& index = *cache_debug(*model.cache).prefix_index();
  for (const auto& [first, salt] : {std::pair{0, ""}, {50, "tenant"}}) {
    const Tokens tokens = counting(first, 32);
    PrefixKey key = root_key(cache_content_key(model.cache->spec()), salt);
    for (std::size_t page = 0; page < 2; ++page) {
      key = page_key(key, std::span(tokens).subspan(page * 16, 16));
      const PrefixNode* node = index.find(key);
      REQUIRE(node != nullptr);
      CHECK(node->key == key);
      CHECK(node->tokens == Tokens(tokens.begin() + static_cast<std::ptrdiff_t>(page * 16),
                                   tokens.begin() + static_cast<std::ptrdiff_t>(page * 16 + 16)));
    }
  }
  CHECK(index.size() == 4);
}

TEST_CASE("host prefix: every field of every layer is part of the key") {
  const CacheSpec spec = PrefixModel::small(4);
  std::vector<PrefixKey> keys{cache_content_key(spec)};
  const auto differs = [&](auto change) {
    for (std::size_t layer = 0; layer < spec.layers.size(); ++layer) {
      CacheSpec other = spec;
      change(other.layers[layer]);
      const PrefixKey key = cache_content_key(other);
      CHECK(std::find(keys.begin(), keys.end(), key) == keys.end());
      keys.push_back(key);
    }
  };
  CacheSpec model = spec;
  model.model_id += "2";
  keys.push_back(cache_content_key(model));
  CHECK(keys[0] != keys[1]);
  differs([](LayerSpec& l) { l.kv_heads = 5; });
  differs([](LayerSpec& l) { l.head_dim_k = 48; });
  differs([](LayerSpec& l) { l.head_dim_v = 48; });
  differs([](LayerSpec& l) { l.window = 9; });
  differs([](LayerSpec& l) { l.window_sinks = 9; });
  differs([](LayerSpec& l) { l.format_k = FormatId::q8_0; });
  differs([](LayerSpec& l) { l.format_v = FormatId::q8_0; });
}

TEST_CASE("host prefix: a root lives as long as somebody needs it, and names its nodes' salt") {
  std::vector<PagePool> pools;
  pools.emplace_back(8, 4);
  PolicySpec lru;
  lru.capacity_entries = 8;
  PrefixIndex index({}, 16, pools, EvictionPolicy::create(lru).value());
  PrefixNode* const root = index.root("tenant");
  index.pin(root);
  const std::int32_t page = pools[0].take(kNoPage);
  PrefixNode* const node = index.insert(root, counting(0, 16), {&page, 1}, {3, 50}, 7);
  REQUIRE(node != nullptr);
  CHECK(node->salt == "tenant");
  CHECK(node->depth == 1);
  CHECK(node->uses == 0);
  CHECK(node->last_use_ms == 7);
  CHECK(node->facts.priority == 3);
  CHECK(node->facts.ttl_ms == 50);
  CHECK(node->facts.depth == 0);
  CHECK(std::memcmp(&node->facts.fingerprint, node->key.bytes.data() + 8, 8) == 0);
  index.touch(node, 9);
  CHECK(node->uses == 1);
  CHECK(node->last_use_ms == 9);
  index.unpin(root, 10);
  CHECK(index.find_root("tenant") == root);  // of its child
  CHECK(index.clear(11, [](const PrefixNode&) {}) == 1);
  CHECK(index.find_root("tenant") == nullptr);
  CHECK(index.size() == 0);
  CHECK(index.nodes().empty());
  CHECK(pools[0].references(static_cast<std::uint32_t>(page)) == 1);
}

TEST_CASE("host prefix: what an index held is let go with it") {
  std::vector<PagePool> pools;
  pools.emplace_back(8, 4);
  const std::int32_t page = pools[0].take(kNoPage);
  {
    PolicySpec lru;
    lru.capacity_entries = 8;
    PrefixIndex index({}, 16, pools, EvictionPolicy::create(lru).value());
    REQUIRE(index.insert(index.root(""), counting(0, 16), {&page, 1}, {}, 1) != nullptr);
    CHECK(pools[0].references(static_cast<std::uint32_t>(page)) == 2);
  }
  CHECK(pools[0].references(static_cast<std::uint32_t>(page)) == 1);
  pools[0].release(static_cast<std::uint32_t>(page));
  CHECK(pools[0].used_pages() == 0);
}

TEST_CASE("host prefix: behind a window no more pages are shed than are needed") {
  CacheSpec spec = PrefixModel::small(12);
  spec.layers[1].window = 20;
  PrefixModel model(spec);
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 9; ++i) REQUIRE(model.append(a, counting(i * 16, 16)).ok());
  const auto gaps = [&] {
    int count = 0;
    for (const PrefixNode* node : cache_debug(*model.cache).prefix_index()->nodes()) count += node->pages[1] == kNoPage ? 1 : 0;
    return count;
  };
  // Copies of its last page fill the windowed group.
  std::vector<float> rows(16 * 2 * 32, 1.0f);
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(rows.data());
  for (int copies = 1; copies <= 5; ++copies) {
    CAPTURE(copies);
    const SequenceId fork = model.cache->fork_sequence(a, 9 * 16).value();
    const Status status = model.cache->write(fork, 1, 8 * 16, 16, view, view);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(gaps() == std::max(0, copies - 3));
  }
  // A policy that lets nothing go sheds nothing either.
  PolicySpec none;
  none.kind = PolicyKind::none;
  REQUIRE(model.cache->set_policy(none).ok());
  const SequenceId fork = model.cache->fork_sequence(a, 9 * 16).value();
  CHECK(model.cache->write(fork, 1, 8 * 16, 16, view, view).code() == StatusCode::resource_exhausted);
  CHECK(gaps() == 2);
  CHECK(model.cache->prefix_counters().value().pages == 9);
  model.check(a);
}

PrefixKey parentless_key(const PrefixKey&, std::span<const std::int32_t> tokens) { return page_key({}, tokens); }

TEST_CASE("host prefix: an equal key and equal tokens behind another beginning are a miss") {
  std::vector<PagePool> pools;
  pools.emplace_back(8, 4);
  PolicySpec lru;
  lru.capacity_entries = 8;
  PrefixIndex index({}, 16, pools, EvictionPolicy::create(lru).value(), parentless_key);
  PrefixNode *const one = index.root("one"), *const two = index.root("two");
  index.pin(one);
  index.pin(two);
  const std::int32_t page = pools[0].take(kNoPage);
  const Tokens tokens = counting(0, 16), other = counting(5, 16);
  PrefixNode* const node = index.insert(one, tokens, {&page, 1}, {}, 1);
  REQUIRE(node != nullptr);
  CHECK(index.child(one, tokens) == node);
  CHECK(index.child(one, other) == nullptr);
  CHECK(index.child(two, tokens) == nullptr);
  CHECK(index.insert(two, tokens, {&page, 1}, {}, 1) == nullptr);
  CHECK(two->children == 0);
  CHECK(index.size() == 1);
}

TEST_CASE("host prefix: computing again what is there is a use of it") {
  PrefixModel model(PrefixModel::small(8));
  const SequenceId a = model.create(counting(0, 32)).sequence, b = model.create(counting(0, 32)).sequence;
  REQUIRE(model.append(a, counting(0, 32), false).ok());
  model.destroy(a);
  model.now_ms += 10;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms += 10;
  REQUIRE(model.append(b, counting(0, 32), false).ok());  // merged
  CHECK(model.cache->prefix_counters().value().merged == 2);
  std::uint64_t most_uses = 0;
  for (const PrefixNode* node : cache_debug(*model.cache).prefix_index()->nodes())
    most_uses = std::max<std::uint64_t>(most_uses, node->uses);
  CHECK(most_uses >= 1);
  model.destroy(b);
  const SequenceId fresh = model.prompt(counting(300, 80)).sequence;  // one page more than are free
  CHECK(model.create(counting(0, 32)).reused_tokens == 32);
  CHECK(model.create(counting(100, 32)).reused_tokens == 16);
  model.check(fresh);
  model.check_references();
}

TEST_CASE("host prefix: a page that two forks name differently is the first one's") {
  PrefixModel model(PrefixModel::small(8));
  const Tokens tokens(32, 3);
  const SequenceId parent = model.create({}).sequence;
  REQUIRE(model.append(parent, tokens, false).ok());
  const SequenceId child = model.fork(parent, 32);
  REQUIRE(model.cache->identify(parent, tokens).ok());
  CHECK(model.cache->prefix_counters().value().pages == 2);
  // The same first page, then another; and another one from the beginning on.
  Tokens others = tokens;
  others[20] = 4;
  REQUIRE(model.cache->identify(child, others).ok());
  others[0] = 4;
  REQUIRE(model.cache->identify(child, others).ok());
  CHECK(model.cache->prefix_counters().value().pages == 2);
  CHECK(model.cache->prefix_counters().value().published == 2);
  model.check_all();
  model.check_references();
  model.destroy(parent);
  model.destroy(child);
  CHECK(model.cache->clear_prefixes().value() == 2);
  CHECK(model.cache->memory_use().used_pages == 0);
}

}  // namespace
}  // namespace kvant
