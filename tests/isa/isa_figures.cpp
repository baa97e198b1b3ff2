#include "isa_figures.hpp"

#include <nlohmann/json.hpp>

namespace kvant::isa {

Figures figures_of(const std::vector<PipelineStatistic>& statistics) {
  Figures f;
  for (const PipelineStatistic& s : statistics) {
    if (s.name == "VGPRs") f.vgprs = s.value;
    if (s.name == "SGPRs") f.sgprs = s.value;
    if (s.name == "Spilled VGPRs") f.vector_spills = s.value;
    if (s.name == "Spilled SGPRs") f.scalar_spills = s.value;
    if (s.name == "LDS size" || s.name == "LDS Size") f.lds = s.value;
    if (s.name == "Scratch size" || s.name == "Scratch Size") f.scratch = s.value;
    if (s.name == "Subgroups per SIMD") f.waves = s.value;
    if (s.name == "Instructions") f.instructions = s.value;
    if (s.name == "Latency") f.latency = s.value;
    if (s.name == "Inverse Throughput") f.inverse_throughput = s.value;
    if (s.name == "Code size" || s.name == "Code Size") f.code_bytes = s.value;
  }
  return f;
}

// 240 of 256 registers: the next unrolling would spill. Mesa 22.3 gives no gfx1100 pipeline more than 132 registers (144 in
// wave32), so that what fits every other family spills there; that row keeps the spills from growing. Mesa 25.0 calls the family
// navi31 and has no such limit; its scheduler takes all registers that go with its number of waves (192 with 8, 252 with 6, 256 with 4).
Budget budget_of(const std::string& family) {
  if (family == "gfx1100") return {144, 186, 19456};  // the most: convert of t4x to itself, which takes 208 registers elsewhere
  if (family == "navi31") return {256, 0, 0};
  return {240, 0, 0};
}

bool keeps(const Figures& f, const Budget& budget, bool matrices) {
  return f.spills() <= budget.spills && f.scratch <= budget.scratch && f.lds <= (matrices ? kMaxMatrixLdsBytes : kMaxLdsBytes) &&
         f.vgprs <= budget.vgprs && f.vgprs > 0;
}

std::string to_json_line(const Pipeline& p) {
  const Figures& f = p.figures;
  const nlohmann::ordered_json j{{"type", "pipeline"},
                                 {"family", p.family},
                                 {"kernel", p.kernel},
                                 {"shape", p.shape},
                                 {"config", p.config},
                                 {"role", p.role},
                                 {"head_dim", p.head_dim},
                                 {"vgprs", f.vgprs},
                                 {"sgprs", f.sgprs},
                                 {"spilled_vgprs", f.vector_spills},
                                 {"spilled_sgprs", f.scalar_spills},
                                 {"lds", f.lds},
                                 {"scratch", f.scratch},
                                 {"waves", f.waves},
                                 {"instructions", f.instructions},
                                 {"code_bytes", f.code_bytes},
                                 {"latency", f.latency},
                                 {"inverse_throughput", f.inverse_throughput},
                                 {"within_budget", p.good}};
  return j.dump();
}

}  // namespace kvant::isa
