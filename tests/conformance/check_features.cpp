// The list has, for every attention module and every feature, cases that would notice if the module left the feature out.
#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>

#include "attend_configs.hpp"
#include "attention_features.hpp"

using namespace kvant;
using namespace kvant::conformance;

TEST_CASE("features: each module has quick cases that see each one missing") {
  std::map<KernelId, std::map<Feature, int>> seen;
  std::map<KernelId, int> cases;
  for (const Case& c : all_cases()) {
    if (c.op != Op::attend || c.subset > Subset::quick) continue;
    const AttentionInputs inputs = make_attention_inputs(1, c);
    for (const Feature feature : visible_features(c, inputs, attention_truth(c, inputs))) ++seen[c.config.kernel][feature];
    ++cases[c.config.kernel];
  }
  for (const KernelId module : attend_modules()) {
    CAPTURE(std::string(kernel_info(module).name));
    CHECK(cases[module] >= 10);
    for (std::size_t f = 0; f < static_cast<std::size_t>(Feature::count); ++f) {
      CAPTURE(std::string(feature_name(static_cast<Feature>(f))));
      CHECK(seen[module][static_cast<Feature>(f)] >= 2);
    }
  }
}

TEST_CASE("features: one that changes nothing is not visible") {
  Case c;
  c.op = Op::attend;
  c.format_k = c.format_v = FormatId::f32;
  c.dim_k = c.dim_v = 64;
  c.kv_heads = c.group = c.batch = 1;
  c.queries = 1;
  c.length = 40;
  c.page_tokens = 16;
  c.tables = Tables::sequence;
  c.window = 64;  // longer than the sequence
  c.alibi = true;
  c.name = "window longer than the sequence";
  const AttentionInputs inputs = make_attention_inputs(1, c);
  const auto visible = visible_features(c, inputs, attention_truth(c, inputs));
  CHECK(visible == std::vector<Feature>{Feature::alibi});  // a decode step sees no key in its future either
}
