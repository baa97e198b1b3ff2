// Parsing of comma-separated lists, and caches of what they say.
#include "format_pair.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "format_plan.hpp"

namespace kvant::tools {

namespace {

struct SideChoice {
  std::vector<FormatFacts> formats;
  uint32_t transform = 0;
  bool protect = false;
};

Outcome<SideChoice> parse_side(const Library& library, std::string name) {
  SideChoice side;
  const std::size_t plus = name.find('+');
  if (plus != std::string::npos) {
    for (const char letter : name.substr(plus + 1)) {
      side.transform |= letter == 'r' ? KVANT_TRANSFORM_ROTATE : letter == 'c' ? KVANT_TRANSFORM_CENTRE : 0;
      side.protect = side.protect || letter == 'p';
    }
    std::string letters = name.substr(plus + 1), known = suffix(side.transform, side.protect);
    std::sort(letters.begin(), letters.end());
    std::sort(known.begin(), known.end());
    if ("+" + letters != known) {
      return Failure{"\"" + name + "\" ends with \"" + name.substr(plus) + "\"; expected + and some of c (centred), r (rotated), p (protected tokens)", Exit::kUsage};
    }
    name.resize(plus);
  }
  if (name == "all") {
    side.formats = library.formats();
    return side;
  }
  const auto format = library.format(name);
  if (!format.ok()) {
    return Failure{format.failure().message + ", or all; + and some of c (centred), r (rotated), p (protected tokens) behind it", format.failure().exit};
  }
  side.formats.push_back(*format);
  return side;
}

uint32_t protect_sides(bool k, bool v) { return (k ? KVANT_PROTECT_K : 0) | (v ? KVANT_PROTECT_V : 0); }

void add_once(std::vector<FormatPair>& pairs, const FormatPair& pair) {
  if (std::find(pairs.begin(), pairs.end(), pair) == pairs.end()) {
    pairs.push_back(pair);
  }
}

}  // namespace

std::span<const Preset> presets() {
  static constexpr Preset kPresets[] = {{"accurate", "q8h+cr"}, {"default", "t4+crp"}, {"small", "t4+crp/t3+crp"}, {"tiny", "t4+crp/t2+crp"}};
  return kPresets;
}

std::string suffix(uint32_t transform, bool protect) {
  std::string letters;
  letters += (transform & KVANT_TRANSFORM_CENTRE) != 0 ? "c" : "";
  letters += (transform & KVANT_TRANSFORM_ROTATE) != 0 ? "r" : "";
  letters += protect ? "p" : "";
  return letters.empty() ? "" : "+" + letters;
}

std::string FormatPair::name() const {
  if (!label.empty()) {
    return label;
  }
  const std::string of_k = k.name + suffix(transform_k, (protect & KVANT_PROTECT_K) != 0);
  const std::string of_v = v.name + suffix(transform_v, (protect & KVANT_PROTECT_V) != 0);
  return of_k == of_v ? of_k : of_k + "/" + of_v;
}

Outcome<std::vector<FormatPair>> parse_pairs(const Library& library, const std::string& list) {
  std::vector<FormatPair> pairs;
  std::istringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    if (name.starts_with('@')) {
      auto plan = read_plan(library, name.substr(1));
      if (!plan.ok()) {
        return plan.failure();
      }
      add_once(pairs, *plan);
      continue;
    }
    for (const Preset& preset : presets()) {
      if (name == preset.name) {
        name = preset.pair;
      }
    }
    const size_t slash = name.find('/');
    const auto ks = parse_side(library, name.substr(0, slash));
    if (!ks.ok()) {
      return ks.failure();
    }
    if (slash == std::string::npos) {
      for (const FormatFacts& format : ks->formats) {
        add_once(pairs, {format, format, ks->transform, ks->transform, protect_sides(ks->protect, ks->protect), {}, {}});
      }
      continue;
    }
    const auto vs = parse_side(library, name.substr(slash + 1));
    if (!vs.ok()) {
      return vs.failure();
    }
    for (const FormatFacts& k : ks->formats) {
      for (const FormatFacts& v : vs->formats) {
        add_once(pairs, {k, v, ks->transform, vs->transform, protect_sides(ks->protect, vs->protect), {}, {}});
      }
    }
  }
  if (pairs.empty()) {
    return Failure{"the list of formats is empty", Exit::kUsage};
  }
  return pairs;
}

CacheShape cache_shape(const FormatPair& pair, uint32_t layers, uint32_t kv_heads, uint32_t head_dim,
                       uint64_t capacity_tokens) {
  CacheShape shape;
  shape.layers = layers;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.format_k = pair.k.id;
  shape.format_v = pair.v.id;
  shape.transform_k = pair.transform_k;
  shape.transform_v = pair.transform_v;
  shape.protect = pair.protect;
  shape.by_layer = pair.by_layer;
  shape.capacity_tokens = capacity_tokens;
  return shape;
}

CacheShape cache_shape(const FormatPair& pair, const engine::AttentionShape& model, uint64_t capacity_tokens) {
  return cache_shape(pair, model.layers, model.kv_heads, model.head_dim, capacity_tokens);
}

Outcome<std::vector<uint32_t>> parse_counts(const std::string& what, const std::string& list, uint32_t least) {
  std::vector<uint32_t> counts;
  std::istringstream stream(list);
  for (std::string text; std::getline(stream, text, ',');) {
    uint32_t count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count < least) {
      return Failure{what + " (" + text + ") is not a whole number of at least " + std::to_string(least), Exit::kUsage};
    }
    counts.push_back(count);
  }
  if (counts.empty()) {
    return Failure{"the list of " + what + " is empty", Exit::kUsage};
  }
  return counts;
}

}  // namespace kvant::tools
