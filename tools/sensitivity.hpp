// How much each side of each layer minds being narrowed, measured on text: the weights of kvant memory-curve.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "eval.hpp"
#include "memory_curve.hpp"
#include "table.hpp"

namespace kvant::tools {

// A pool in `report`'s shape and `pair`'s formats is filled, one side alone is converted to `narrow`, and the second half
// of each chunk is read again over it. Of a small error e the divergence grows as e squared, which is what a weight of
// the memory planner multiplies; so a side's weight is its mean divergence over that of all sides.
Outcome<Sensitivity> measure_sensitivity(EvalModel& model, const TextEval& text, const std::shared_ptr<Device>& device,
                                         const CurveReport& report, const FormatPair& pair, const FormatFacts& narrow,
                                         Progress& progress);

std::string sensitivity_title(const Sensitivity& sensitivity);
Table sensitivity_table(const Sensitivity& sensitivity);
nlohmann::ordered_json sensitivity_json(const Sensitivity& sensitivity);

}  // namespace kvant::tools
