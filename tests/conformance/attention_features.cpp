#include "attention_features.hpp"

#include <cmath>

namespace kvant::conformance {

namespace {

// Takes a feature out of the problem; false if it is not in there.
bool leave_out(reference::DenseProblem& p, Feature feature) {
  switch (feature) {
    case Feature::causal: return std::exchange(p.causal, false);
    case Feature::custom_mask: {
      bool any = false;
      for (reference::DenseSequence& s : p.sequences) {
        any = any || !s.mask.empty();
        s.mask.clear();
      }
      return any;
    }
    case Feature::window: return std::exchange(p.window, 0u) != 0;
    case Feature::window_sinks: return p.window != 0 && std::exchange(p.window_sinks, 0u) != 0;
    case Feature::sinks: return !std::exchange(p.sinks, {}).empty();
    case Feature::alibi: return !std::exchange(p.slopes, {}).empty();
    case Feature::soft_cap: return std::exchange(p.soft_cap, 0.0) != 0.0;
    case Feature::count: break;
  }
  return false;
}

bool beyond(const std::vector<double>& values, const std::vector<double>& expected, const std::vector<double>& bound) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] != expected[i] && !(std::fabs(values[i] - expected[i]) <= bound[i])) return true;  // infinities too
  return false;
}

}  // namespace

std::string_view feature_name(Feature feature) {
  static constexpr std::string_view kNames[] = {"causal", "custom mask", "window", "window sinks", "sinks", "alibi", "soft cap"};
  static_assert(std::size(kNames) == static_cast<std::size_t>(Feature::count));
  return kNames[static_cast<std::size_t>(feature)];
}

std::vector<Feature> visible_features(const Case& c, const AttentionInputs& inputs, const reference::DenseResult& truth) {
  std::vector<Feature> visible;
  const reference::DenseProblem whole = attention_problem(c, inputs);
  for (std::size_t f = 0; f < static_cast<std::size_t>(Feature::count); ++f) {
    const auto feature = static_cast<Feature>(f);
    reference::DenseProblem without = whole;
    if (!leave_out(without, feature)) continue;
    const reference::DenseResult other = reference::dense_attention(without);
    if (beyond(other.out, truth.out, truth.out_bound) || (c.lse && beyond(other.lse, truth.lse, truth.lse_bound)))
      visible.push_back(feature);
  }
  return visible;
}

}  // namespace kvant::conformance
