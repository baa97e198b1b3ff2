// isa_check FAMILY: compiles what tuning chooses for representative shapes, and every page kernel, on the device of the
// environment (RADV's null device, chosen by RADV_FORCE_FAMILY before the process starts), prints registers, spills and shared
// memory, and fails when a budget is exceeded. Modules that tuning passes over are shown for one shape, without a budget.
// Exit 77: there is no such device here.
#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "backend.hpp"
#include "formats.hpp"
#include "params/attend.h"
#include "pipeline_statistics.hpp"
#include "tuning.hpp"

namespace {

using namespace kvant;

constexpr int kSkip = 77;
constexpr double kMaxLdsBytes = 32768;

struct Budget {
  double vgprs, spills, scratch;
};

// 240 of 256 registers: the next unrolling would spill. Mesa 22.3 gives no gfx1100 pipeline more than 132 registers (144 in
// wave32), so that what fits every other family spills there; that row keeps the spills from growing until a Mesa without
// the limit can be asked.
Budget budget_of(const std::string& family) {
  if (family == "gfx1100") return {144, 161, 13312};
  return {240, 0, 0};
}

struct Figures {
  double vgprs = 0, spills = 0, scalar_spills = 0, lds = 0, scratch = 0, waves = 0;
};

Figures figures_of(const std::vector<PipelineStatistic>& statistics) {
  Figures f;
  for (const PipelineStatistic& s : statistics) {
    if (s.name == "VGPRs") f.vgprs = s.value;
    if (s.name == "Spilled SGPRs" || s.name == "Spilled VGPRs") f.spills += s.value;
    if (s.name == "Spilled SGPRs") f.scalar_spills = s.value;
    if (s.name == "LDS size" || s.name == "LDS Size") f.lds = s.value;
    if (s.name == "Scratch size" || s.name == "Scratch Size") f.scratch = s.value;
    if (s.name == "Subgroups per SIMD") f.waves = s.value;
  }
  return f;
}

class Check {
 public:
  Check(DeviceContext& context, std::string family)
      : context_(context), family_(std::move(family)), budget_(budget_of(family_)) {}

  void attend(const AttendShape& shape, const AttendConfig& config, const std::string& what, bool budget) {
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = config.local_size;
    spec[KVANT_SPEC_FORMAT_K] = shape.format_k;
    spec[KVANT_SPEC_FORMAT_V] = shape.format_v;
    spec[KVANT_SPEC_HEAD_DIM_K] = shape.head_dim_k;
    spec[KVANT_SPEC_HEAD_DIM_V] = shape.head_dim_v;
    spec[KVANT_SPEC_PAGE_TOKENS] = shape.page_tokens;
    spec[KVANT_SPEC_FLAGS] = KVANT_ATTEND_CAUSAL;
    spec[KVANT_SPEC_HEADS_PER_TILE] = config.heads_per_tile;
    spec[KVANT_SPEC_QUERIES_PER_ITEM] = config.queries_per_item;
    spec[KVANT_SPEC_KV_PER_ITEM] = config.kv_per_item;
    spec[KVANT_SPEC_SUBGROUP_SIZE] = config.subgroup_size;
    for (std::size_t i = 0; i < config.tune.size(); ++i) spec[KVANT_SPEC_TUNE0 + i] = config.tune[i];
    compile(config.kernel, spec, config.subgroup_size, what, budget);
  }

  void page_kernel(KernelId kernel, const FormatInfo& format, std::uint32_t dim) {
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = choose_page_kernel_config(kernel, context_.plan()).local_size;
    spec[KVANT_SPEC_FORMAT_K] = spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(format.id);
    spec[KVANT_SPEC_HEAD_DIM_K] = spec[KVANT_SPEC_HEAD_DIM_V] = dim;
    spec[KVANT_SPEC_PAGE_TOKENS] = 16;
    compile(kernel, spec, 0, std::string(format.name) + " d" + std::to_string(dim), true);
  }

  int failures() const { return failures_; }
  int compiled() const { return compiled_; }

