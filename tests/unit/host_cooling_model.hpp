// CoolingModel: a CacheModel whose pages cool.
#pragma once

#include <set>

#include "format_error.hpp"
#include "host_cache_model.hpp"

namespace kvant::test {

inline CacheSpec cool_spec(std::uint64_t tokens, bool windows = false) {
  CacheSpec spec;
  spec.capacity_tokens = tokens;
  spec.attention_mass = true;
  spec.layers = {
      {2, 32, 32, FormatId::f32, FormatId::t4, 0, 0},
      {1, 40, 64, FormatId::q8_0, FormatId::f16, windows ? 40U : 0U, windows ? 3U : 0U},
      {2, 32, 32, FormatId::nf4, FormatId::q4_0, 0, 0},
      {2, 32, 32, FormatId::q8_0, FormatId::t2, 0, 0},
  };
  return spec;
}

// Rows of pages that have changed their grade are recoded as the documents say: once, from what they were to what they are.
struct CoolingModel : CacheModel {
  using CacheModel::CacheModel;
  std::vector<FormatId> formats = {FormatId::t3, FormatId::t2};
  std::size_t thaws = 0;
  std::map<SequenceId, std::vector<std::vector<std::uint32_t>>> grades;  // [layer][page]

  std::vector<std::int32_t> pages_of(SequenceId id, std::uint32_t layer) const { return cache_debug(*cache).sequence_pages(id, layer).value(); }
  std::uint32_t grade_of(std::uint32_t layer, std::int32_t page) const {
    const GroupGeometry& group = cache_debug(*cache).geometry().group_of(layer);
    return page < 0 ? 0 : group.grade_of(group.slab_of(static_cast<std::uint32_t>(page)));
  }
  FormatId graded(std::uint32_t layer, std::uint32_t grade) const {
    FormatId now = format(layer, Side::v);
    for (std::uint32_t i = 0; i < grade; ++i)
      if (format_bits(formats[i]) < format_bits(now)) now = formats[i];
    return now;
  }
  void recode_page(Tokens& tokens, std::uint32_t layer, std::size_t page, FormatId to) {
    auto& rows = tokens.layers[layer][1];
    const std::uint32_t d = dim(layer, Side::v);
    const std::size_t row = std::size_t{spec.layers[layer].kv_heads} * d, begin = page * spec.page_tokens * row;
    for (std::size_t at = begin; at < std::min(rows.size(), begin + spec.page_tokens * row); at += d) recode(to, d, std::span(rows).subspan(at, d));
  }
  void follow() {
    for (auto& [id, tokens] : sequences) {
      auto& known = grades[id];
      known.resize(spec.layers.size());
      for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
        const auto pages = pages_of(id, layer);
        known[layer].resize(pages.size(), 0);
        for (std::size_t page = 0; page < pages.size(); ++page) {
          const std::uint32_t grade = grade_of(layer, pages[page]);
          if (pages[page] < 0 || grade == known[layer][page]) continue;
          if (graded(layer, grade) != graded(layer, known[layer][page])) recode_page(tokens, layer, page, graded(layer, grade));
          known[layer][page] = grade;
        }
      }
    }
  }
  // Open pages that a step is going to write come back to their layer's format in it.
  void append(const std::vector<StepEntry>& entries, bool commit = true) {
    std::map<SequenceId, std::vector<std::array<Rows, 2>>> before;
    for (const StepEntry& e : entries) {
      const std::uint64_t open = sequences[e.sequence].length / spec.page_tokens;
      if (e.append == 0 || sequences[e.sequence].length % spec.page_tokens == 0) continue;
      before[e.sequence] = sequences[e.sequence].layers;
      for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
        const auto page = pages_of(e.sequence, layer)[open];
        if (graded(layer, grade_of(layer, page)) != format(layer, Side::v)) recode_page(sequences[e.sequence], layer, open, format(layer, Side::v));
        thaws += graded(layer, grade_of(layer, page)) != format(layer, Side::v) ? 1 : 0;
        if (commit) grades[e.sequence][layer][open] = 0;
      }
    }
    step(entries, commit);
    if (!commit)
      for (auto& [id, layers] : before) sequences[id].layers = std::move(layers);
    follow();
  }
  // A child's open page is a copy in its layer's format.
  void fork_cooled(SequenceId parent, std::uint64_t tokens) {
    fork(parent, tokens);
    const SequenceId child = sequences.rbegin()->first;
    grades[child] = grades[parent];
    for (auto& of_layer : grades[child]) of_layer.resize((tokens + spec.page_tokens - 1) / spec.page_tokens, 0);
    follow();
  }
  Result<CoolReport> cool(std::uint64_t target, std::uint64_t sinks = 1, std::uint64_t recent = 1) {
    auto report = cache->cool({.target_bytes = target, .formats = formats, .sinks = sinks, .recent = recent});
    follow();
    return report;
  }
  std::uint64_t bytes() const { return cache->memory_use().pool_bytes; }
  // The tokens at these places alone are left, those from the page of the first gap on in their layers' formats.
  void keep(SequenceId id, const std::vector<std::uint64_t>& kept) {
    Tokens& tokens = sequences[id];
    std::uint64_t same = 0;
    while (same < kept.size() && kept[same] == same) ++same;
    for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
      auto& known = grades[id][layer];
      for (std::uint64_t page = same / spec.page_tokens; page < known.size(); ++page) {
        if (graded(layer, known[page]) != format(layer, Side::v)) recode_page(tokens, layer, page, format(layer, Side::v));
        known[page] = 0;
      }
      for (const Side side : {Side::k, Side::v}) {
        Rows& rows = tokens.layers[layer][static_cast<std::size_t>(side)];
        const std::size_t row = std::size_t{spec.layers[layer].kv_heads} * dim(layer, side);
        Rows left;
        for (const std::uint64_t place : kept)
          left.insert(left.end(), rows.begin() + static_cast<std::ptrdiff_t>(place * row), rows.begin() + static_cast<std::ptrdiff_t>((place + 1) * row));
        rows = left;
        tokens.wide[layer][static_cast<std::size_t>(side)] = left;  // of no use: copies behind a gap are gone
      }
      known.resize((kept.size() + spec.page_tokens - 1) / spec.page_tokens);
      tokens.mass[layer].resize(kept.size() * spec.layers[layer].kv_heads);
      tokens.mass_bound[layer].resize(kept.size() * spec.layers[layer].kv_heads);
    }
    tokens.length = kept.size();
    drop_copies(id, same / spec.page_tokens);
  }
  std::size_t cooled_pages(std::uint32_t layer) const {
    std::set<std::int32_t> pages;
    for (const auto& [id, tokens] : sequences)
      for (const std::int32_t page : pages_of(id, layer))
        if (grade_of(layer, page) != 0) pages.insert(page);
    return pages.size();
  }
};

}  // namespace kvant::test
