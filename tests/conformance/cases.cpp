#include "cases.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <unordered_map>

namespace kvant::conformance {

std::string_view op_name(Op op) {
  static constexpr std::string_view kNames[] = {"append", "read",  "copy",     "convert", "quantize",
                                                "attend", "merge", "sequence", "relation", "gather", "rotate", "score",
                                                "transfer", "import", "extract", "rope", "hadamard", "means"};
  return kNames[static_cast<std::size_t>(op)];
}

std::string_view relation_name(Relation relation) {
  static constexpr std::string_view kNames[] = {"shuffle", "twice", "splits", "order", "slabs", "pipelines"};
  return kNames[static_cast<std::size_t>(relation)];
}

std::string_view rule_name(MaskRule rule) {
  static constexpr std::string_view kNames[] = {"causal", "cross", "custom", "tree"};
  return kNames[static_cast<std::size_t>(rule)];
}

std::string_view io_name(IoType type) {
  switch (type) {
    case IoType::f16: return "f16";
    case IoType::bf16: return "bf16";
    default: return "f32";
  }
}

Subset subset_of(std::uint32_t number, std::uint32_t quick, std::uint32_t smoke) {
  if (number % smoke == 0) return Subset::smoke;
  return number % quick == 0 ? Subset::quick : Subset::full;
}

// Equal but for the subset.
static bool same_work(const Case& a, Case b) {
  b.subset = a.subset;
  return a == b;
}

const std::vector<Case>& all_cases() {
  static const std::vector<Case> kCases = [] {
    std::vector<Case> cases;
    add_page_cases(cases);
    add_attend_cases(cases);
    add_cache_cases(cases);
    add_score_cases(cases);
    add_strided_cases(cases);
    add_sweep_cases(cases);
    // Shrinking oversized rows may make two of them equal: the first stays. Those that only have a name in common stay
    // both, and the test that names are unique says so.
    std::unordered_multimap<std::string_view, std::size_t> numbers;
    std::vector<bool> repeats(cases.size(), false);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const auto [first, last] = numbers.equal_range(cases[i].name);
      repeats[i] = std::any_of(first, last, [&](const auto& earlier) { return same_work(cases[earlier.second], cases[i]); });
      if (!repeats[i]) numbers.emplace(cases[i].name, i);
    }
    std::vector<Case> unique;
    for (std::size_t i = 0; i < cases.size(); ++i)
      if (!repeats[i]) unique.push_back(cases[i]);
    return unique;
  }();
  return kCases;
}

std::vector<SequenceShape> sequence_shapes(const Case& c) {
  std::vector<SequenceShape> shapes(c.batch);
  for (std::uint32_t b = 0; b < c.batch; ++b) {
    SequenceShape& s = shapes[b];
    s.kv_len = b == 0 ? c.length : 1 + c.length * (2 * b + 3) / (2 * c.batch + 5);
    s.q_len = b == 0 ? c.queries : 1 + (c.queries * (b + 1)) / (c.batch + 1) % c.queries;
    if (c.batch >= 3 && b == 2) s.q_len = 0;  // a sequence that only sits in the batch
    if (c.rule != MaskRule::cross) s.kv_len = std::max(s.kv_len, s.q_len);
  }
  return shapes;
}

AttendShape attend_shape(const Case& c) {
  AttendShape shape;
  shape.format_k = static_cast<std::uint32_t>(c.format_k);
  shape.format_v = static_cast<std::uint32_t>(c.format_v);
  shape.head_dim_k = c.dim_k;
  shape.head_dim_v = c.dim_v;
  shape.group = c.group;
  shape.kv_heads = c.kv_heads;
  shape.page_tokens = c.page_tokens;
  shape.max_queries = shape.total_queries = 0;
  for (const SequenceShape& s : sequence_shapes(c)) {
    shape.max_queries = std::max(shape.max_queries, s.q_len);
    shape.total_queries += s.q_len;
    shape.max_kv_len = std::max<std::uint64_t>(shape.max_kv_len, s.kv_len);
    shape.total_kv_len += s.kv_len;
  }
  return shape;
}

std::string case_list_hash() {
  std::string names;
  for (const Case& c : all_cases()) names += c.name + '\n';
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash_text(names)));
  return text;
}

}  // namespace kvant::conformance
