// PrefixModel: a cache with a prefix cache on the CPU executor beside a plain model of it. K and V of a token are a function of all
// tokens up to it, as in a real model, so that shared and private pages must hold the same.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cache.hpp"
#include "cache_debug.hpp"
#include "host_random.hpp"
#include "host_test_executor.hpp"
#include "step.hpp"

namespace kvant::test {

using Tokens = std::vector<std::int32_t>;

class PrefixModel {
 public:
  struct Known {
    Tokens tokens;
    std::string salt;
  };

  explicit PrefixModel(const CacheSpec& cache_spec, std::uint32_t pages_per_slab = 3) : spec(cache_spec) {
    GeometryOptions slabs;
    slabs.max_pages_per_slab = pages_per_slab;
    auto created = create_cache(executor, spec, Log{}, slabs);
    REQUIRE_MESSAGE(created.ok(), created.status().message());
    cache = std::move(created).value();
    cache_debug(*cache).set_poison(0x7FC0DEADu);
    cache_debug(*cache).set_clock([this] { return now_ms; });
  }

  TestExecutor executor;
  CacheSpec spec;
  std::unique_ptr<Cache> cache;
  std::map<SequenceId, Known> sequences;
  std::uint64_t now_ms = 1000;

  static CacheSpec small(std::uint64_t pages, PolicyKind policy = PolicyKind::lru) {
    CacheSpec spec;
    spec.layers = {{1, 32, 32, FormatId::f16, FormatId::f16, 0, 0}, {2, 32, 32, FormatId::f32, FormatId::f16, 0, 0}};
    spec.capacity_tokens = pages * 16;
    spec.prefix_cache = true;
    spec.model_id = "test";
    spec.policy.kind = policy;
    return spec;
  }

  SequenceStart create(const Tokens& tokens, const std::string& salt = {}, std::uint64_t leave = 0) {
    SequenceSpec sequence;
    sequence.tokens = tokens;
    sequence.salt = salt;
    sequence.leave_tokens = leave;
    const auto start = cache->create_sequence(sequence);
    REQUIRE_MESSAGE(start.ok(), start.status().message());
    const std::uint64_t reused = start.value().reused_tokens;
    REQUIRE(reused + leave <= std::max<std::uint64_t>(tokens.size(), leave));
    sequences[start.value().sequence] = {Tokens(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(reused)), salt};
    check(start.value().sequence);
    return start.value();
  }

  // Status of the first call that failed; after that nothing has changed.
  Status append(SequenceId id, const Tokens& tokens, bool tell = true, bool commit = true) {
    StepEntry entry;
    entry.sequence = id;
    entry.append = static_cast<std::uint32_t>(tokens.size());
    entry.tokens = tell ? tokens.data() : nullptr;
    auto planned = cache->plan({&entry, 1});
    if (!planned.ok()) return planned.status();
    std::unique_ptr<Step> step = std::move(planned).value();
    Tokens all = sequences[id].tokens;
    const std::size_t begin = all.size();
    all.insert(all.end(), tokens.begin(), tokens.end());
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
      std::vector<float> k = rows(id, all, begin, layer, Side::k), v = rows(id, all, begin, layer, Side::v);
      RunArgs args;
      args.k.host = reinterpret_cast<std::byte*>(k.data());
      args.v.host = reinterpret_cast<std::byte*>(v.data());
      KVANT_TRY(cache->run(*step, layer, args));
    }
    if (!commit) {
      cache->abort(std::move(step));
      return {};
    }
    KVANT_TRY(cache->commit(std::move(step)));
    sequences[id].tokens = all;
    return {};
  }
  SequenceStart prompt(const Tokens& tokens, const std::string& salt = {}) {
    const SequenceStart start = create(tokens, salt);
    const Tokens rest(tokens.begin() + static_cast<std::ptrdiff_t>(start.reused_tokens), tokens.end());
    if (!rest.empty()) {
      const Status status = append(start.sequence, rest, false);
      REQUIRE_MESSAGE(status.ok(), status.message());
    }
    return start;
  }
  void truncate(SequenceId id, std::uint64_t tokens) {
    const Status status = cache->truncate_sequence(id, tokens);
    REQUIRE_MESSAGE(status.ok(), status.message());
    sequences[id].tokens.resize(tokens);
  }
  SequenceId fork(SequenceId parent, std::uint64_t tokens) {
    const auto id = cache->fork_sequence(parent, tokens);
    REQUIRE_MESSAGE(id.ok(), id.status().message());
    sequences[id.value()] = sequences[parent];
    sequences[id.value()].tokens.resize(tokens);
    return id.value();
  }
  void destroy(SequenceId id) {
    REQUIRE(cache->destroy_sequence(id).ok());
    sequences.erase(id);
  }

