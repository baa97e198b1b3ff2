// The prefix cache: what is shared, when it leaves, and who may see it.
#include <doctest/doctest.h>

#include <string>

#include "cache_key.hpp"
#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;

TEST_CASE("host prefix: two prompts with a common beginning hold its pages once") {
  PrefixModel model(PrefixModel::small(32));
  Tokens a = counting(0, 50), b = counting(0, 50);
  b[40] = 999;
  CHECK(model.prompt(a).reused_tokens == 0);
  const std::uint64_t alone = model.used_pages();
  CHECK(alone == 4 * 2);  // 50 tokens, two layer groups
  CHECK(model.prompt(b).reused_tokens == 32);
  CHECK(model.used_pages() == alone + 2 * 2);
  const PrefixCounters counters = model.cache->prefix_counters().value();
  CHECK(counters.lookups == 2);
  CHECK(counters.lookup_tokens == 100);
  CHECK(counters.hits == 1);
  CHECK(counters.hit_tokens == 32);
  CHECK(counters.published == 4);  // three full pages of a, one of b
  model.check_all();
  model.check_references();
}

TEST_CASE("host prefix: pages outlive their sequence, and the last token can be left to compute") {
  PrefixModel model(PrefixModel::small(8));
  model.destroy(model.prompt(counting(0, 48)).sequence);
  CHECK(model.used_pages() == 3 * 2);
  CHECK(model.cache->prefix_counters().value().unshared_pages == 6);
  SequenceSpec spec;
  const Tokens prompt = counting(0, 48);
  spec.tokens = prompt;
  CHECK(model.cache->find_prefix(spec).value() == 48);
  const SequenceStart start = model.create(prompt, "", 1);
  CHECK(start.reused_tokens == 47);
  // The last page is shared until the sequence writes into it.
  CHECK(model.used_pages() == 6);
  REQUIRE(model.append(start.sequence, {777}).ok());
  CHECK(model.used_pages() == 8);
  const SequenceStart again = model.create(prompt);
  CHECK(again.reused_tokens == 48);
  model.check_all();
  model.check_references();
}

TEST_CASE("host prefix: different salts and different content never share") {
  PrefixModel model(PrefixModel::small(32));
  model.prompt(counting(0, 32), "tenant a");
  CHECK(model.prompt(counting(0, 32), "tenant b").reused_tokens == 0);
  CHECK(model.prompt(counting(0, 32)).reused_tokens == 0);
  CHECK(model.prompt(counting(0, 32), "tenant a").reused_tokens == 32);

  CacheSpec spec = PrefixModel::small(4);
  const PrefixKey key = cache_content_key(spec);
  const auto differs = [&](auto change) {
    CacheSpec other = spec;
    change(other);
    CHECK(cache_content_key(other) != key);
  };
  differs([](CacheSpec& s) { s.model_id = "tes"; s.rope = "t"; });  // moved from one field to the next
  differs([](CacheSpec& s) { s.rope = "10000"; });
  differs([](CacheSpec& s) { s.page_tokens = 32; });
  differs([](CacheSpec& s) { s.layers[1].format_v = FormatId::q8_0; });
  differs([](CacheSpec& s) { std::swap(s.layers[1].format_k, s.layers[1].format_v); });
  differs([](CacheSpec& s) { s.layers[0].window = 5; });
  differs([](CacheSpec& s) { s.layers.pop_back(); });
  CacheSpec same = spec;
  same.capacity_tokens = 1 << 20;
  CHECK(cache_content_key(same) == key);
}

TEST_CASE("host prefix: equal content computed side by side becomes one") {
  PrefixModel model(PrefixModel::small(32));
  const SequenceStart a = model.create(counting(0, 40)), b = model.create(counting(0, 40));
  CHECK(b.reused_tokens == 0);
  REQUIRE(model.append(a.sequence, counting(0, 40), false).ok());
  CHECK(model.used_pages() == 6);
  REQUIRE(model.append(b.sequence, counting(0, 40), false).ok());
  CHECK(model.used_pages() == 8);  // only b's open pages are its own
  CHECK(model.cache->prefix_counters().value().merged == 2);
  model.check_all();
  model.check_references();
}