 private:
  void compile(KernelId kernel, const SpecValues& spec, std::uint32_t subgroup_size, const std::string& what, bool budget) {
    if (!kernel_available(kernel, context_.plan()) || !done_.insert({kernel, spec}).second) return;
    const std::string name(kernel_info(kernel).name);
    const auto statistics = compile_statistics(context_, kernel, spec, subgroup_size);
    if (!statistics.ok()) {
      std::printf("%-9s %-20s %-44s FAILED: %s\n", family_.c_str(), name.c_str(), what.c_str(), statistics.status().message().c_str());
      ++failures_;
      return;
    }
    ++compiled_;
    const Figures f = figures_of(statistics.value());
    // score holds hooks and nf4's constants at once: on some families a few scalars go to lanes of a vector register, not to memory.
    const double scalars = kernel == KernelId::score ? std::min(f.scalar_spills, 8.0) : 0.0;
    const bool good = f.spills - scalars <= budget_.spills && f.scratch <= budget_.scratch && f.lds <= kMaxLdsBytes &&
                      f.vgprs <= budget_.vgprs && f.vgprs > 0;
    failures_ += good || !budget ? 0 : 1;
    std::printf("%-9s %-20s %-44s %5.0f %6.0f %7.0f %6.0f %5.0f%s\n", family_.c_str(), name.c_str(), what.c_str(), f.vgprs, f.spills,
                f.scratch, f.lds, f.waves, good ? "" : budget ? "  OVER BUDGET" : "  (not chosen)");
  }

  DeviceContext& context_;
  std::string family_;
  Budget budget_;
  std::set<std::pair<KernelId, SpecValues>> done_;
  int failures_ = 0, compiled_ = 0;
};

void check_shapes(Check& check, const DevicePlan& plan) {
  for (const FormatId format : {FormatId::q4_0, FormatId::q8_0, FormatId::f16, FormatId::nf4})
    for (const std::uint32_t dim : {64u, 128u})
      for (const std::uint32_t queries : {1u, 256u}) {
        AttendShape shape;
        shape.format_k = shape.format_v = static_cast<std::uint32_t>(format);
        shape.head_dim_k = shape.head_dim_v = dim;
        shape.group = 4;
        shape.kv_heads = 8;
        shape.max_queries = shape.total_queries = queries;
        shape.max_kv_len = shape.total_kv_len = 4096;
        const std::string what = std::string(format_info(format).name) + " d" + std::to_string(dim) + (queries == 1 ? " decode" : " prefill");
        const auto describe = [&](const AttendConfig& c, const char* why) {
          return what + " " + std::to_string(c.local_size) + "x" + std::to_string(c.heads_per_tile) + "x" +
                 std::to_string(c.queries_per_item) + " " + why;
        };
        const AttendConfig chosen = choose_attend_config(shape, plan);
        check.attend(shape, chosen, describe(chosen, "chosen"), true);
        AttendConfig score = chosen;
        score.kernel = KernelId::score;
        score.subgroup_size = 0;
        check.attend(shape, score, describe(score, "masses"), true);
        if (format != FormatId::q4_0 || dim != 128) continue;
        std::set<KernelId> seen;
        for (const AttendConfig& config : all_attend_configs(shape, plan))
          if (config.kernel != chosen.kernel && seen.insert(config.kernel).second) check.attend(shape, config, describe(config, "other"), false);
      }
  for (const FormatInfo& format : formats())
    for (const KernelId kernel : {KernelId::append, KernelId::read, KernelId::convert, KernelId::gather}) check.page_kernel(kernel, format, 128);
  check.page_kernel(KernelId::copy, format_info(FormatId::f16), 128);
  check.page_kernel(KernelId::attend_merge, format_info(FormatId::f16), 128);
}

int skip(const char* family, const std::string& reason) {
  std::printf("%s: skipped: %s\n", family, reason.c_str());
  return kSkip;
}

}  // namespace

int main(int argc, char** argv) {
  const char* family = argc > 1 ? argv[1] : "device";
  auto instance = Instance::create({});
  if (!instance.ok()) return skip(family, instance.status().message());
  // The null device is no usable one (it has no memory), so that it is not asked for by best_device().
  if (instance.value()->devices().empty()) return skip(family, "the driver shows no device");
  DeviceOptions options;
  options.capability_override = R"({"timeline": false})";  // the null device cannot make timeline semaphores
  auto context = instance.value()->open(0, options);
  if (!context.ok()) return skip(family, context.status().message());
  const DevicePlan& plan = context.value()->plan();
  if (!plan.features.pipeline_statistics) return skip(family, plan.snapshot.name + " reports no pipeline statistics");
  std::printf("%s: %s, %s %s\n", family, plan.snapshot.name.c_str(), plan.snapshot.driver_name.c_str(), plan.snapshot.driver_info.c_str());
  std::printf("%-9s %-20s %-44s %5s %6s %7s %6s %5s\n", "family", "kernel", "shape and config", "VGPRs", "spills", "scratch", "LDS", "waves");
  Check check(*context.value(), family);
  check_shapes(check, plan);
  std::printf("%s: %d pipelines, %d over budget\n", family, check.compiled(), check.failures());
  return check.failures() == 0 && check.compiled() > 0 ? 0 : 1;
}