  // Every token that the sequence still holds reads as the model says.
  void check(SequenceId id) {
    const Known& known = sequences[id];
    REQUIRE(cache->sequence_length(id).value() == known.tokens.size());
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
      const auto pages = cache_debug(*cache).sequence_pages(id, layer).value();
      for (Side side : {Side::k, Side::v})
        for (std::size_t page = 0; page < pages.size(); ++page) {
          if (pages[page] < 0) continue;
          const std::uint64_t begin = page * 16, count = std::min<std::uint64_t>(16, known.tokens.size() - begin);
          const Tokens upto(known.tokens.begin(), known.tokens.begin() + static_cast<std::ptrdiff_t>(begin + count));
          const std::vector<float> expected = rows(id, upto, begin, layer, side);
          std::vector<float> got(expected.size(), -1.0f);
          TensorView view;
          view.host = reinterpret_cast<std::byte*>(got.data());
          REQUIRE(cache->read(id, layer, side, begin, count, view).ok());
          REQUIRE(got == expected);
        }
    }
  }
  void check_all() {
    for (const auto& [id, known] : sequences) check(id);
  }

  // Every page is counted: by tables of sequences and by nodes of the index, and by nothing else. So are those of the index alone.
  void check_references() {
    CacheDebug& debug = cache_debug(*cache);
    const Geometry& geometry = debug.geometry();
    std::uint64_t index_only = 0;
    for (std::size_t g = 0; g < geometry.groups.size(); ++g) {
      const std::uint32_t layer = geometry.groups[g].layers.front();
      std::map<std::int32_t, std::uint32_t> held;
      for (const auto& [id, known] : sequences) {
        const std::vector<std::int32_t> pages = debug.sequence_pages(id, layer).value();
        for (std::int32_t page : pages) ++held[page];
      }
      for (const PrefixNode* node : debug.prefix_index()->nodes())
        if (++held[node->pages[g]] == 1 && node->pages[g] != kNoPage) ++index_only;
      const GroupGeometry& group = geometry.groups[g];
      for (std::uint32_t page = 0; page < group.page_ids(); ++page)
        if (page - group.first_page(group.slab_of(page)) < group.pages_in(group.slab_of(page))) REQUIRE(debug.page_references(layer, page) == held[static_cast<std::int32_t>(page)]);
    }
    REQUIRE(cache->prefix_counters().value().unshared_pages == index_only);
  }

  std::uint64_t used_pages() const { return cache->memory_use().used_pages; }

 private:
  // Rows of tokens [begin, end) of a history: small integers over 16, exact in every format used here.
  std::vector<float> rows(SequenceId id, const Tokens& history, std::size_t begin, std::uint32_t layer, Side side) {
    const LayerSpec& facts = spec.layers[layer];
    const std::uint32_t row = facts.kv_heads * (side == Side::k ? facts.head_dim_k : facts.head_dim_v);
    std::vector<float> out;
    std::uint64_t state = std::hash<std::string>()(sequences[id].salt) + layer * 2 + static_cast<std::uint64_t>(side);
    for (std::size_t t = 0; t < history.size(); ++t) {
      state = (state ^ static_cast<std::uint32_t>(history[t])) * 0x9E3779B97F4A7C15ull;
      state ^= state >> 29;
      std::uint64_t value = state;
      for (std::uint32_t i = 0; t >= begin && i < row; ++i) {
        value = value * 6364136223846793005ull + 1442695040888963407ull;
        out.push_back(static_cast<float>(static_cast<int>(value >> 56) - 128) / 16.0f);
      }
    }
    return out;
  }
};

// `count` tokens that begin with `first`.
inline Tokens counting(std::int32_t first, std::size_t count) {
  Tokens tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<std::int32_t>(i);
  return tokens;
}

}  // namespace kvant::test