TEST_CASE("host prefix: an aborted step publishes nothing, and tokens that nobody told are not shared") {
  PrefixModel model(PrefixModel::small(32));
  const SequenceStart a = model.create({});
  REQUIRE(model.append(a.sequence, counting(0, 16), true, false).ok());
  CHECK(model.cache->prefix_counters().value().pages == 0);
  REQUIRE(model.append(a.sequence, counting(0, 16)).ok());
  REQUIRE(model.append(a.sequence, counting(16, 8), false).ok());  // a gap
  REQUIRE(model.append(a.sequence, counting(24, 40)).ok());
  CHECK(model.cache->prefix_counters().value().pages == 1);
  model.truncate(a.sequence, 16);  // the gap is gone
  REQUIRE(model.append(a.sequence, counting(16, 16)).ok());
  CHECK(model.cache->prefix_counters().value().pages == 2);
  CHECK(model.create(counting(0, 64)).reused_tokens == 32);
  model.check_all();
}

TEST_CASE("host prefix: least recently used leaves go first, and what a sequence holds stays") {
  PrefixModel model(PrefixModel::small(6));
  const SequenceId held = model.prompt(counting(0, 32)).sequence;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.destroy(model.prompt(counting(200, 32)).sequence);
  model.now_ms += 10;
  model.destroy(model.prompt(counting(100, 32)).sequence);  // used again
  CHECK(model.used_pages() == 12);
  const SequenceId fresh = model.prompt(counting(300, 16)).sequence;
  CHECK(model.cache->prefix_counters().value().evicted_capacity == 1);
  CHECK(model.create(counting(200, 32)).reused_tokens == 16);  // its end went, its beginning is there
  CHECK(model.create(counting(100, 32)).reused_tokens == 32);
  CHECK(model.create(counting(0, 32)).reused_tokens == 32);
  model.check(held);
  model.check(fresh);
  model.check_references();
  // All pages are held now: the next one is refused, and nothing leaves for it.
  CHECK(model.append(held, counting(400, 17)).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->prefix_counters().value().pages == 6);
  model.check_all();
}

TEST_CASE("host prefix: what cannot succeed evicts nothing; policy none never does") {
  PrefixModel model(PrefixModel::small(4));
  model.destroy(model.prompt(counting(0, 48)).sequence);
  const SequenceId a = model.create({}).sequence;
  CHECK(model.append(a, counting(500, 5 * 16)).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->prefix_counters().value().pages == 3);
  PolicySpec none;
  none.kind = PolicyKind::none;
  REQUIRE(model.cache->set_policy(none).ok());
  CHECK(model.append(a, counting(500, 2 * 16)).code() == StatusCode::resource_exhausted);
  CHECK(model.cache->prefix_counters().value().pages == 3);
  CHECK(model.cache->clear_prefixes().value() == 3);
  CHECK(model.append(a, counting(500, 4 * 16)).ok());
  PolicySpec wrong;
  wrong.kind = static_cast<PolicyKind>(9);
  CHECK(model.cache->set_policy(wrong).code() == StatusCode::invalid_argument);
}

