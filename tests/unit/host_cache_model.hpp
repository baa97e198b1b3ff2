// CacheModel: a cache on the CPU executor beside a plain model of it. The model keeps every token's decoded K and V
// rows in vectors; each layer's attention output is compared with attention over those vectors.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "cache.hpp"
#include "cache_debug.hpp"
#include "dense_attention.hpp"
#include "host_random.hpp"
#include "host_test_executor.hpp"
#include "step.hpp"

namespace kvant::test {

inline constexpr std::uint32_t kNan = 0x7FC0DEADu;

struct RunOptions {
  std::uint32_t group = 2;  // query heads per KV head
  bool causal = true;
  float soft_cap = 0.0f;
  bool sinks = false, slopes = false, lse = false, mass = false;
};

class CacheModel {
 public:
  using Rows = std::vector<float>;  // [token][kv_head][dim], decoded
  struct Tokens {
    std::vector<std::array<Rows, 2>> layers;  // by Side
    std::vector<std::array<Rows, 2>> wide;    // the same as copies of protected tokens hold them
    std::vector<std::vector<std::shared_ptr<int>>> copies;  // by layer and page; null: none, else shared with who shares it
    std::vector<std::vector<double>> mass, mass_bound;  // per layer [token][kv_head]; of pages that nobody shares
    std::uint64_t length = 0;
  };

  CacheModel(const CacheSpec& cache_spec, std::uint32_t pages_per_slab, std::uint64_t seed)
      : spec(cache_spec), random(seed) {
    GeometryOptions slabs;
    slabs.max_pages_per_slab = pages_per_slab;
    auto created = create_cache(executor, spec, Log{}, slabs);
    REQUIRE(created.ok());
    cache = std::move(created).value();
    cache_debug(*cache).set_poison(kNan);
  }

  TestExecutor executor;
  CacheSpec spec;
  Random random;
  std::unique_ptr<Cache> cache;
  std::map<SequenceId, Tokens> sequences;
  RunOptions options;

  SequenceId create() {
    const auto id = cache->create_sequence();
    REQUIRE(id.ok());
    sequences[id.value()] = empty();
    return id.value();
  }
  Tokens empty() const {
    Tokens tokens;
    tokens.layers.resize(spec.layers.size());
    tokens.wide.resize(spec.layers.size());
    tokens.copies.resize(spec.layers.size());
    tokens.mass.resize(spec.layers.size());
    tokens.mass_bound.resize(spec.layers.size());
    return tokens;
  }
  SequenceId pick() {
    auto sequence = sequences.begin();
    std::advance(sequence, random.below(static_cast<std::uint32_t>(sequences.size())));
    return sequence->first;
  }
  void fork(SequenceId parent, std::uint64_t tokens) {
    const auto id = cache->fork_sequence(parent, tokens);
    REQUIRE_MESSAGE(id.ok(), id.status().message());
    sequences[id.value()] = sequences[parent];
    cut(sequences[id.value()], tokens);
    drop_copies(id.value(), tokens / spec.page_tokens);
  }
  void truncate(SequenceId id, std::uint64_t tokens) {
    const Status status = cache->truncate_sequence(id, tokens);
    REQUIRE_MESSAGE(status.ok(), status.message());
    cut(sequences[id], tokens);
  }
  void destroy(SequenceId id) {
    REQUIRE(cache->destroy_sequence(id).ok());
    sequences.erase(id);
  }

  // Plans, runs every layer and checks its output; then commits, or aborts.
  void step(const std::vector<StepEntry>& entries, bool commit = true) {
    auto planned = cache->plan(entries);
    REQUIRE_MESSAGE(planned.ok(), planned.status().message());
    std::unique_ptr<Step> open = std::move(planned).value();
    std::map<SequenceId, Tokens> after = sequences;
    for (const StepEntry& entry : entries)
      for (std::size_t layer = 0; layer < spec.layers.size(); ++layer)
        take_copies(entry, sequences[entry.sequence].copies[layer], after[entry.sequence].copies[layer]);
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) run_layer(*open, layer, entries, after);
    if (!commit) {
      cache->abort(std::move(open));
      return;
    }
    for (const StepEntry& entry : entries) {
      Tokens& tokens = after[entry.sequence];
      const std::uint64_t before = tokens.length;
      tokens.length += entry.append;
      for (std::size_t layer = 0; layer < spec.layers.size(); ++layer) age_copies(spec.layers[layer], tokens.copies[layer], before);
    }
    const Status status = cache->commit(std::move(open));
    REQUIRE_MESSAGE(status.ok(), status.message());
    sequences = after;
    for (const auto& [id, tokens] : sequences) REQUIRE(cache->sequence_length(id).value() == tokens.length);
  }

