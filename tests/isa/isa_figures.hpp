// What RADV's compiler says of one pipeline, the budget that it must keep, and both as a line of JSON for
// docs/amd-statistics.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline_statistics.hpp"

namespace kvant::isa {

inline constexpr double kMaxLdsBytes = 32768;
inline constexpr double kMaxMatrixLdsBytes = 49152;  // of the tiles that a workgroup's cooperative matrices share

struct Figures {
  double vgprs = 0, sgprs = 0, vector_spills = 0, scalar_spills = 0, lds = 0, scratch = 0, waves = 0;
  double instructions = 0, latency = 0, inverse_throughput = 0, code_bytes = 0;
  double spills() const { return vector_spills + scalar_spills; }
};
Figures figures_of(const std::vector<PipelineStatistic>& statistics);

struct Budget {
  double vgprs = 0, spills = 0, scratch = 0;
};
Budget budget_of(const std::string& family);
bool keeps(const Figures& figures, const Budget& budget, bool matrices);

// One pipeline: where it comes from, what it takes.
struct Pipeline {
  std::string family, kernel, shape, config;
  std::string role;  // chosen: tuning takes it; other: tuning passes over the module; page: the page kernels;
                     // masses: score
  std::uint32_t head_dim = 0;
  Figures figures;
  bool good = false;
};
std::string to_json_line(const Pipeline& pipeline);

}  // namespace kvant::isa