TEST_CASE("host prefix: a new policy knows what was used before, and who is pinned") {
  for (const PolicyKind kind : {PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
    CAPTURE(policy_name(kind));
    PrefixModel model(PrefixModel::small(6, PolicyKind::none));
    const SequenceId held = model.prompt(counting(0, 32)).sequence;
    for (int i = 1; i <= 2; ++i) {
      model.now_ms += 10;
      model.destroy(model.prompt(counting(i * 100, 32)).sequence);
    }
    PolicySpec policy;
    policy.kind = kind;
    REQUIRE(model.cache->set_policy(policy).ok());
    const SequenceId next = model.prompt(counting(300, 64)).sequence;
    model.check(held);
    model.check(next);
    CHECK(model.create(counting(0, 32)).reused_tokens == 32);
    CHECK(model.create(counting(100, 32)).reused_tokens == 0);
    model.check_references();
  }
}

TEST_CASE("host prefix: entries expire after their time without use, not while in use") {
  CacheSpec spec = PrefixModel::small(16);
  spec.policy.ttl_ms = 100;
  PrefixModel model(spec);
  const SequenceId held = model.prompt(counting(0, 32)).sequence;
  model.destroy(model.prompt(counting(100, 32)).sequence);
  model.now_ms += 99;
  CHECK(model.create(counting(100, 16)).reused_tokens == 16);  // a use of its first page, by a sequence that stays
  model.now_ms += 1;
  SequenceSpec look;
  const Tokens prompt = counting(100, 32);
  look.tokens = prompt;
  CHECK(model.cache->find_prefix(look).value() == 16);
  CHECK(model.cache->prefix_counters().value().evicted_expired == 1);
  model.now_ms += 1000;
  CHECK(model.cache->find_prefix(look).value() == 16);
  model.check(held);
  model.check_references();
}

TEST_CASE("host prefix: a sliding window shares what its continuation can see") {
  CacheSpec spec = PrefixModel::small(12);
  spec.layers[1].window = 20;
  spec.layers[1].window_sinks = 4;
  PrefixModel model(spec);
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(model.append(a, counting(i * 16, 16)).ok());
  model.destroy(a);
  model.check_references();
  const SequenceStart b = model.create(counting(0, 96));
  CHECK(b.reused_tokens == 96);
  const auto pages = cache_debug(*model.cache).sequence_pages(b.sequence, 1).value();
  CHECK(pages[0] >= 0);  // sinks
  CHECK(pages[1] == -1);
  CHECK(pages[3] == -1);
  CHECK(pages[4] >= 0);
  // Room in the windowed group comes from pages that only the index holds, in a chain that the sequence pins.
  const std::uint64_t before = model.cache->prefix_counters().value().pages;
  const SequenceId c = model.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(model.append(c, counting(1000 + i * 16, 16)).ok());
  const SequenceId d = model.create({}).sequence;
  CHECK(model.append(d, counting(2000, 16)).code() == StatusCode::resource_exhausted);  // the other group is full
  CHECK(model.cache->prefix_counters().value().pages >= before);
  model.check_all();
  model.check_references();
}

TEST_CASE("host prefix: conversion renames the pages and converts those of no sequence") {
  PrefixModel model(PrefixModel::small(16));
  model.destroy(model.prompt(counting(0, 40)).sequence);
  const PrefixKey before = cache_content_key(model.cache->spec());
  REQUIRE(model.cache->convert(1, Side::k, FormatId::f16).ok());  // the model's values are exact in f16
  CHECK(cache_content_key(model.cache->spec()) != before);
  CHECK(cache_debug(*model.cache).prefix_index()->content() == cache_content_key(model.cache->spec()));
  CHECK(model.create(counting(0, 40)).reused_tokens == 32);
  model.check_all();
}

PrefixKey weak_key(const PrefixKey& parent, std::span<const std::int32_t> tokens) {
  PrefixKey key;  // many tokens share a key
  key.bytes[0] = static_cast<std::byte>(static_cast<unsigned>(tokens[0]) % 2 + static_cast<unsigned>(parent.bytes[1]));
  key.bytes[1] = static_cast<std::byte>(static_cast<unsigned>(parent.bytes[1]) + 1);
  return key;
}

TEST_CASE("host prefix: an equal key of other content is a miss") {
  std::vector<PagePool> pools;
  pools.emplace_back(8u, 8u);
  PolicySpec lru;
  PrefixIndex index(PrefixKey{}, 2, pools, EvictionPolicy::create(lru).value(), weak_key);
  PrefixNode* const root = index.root("");
  const std::int32_t page = pools[0].take(kNoPage), other = pools[0].take(kNoPage);
  const Tokens one = {1, 2}, same_key = {3, 9};
  PrefixNode* const node = index.insert(root, one, {&page, 1}, {}, 0);
  REQUIRE(node != nullptr);
  CHECK(index.child(root, one) == node);
  CHECK(index.child(root, same_key) == nullptr);
  CHECK(index.insert(root, same_key, {&other, 1}, {}, 0) == nullptr);
  CHECK(pools[0].references(static_cast<std::uint32_t>(other)) == 1);
  CHECK(index.child(index.root("salt"), one) == nullptr);  // another parent
}

TEST_CASE("host prefix: keys are those that the documentation gives") {
  // The chain of docs/prefix_keys.md, computed there by another program.
  KeyFields fields("kvant.prefix.content/1");
  fields.add(1, std::string_view("m"));
  const PrefixKey root = root_key(sha256(fields.bytes()), "s");
  const Tokens tokens = {1, -2, 3};
  const PrefixKey page = page_key(root, tokens);
  std::string text;
  for (const std::byte byte : page.bytes) {
    const char digits[] = "0123456789abcdef";
    text += digits[static_cast<unsigned>(byte) >> 4];
    text += digits[static_cast<unsigned>(byte) & 15];
  }
  CHECK(text == "dd1b5210ee493d09dfed3850a5a1f7fa505f3c6fe9a715c45df18a7d737aa8b6");
}

}  // namespace
}  // namespace kvant
