// Whether a case would notice a kernel that leaves out what the case asks for.
#pragma once

#include <string_view>
#include <vector>

#include "attention_run.hpp"

namespace kvant::conformance {

enum class Feature { causal, custom_mask, window, window_sinks, sinks, alibi, soft_cap, count };
std::string_view feature_name(Feature feature);

// Features of the case without which the oracle's result, of outputs or log-sum-exps, lies beyond the bounds of `truth`.
std::vector<Feature> visible_features(const Case& c, const AttentionInputs& inputs, const reference::DenseResult& truth);

}  // namespace kvant::conformance