  // Copies of the sequence's pages from `page` on are gone.
  void drop_copies(SequenceId id, std::uint64_t page) {
    for (auto& copies : sequences[id].copies) copies.resize(std::min<std::size_t>(copies.size(), page));
  }

  // Reads every token that the cache still holds.
  void check_reads() {
    for (const auto& [id, tokens] : sequences)
      for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
        const auto pages = cache_debug(*cache).sequence_pages(id, layer).value();
        for (Side side : {Side::k, Side::v})
          for (std::uint64_t page = 0; page < pages.size(); ++page) {
            const std::uint64_t begin = page * spec.page_tokens;
            const std::uint64_t count = std::min<std::uint64_t>(spec.page_tokens, tokens.length - begin);
            const std::uint32_t row = spec.layers[layer].kv_heads * dim(layer, side);
            std::vector<float> got(count * row, -1.0f);
            TensorView view;
            view.host = reinterpret_cast<std::byte*>(got.data());
            const Status status = cache->read(id, layer, side, begin, count, view);
            REQUIRE(status.ok() == (pages[page] >= 0));
            if (!status.ok()) continue;
            const Rows& rows = tokens.layers[layer][static_cast<std::size_t>(side)];
            for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == rows[begin * row + i]);
          }
      }
  }

  // The masses of every token that the cache still holds, head by head.
  void check_masses() {
    for (const auto& [id, tokens] : sequences)
      for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
        const auto pages = cache_debug(*cache).sequence_pages(id, layer).value();
        for (std::uint32_t head = 0; head < spec.layers[layer].kv_heads; ++head) {
          std::vector<float> got(tokens.length);
          const Status status = cache->attention_mass(id, layer, head, 0, got);
          REQUIRE_MESSAGE(status.ok(), status.message());
          for (std::uint64_t t = 0; t < tokens.length; ++t) {
            const std::size_t at = t * spec.layers[layer].kv_heads + head;
            const double expected = pages[t / spec.page_tokens] < 0 ? 0.0 : tokens.mass[layer][at] / options.group;
            CAPTURE(layer);
            CAPTURE(t);
            REQUIRE(std::fabs(static_cast<double>(got[t]) - expected) <=
                    tokens.mass_bound[layer][at] / options.group + expected * 0x1p-22);
          }
        }
      }
  }

  std::uint32_t dim(std::uint32_t layer, Side side) const {
    return side == Side::k ? spec.layers[layer].head_dim_k : spec.layers[layer].head_dim_v;
  }
  FormatId format(std::uint32_t layer, Side side) const {
    const LayerSpec& facts = cache->spec().layers[layer];
    return side == Side::k ? facts.format_k : facts.format_v;
  }
  static void recode(FormatId format, std::uint32_t dim, std::span<float> row) {
    std::vector<std::byte> bytes(canonical_row_bytes(format_info(format), dim));
    encode_canonical_row(format_info(format), row, bytes);
    decode_canonical_row(format_info(format), bytes, row);
  }

 private:
  // Pages of a sequence of so many tokens that are older than its newest tokens.
  std::uint64_t passed(std::uint64_t length) const {
    return length > spec.protection.newest_tokens ? (length - spec.protection.newest_tokens) / spec.page_tokens : 0;
  }
  // What docs/protection.md says of the fresh tokens. `before` are the copies as they are held now, `copies` another list of the same.
  void take_copies(const StepEntry& entry, const std::vector<std::shared_ptr<int>>& before, std::vector<std::shared_ptr<int>>& copies) {
    const std::uint64_t old_length = sequences[entry.sequence].length, length = old_length + entry.append, page_tokens = spec.page_tokens;
    copies.resize((length + page_tokens - 1) / page_tokens);
    const std::uint64_t open = old_length / page_tokens;
    // Twice: in both lists.
    if (entry.append != 0 && old_length % page_tokens != 0 && open < before.size() && before[open].use_count() > 2) copies[open].reset();
    for (std::uint64_t page = (old_length + page_tokens - 1) / page_tokens; page < copies.size(); ++page) {
      const std::uint64_t begin = page * page_tokens;
      const bool newest = spec.protection.newest_tokens != 0 &&
                          begin + page_tokens + spec.protection.newest_tokens + std::min<std::uint64_t>(entry.append, 512) > length;
      if (spec.protection.any() && (begin < spec.protection.first_tokens || newest)) copies[page] = std::make_shared<int>(0);
    }
  }
  // After a step on a sequence that had `length` tokens.
  void age_copies(const LayerSpec& layer, std::vector<std::shared_ptr<int>>& copies, std::uint64_t length) const {
    const auto let_go = [&](std::uint64_t first_kept, std::uint64_t end) {
      for (std::uint64_t page = (first_kept + spec.page_tokens - 1) / spec.page_tokens; page < std::min<std::uint64_t>(end, copies.size()); ++page) copies[page].reset();
    };
    let_go(spec.protection.first_tokens, passed(length));
    if (layer.window != 0 && length > layer.window) let_go(layer.window_sinks, (length - layer.window) / spec.page_tokens);
  }
  FormatId wide_format(std::uint32_t layer, Side side) const {
    const FormatId own = format(layer, side);
    const bool chosen = side == Side::k ? spec.protection.k : spec.protection.v;
    return chosen && own != FormatId::f32 && own != FormatId::bf16 ? FormatId::f16 : own;
  }

  void cut(Tokens& tokens, std::uint64_t length) {
    tokens.length = length;
    for (auto& copies : tokens.copies) copies.resize(std::min<std::uint64_t>(copies.size(), (length + spec.page_tokens - 1) / spec.page_tokens));
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
      tokens.mass[layer].resize(length * spec.layers[layer].kv_heads);
      tokens.mass_bound[layer].resize(length * spec.layers[layer].kv_heads);
    }
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer)
      for (Side side : {Side::k, Side::v})
        for (auto* rows : {&tokens.layers, &tokens.wide})
          (*rows)[layer][static_cast<std::size_t>(side)].resize(length * spec.layers[layer].kv_heads * dim(layer, side));
  }

  // The rows of a side as attention reads them.
  Rows attended(const Tokens& tokens, std::uint32_t layer, Side side) const {
    Rows rows = tokens.layers[layer][static_cast<std::size_t>(side)];
    const Rows& wide = tokens.wide[layer][static_cast<std::size_t>(side)];
    const std::size_t page = std::size_t{spec.page_tokens} * spec.layers[layer].kv_heads * dim(layer, side);
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (i / page < tokens.copies[layer].size() && tokens.copies[layer][i / page] != nullptr) rows[i] = wide[i];
    return rows;
  }

  std::vector<float> normals(std::size_t count) {
    std::vector<float> x(count);
    for (float& value : x) value = random.normal();
    return x;
  }

  void run_layer(Step& open, std::uint32_t layer, const std::vector<StepEntry>& entries,
                 std::map<SequenceId, Tokens>& after) {
    const LayerSpec& facts = spec.layers[layer];
    std::uint32_t fresh = 0, queries = 0;
    for (const StepEntry& entry : entries) {
      fresh += entry.append;
      queries += entry.queries;
    }
    std::array<std::vector<float>, 2> kv;
    for (Side side : {Side::k, Side::v}) {
      const std::uint32_t d = dim(layer, side), row = facts.kv_heads * d;
      auto& x = kv[static_cast<std::size_t>(side)];
      x = normals(std::size_t{fresh} * row);
      std::size_t token = 0;
      for (const StepEntry& entry : entries) {
        Tokens& tokens = after[entry.sequence];
        for (const auto& [all, as] : {std::pair{&tokens.layers, format(layer, side)}, std::pair{&tokens.wide, wide_format(layer, side)}}) {
          std::vector<float> decoded(x.begin() + static_cast<std::ptrdiff_t>(token * row),
                                     x.begin() + static_cast<std::ptrdiff_t>((token + entry.append) * row));
          for (std::size_t at = 0; at < decoded.size(); at += d) recode(as, d, std::span(decoded).subspan(at, d));
          Rows& rows = (*all)[layer][static_cast<std::size_t>(side)];
          rows.insert(rows.end(), decoded.begin(), decoded.end());
        }
        token += entry.append;
      }
    }

    reference::DenseProblem problem;
    problem.kv_heads = facts.kv_heads;
    problem.q_heads = facts.kv_heads * options.group;
    problem.dim_k = facts.head_dim_k;
    problem.dim_v = facts.head_dim_v;
    problem.q = normals(std::size_t{queries} * problem.q_heads * problem.dim_k);
    problem.causal = options.causal;
    problem.window = facts.window;
    problem.window_sinks = facts.window_sinks;
    problem.scale = 1.0 / std::sqrt(static_cast<double>(problem.dim_k));
    problem.soft_cap = static_cast<double>(options.soft_cap);
    if (options.sinks) problem.sinks = normals(problem.q_heads);
    if (options.slopes) problem.slopes = normals(problem.q_heads);
    std::uint32_t q_begin = 0;
    for (const StepEntry& entry : entries) {
      const Tokens& tokens = after[entry.sequence];
      reference::DenseSequence seq;
      seq.kv_len = static_cast<std::uint32_t>(tokens.length) + entry.append;
      seq.k = attended(tokens, layer, Side::k);
      seq.v = attended(tokens, layer, Side::v);
      seq.q_begin = q_begin;
      seq.q_len = entry.queries;
      seq.q_position = entry.explicit_positions ? entry.q_pos_begin : std::int64_t{seq.kv_len} - entry.queries;
      const auto pages = cache_debug(*cache).sequence_pages(entry.sequence, layer).value();
      for (std::uint32_t t = 0; t < seq.kv_len; ++t) {
        const bool mapped = t / spec.page_tokens >= pages.size() || pages[t / spec.page_tokens] >= 0;
        // The cache may let go only of what the first fresh token cannot see any more.
        if (!mapped) REQUIRE((facts.window != 0 && t >= facts.window_sinks && t + facts.window <= tokens.length));
        seq.mapped.push_back(mapped);
      }
      if (entry.mask != nullptr) {
        seq.mask.assign(entry.mask, entry.mask + std::size_t{entry.queries} * entry.mask_row_words);
        seq.mask_row_words = entry.mask_row_words;
        seq.mask_kv_begin = static_cast<std::uint32_t>(entry.mask_kv_begin);
      }
      if (entry.queries != 0) problem.sequences.push_back(std::move(seq));
      q_begin += entry.queries;
    }

    std::vector<float> out(std::size_t{queries} * problem.q_heads * problem.dim_v, std::nanf(""));
    std::vector<float> lse(std::size_t{queries} * problem.q_heads, std::nanf(""));
    auto view = [](std::vector<float>& x) {
      TensorView tensor;
      tensor.host = reinterpret_cast<std::byte*>(x.data());
      return tensor;
    };
    RunArgs args;
    if (fresh != 0) args.k = view(kv[0]), args.v = view(kv[1]);
    if (queries != 0) args.q = view(problem.q), args.out = view(out);
    if (options.lse) args.lse = view(lse);
    args.mass = options.mass;
    args.q_heads = problem.q_heads;
    args.causal = options.causal;
    args.soft_cap = options.soft_cap;
    if (options.sinks) args.sinks = problem.sinks.data();
    if (options.slopes) args.alibi_slopes = problem.slopes.data();
    const Status status = cache->run(open, layer, args);
    REQUIRE_MESSAGE(status.ok(), status.message());

    const reference::DenseResult expected = reference::dense_attention(problem);
    for (std::size_t i = 0; i < out.size(); ++i)
      REQUIRE(std::fabs(static_cast<double>(out[i]) - expected.out[i]) <= expected.out_bound[i] + 1e-30);
    std::size_t asked = 0;
    for (const StepEntry& entry : entries) {
      Tokens& tokens = after[entry.sequence];
      const std::size_t cells = (tokens.length + entry.append) * facts.kv_heads;
      tokens.mass[layer].resize(cells, 0.0);
      tokens.mass_bound[layer].resize(cells, 0.0);
      if (entry.queries == 0) continue;
      for (std::size_t i = 0; options.mass && i < cells; ++i) {
        tokens.mass[layer][i] += expected.mass[asked][i];
        tokens.mass_bound[layer][i] += expected.mass_bound[asked][i];
      }
      ++asked;
    }
    for (std::size_t i = 0; options.lse && i < lse.size(); ++i)
      REQUIRE((static_cast<double>(lse[i]) == expected.lse[i] ||
               std::fabs(static_cast<double>(lse[i]) - expected.lse[i]) <= expected.lse_bound[i]));
  }
};

inline StepEntry entry(SequenceId sequence, std::uint32_t append, std::uint32_t queries) {
  StepEntry e;
  e.sequence = sequence;
  e.append = append;
  e.queries = queries;
  return e;
}

}  // namespace kvant::test
