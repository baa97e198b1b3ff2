#include "sensitivity.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

#include "memory_curve_run.hpp"

namespace kvant::tools {

namespace {

constexpr const char* kSides[] = {"K", "V"};

}  // namespace

Outcome<Sensitivity> measure_sensitivity(EvalModel& model, const TextEval& text, const std::shared_ptr<Device>& device,
                                         const CurveReport& report, const FormatPair& pair, const FormatFacts& narrow,
                                         Progress& progress) {
  if (narrow.id == pair.k.id || narrow.id == pair.v.id) {
    return Failure{"--sensitivity " + narrow.name + ": a pool of " + pair.name() + " holds that format already",
                   Exit::kUsage};
  }
  const uint32_t layers = model.llama.config().layers;
  Sensitivity found{pair, narrow, 0, {}, {}};
  std::vector<double> negative_log(2 * layers), divergence(2 * layers);
  double whole = 0;
  for (uint32_t chunk = 0; chunk < report.chunks; ++chunk) {
    std::vector<float> truth, rows;
    LimitRun unchanged(model, text, report);
    KVANT_TRY(unchanged.fill(device, pair, chunk));
    KVANT_TRY(unchanged.read_second_half(truth));
    whole += unchanged.negative_log(report.context / 2, truth);
    progress.advance();
    for (uint32_t i = 0; i < 2 * layers; ++i) {
      LimitRun run(model, text, report);
      KVANT_TRY(run.fill(device, pair, chunk));
      KVANT_TRY(run.convert(i / 2, i % 2, narrow.id));
      KVANT_TRY(run.read_second_half(rows));
      negative_log[i] += run.negative_log(report.context / 2, rows);
      divergence[i] += run.divergence(truth, rows);
      progress.advance();
    }
    found.unchanged.push_back(std::move(truth));
  }
  const double scored = static_cast<double>(report.chunks) * report.scored;
  double all = 0;
  for (const double value : divergence) {
    all += value;
  }
  if (!(all > 0)) {
    return Failure{"--sensitivity " + narrow.name + ": no side of a pool of " + pair.name() +
                   " makes a difference that can be measured"};
  }
  found.perplexity = std::exp(whole / scored);
  for (uint32_t i = 0; i < 2 * layers; ++i) {
    found.sides.push_back(
        {i / 2, i % 2, std::exp(negative_log[i] / scored), divergence[i] / scored, divergence[i] * 2 * layers / all});
  }
  return found;
}

std::string sensitivity_title(const Sensitivity& sensitivity) {
  return "One side alone from " + sensitivity.pair.name() + " to " + sensitivity.narrow.name + ", perplexity " +
         fixed(sensitivity.perplexity, 4) + " before:";
}

Table sensitivity_table(const Sensitivity& sensitivity) {
  Table table({"layer", "side", "PPL", "to unchanged", "KL mean", "weight"});
  for (const SideSensitivity& side : sensitivity.sides) {
    const double change = side.perplexity / sensitivity.perplexity - 1.0;
    table.add({std::to_string(side.layer), kSides[side.side], fixed(side.perplexity, 4),
               (change >= 0 ? "+" : "") + fixed(100 * change, 3) + " %", significant(side.kl_mean),
               fixed(side.weight, 3)});
  }
  return table;
}

nlohmann::ordered_json sensitivity_json(const Sensitivity& sensitivity) {
  nlohmann::ordered_json sides = nlohmann::ordered_json::array();
  for (const SideSensitivity& side : sensitivity.sides) {
    sides.push_back({{"layer", side.layer},
                     {"side", kSides[side.side]},
                     {"perplexity", side.perplexity},
                     {"kl_mean", side.kl_mean},
                     {"weight", side.weight}});
  }
  return {{"k", sensitivity.pair.k.name},
          {"v", sensitivity.pair.v.name},
          {"narrow", sensitivity.narrow.name},
          {"perplexity", sensitivity.perplexity},
          {"sides", std::move(sides)}};
}

}  // namespace kvant::tools
