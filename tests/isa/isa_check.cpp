// isa_check FAMILY [--all] [--kernel NAME] [--json FILE]: compiles what tuning chooses for representative shapes, and
// every page kernel, on the device of the environment (RADV's null device, chosen by RADV_FORCE_FAMILY before the
// process starts), prints registers, spills and shared memory, writes them as JSON Lines, and fails when a budget is
// exceeded. So do the modules that tuning passes over, for one shape, cut as tuning would cut the work for them.
// --all: every format, and every combination of the shapes' axes for some. --kernel: the kernels alone whose name begins so. Exit 77: there is no
// such device here.
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "attend_record.hpp"
#include "backend.hpp"
#include "formats.hpp"
#include "isa_figures.hpp"
#include "params/attend.h"
#include "params/strided.h"
#include "tuning.hpp"
#include "tuning_matrix.hpp"

namespace {

using namespace kvant;
using isa::Figures;
using isa::Pipeline;

constexpr int kSkip = 77;

class Check {
 public:
  Check(DeviceContext& context, std::string family, std::string kernels)
      : context_(context), family_(std::move(family)), kernels_(std::move(kernels)), budget_(isa::budget_of(family_)) {}

  void attend(const AttendShape& shape, const AttendConfig& config, const std::string& what, const std::string& role,
              std::uint32_t transforms = 0) {
    const SpecValues spec = attend_spec(shape, config, KVANT_ATTEND_CAUSAL | transforms);
    Pipeline p;
    p.shape = what;
    p.config = std::to_string(config.local_size) + "x" + std::to_string(config.heads_per_tile) + "x" +
               std::to_string(config.queries_per_item) + "x" + std::to_string(config.kv_per_item);
    p.role = role;
    p.head_dim = shape.head_dim_k;
    compile(config.kernel, spec, config.subgroup_size, std::move(p));
  }

  void page_kernel(KernelId kernel, const FormatInfo& format, std::uint32_t dim, std::uint32_t flags = 0) {
    page_kernel(kernel, format, format, dim, flags);
  }

  void page_kernel(KernelId kernel, const FormatInfo& format, const FormatInfo& to, std::uint32_t dim, std::uint32_t flags = 0) {
    SpecValues spec{};
    spec[KVANT_SPEC_LOCAL_SIZE] = choose_page_kernel_config(kernel, context_.plan()).local_size;
    spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(format.id);
    spec[KVANT_SPEC_FORMAT_V] = static_cast<std::uint32_t>(to.id);
    spec[KVANT_SPEC_HEAD_DIM_K] = spec[KVANT_SPEC_HEAD_DIM_V] = dim;
    spec[KVANT_SPEC_PAGE_TOKENS] = 16;
    spec[KVANT_SPEC_FLAGS] = flags;
    if (kernel == KernelId::transfer) {
      spec[KVANT_SPEC_TRANSFER_UNIT] = std::max({format.canonical_block, to.canonical_block, 2u});
      spec[KVANT_SPEC_TRANSFER_INDEX] = 1;
    }
    if (kernel == KernelId::rope) {
      spec[KVANT_SPEC_ROPE_UNIT] = format.canonical_bytes == 2 ? 2 : 1;
      spec[KVANT_SPEC_ROPE_FACTORS] = 1;
    }
    Pipeline p;
    p.shape = std::string(format.name) + (format.id == to.id ? "" : "-" + std::string(to.name)) + " d" + std::to_string(dim) + (flags != 0 ? " cr" : "");
    p.config = std::to_string(spec[KVANT_SPEC_LOCAL_SIZE]);
    p.role = "page";
    p.head_dim = dim;
    compile(kernel, spec, 0, std::move(p));
  }

  int failures() const { return failures_; }
  int compiled() const { return compiled_; }
  const std::string& lines() const { return lines_; }

 private:
  void compile(KernelId kernel, const SpecValues& spec, std::uint32_t subgroup_size, Pipeline p) {
    p.family = family_;
    p.kernel = kernel_info(kernel).name;
    if (!p.kernel.starts_with(kernels_) || !kernel_available(kernel, context_.plan())) return;
    if (!done_.insert({kernel, spec}).second) return;
    const auto statistics = compile_statistics(context_, kernel, spec, subgroup_size);
    if (!statistics.ok()) {
      std::printf("%-9s %-20s %-30s FAILED: %s\n", family_.c_str(), p.kernel.c_str(), p.shape.c_str(),
                  statistics.status().message().c_str());
      ++failures_;
      return;
    }
    ++compiled_;
    p.figures = isa::figures_of(statistics.value());
    p.good = isa::keeps(p.figures, budget_, uses_matrices(kernel));
    failures_ += p.good ? 0 : 1;
    const Figures& f = p.figures;
    std::printf("%-9s %-19s %-20s %-14s %-7s %5.0f %6.0f %7.0f %6.0f %5.0f %8.0f%s\n", family_.c_str(),
                p.kernel.c_str(), p.shape.c_str(), p.config.c_str(), p.role.c_str(), f.vgprs, f.spills(), f.scratch,
                f.lds, f.waves, f.latency, p.good ? "" : "  OVER BUDGET");
    lines_ += isa::to_json_line(p) + "\n";
  }

  DeviceContext& context_;
  std::string family_, kernels_;
  isa::Budget budget_;
  std::set<std::pair<KernelId, SpecValues>> done_;
  int failures_ = 0, compiled_ = 0;
  std::string lines_;
};

// Rows centred and rotated.
constexpr std::uint32_t kTransforms = KVANT_ROTATE_K | KVANT_ROTATE_V | KVANT_CENTRE_K | KVANT_CENTRE_V;

void check_attention(Check& check, const DevicePlan& plan, FormatId format, std::uint32_t dim, std::uint32_t group,
                     std::uint32_t queries) {
  AttendShape shape;
  shape.format_k = shape.format_v = static_cast<std::uint32_t>(format);
  shape.head_dim_k = shape.head_dim_v = dim;
  shape.group = group;
  shape.kv_heads = 8;
  shape.max_queries = shape.total_queries = queries;
  shape.max_kv_len = shape.total_kv_len = 4096;
  const std::string what = std::string(format_info(format).name) + " d" + std::to_string(dim) + " g" +
                           std::to_string(group) + (queries == 1 ? " decode" : " prefill");
  const AttendConfig chosen = choose_attend_config(shape, plan);
  check.attend(shape, chosen, what, "chosen");
  AttendShape scored = shape;  // never by matrices
  scored.scored = true;
  const AttendConfig plain = choose_attend_config(scored, plan);
  AttendConfig score = plain;
  score.kernel = KernelId::score;
  score.subgroup_size = 0;
  check.attend(shape, score, what, "masses");
  if (format != FormatId::q4_0 || dim != 128 || group != 4) return;
  check.attend(shape, chosen, what + " cr", "chosen", kTransforms);
  check.attend(shape, score, what + " cr", "masses", kTransforms);
  // Every module that tuning passes over, with the config of most lanes and as many rows as the one chosen without matrices: a CPU's, with
  // four rows and one lane a key, would never be taken here.
  std::map<KernelId, AttendConfig> others;
  for (const AttendConfig& config : all_attend_configs(shape, plan)) {
    const bool fits = config.heads_per_tile * config.queries_per_item <= plain.heads_per_tile * plain.queries_per_item;
    if (config.kernel == chosen.kernel || !fits) continue;
    if (config.subgroup_size != 0 && config.subgroup_size != plan.subgroup_size) continue;
    const auto [other, added] = others.try_emplace(config.kernel, config);
    if (!added && config.local_size > other->second.local_size) other->second = config;
  }
  for (const auto& [kernel, config] : others) check.attend(shape, config, what, "other");
}

void check_shapes(Check& check, const DevicePlan& plan, bool all) {
  // One of each kind of decoder stands for the others in the short form, and for all groups at all sizes.
  constexpr std::array kSample{FormatId::q4_0, FormatId::q8_0, FormatId::f16, FormatId::nf4, FormatId::t4};
  for (const FormatInfo& format : formats()) {
    const bool sample = std::find(kSample.begin(), kSample.end(), format.id) != kSample.end();
    if (!sample && !all) continue;
    for (const std::uint32_t dim : {64u, 80u, 96u, 128u, 192u, 256u})
      for (const std::uint32_t group : {1u, 4u, 8u})
        for (const std::uint32_t queries : {1u, 256u})
          if ((all && sample) || group == 4 || dim == 128) check_attention(check, plan, format.id, dim, group, queries);
  }
  for (const std::uint32_t dim : {128u, 256u}) {
    if (dim != 128 && !all) continue;
    for (const FormatInfo& format : formats())
      for (const KernelId kernel : {KernelId::append, KernelId::read, KernelId::convert, KernelId::gather})
        check.page_kernel(kernel, format, dim);
    const FormatInfo& f32 = format_info(FormatId::f32);
    for (const FormatInfo& format : formats()) {
      if ((format.canonical_block != 32 && format.id > FormatId::bf16) || format.scale_bytes == 1) continue;  // what ggml has
      check.page_kernel(KernelId::import, format, dim);
      check.page_kernel(KernelId::extract, format, dim);
      check.page_kernel(KernelId::transfer, f32, format, dim);
      check.page_kernel(KernelId::transfer, format, f32, dim);
    }
    for (const FormatId id : {FormatId::f32, FormatId::f16, FormatId::bf16}) check.page_kernel(KernelId::rope, format_info(id), dim);
    for (const FormatId id : {FormatId::f32, FormatId::f16}) check.page_kernel(KernelId::hadamard, format_info(id), dim);
    for (const KernelId kernel : {KernelId::copy, KernelId::rotate, KernelId::means, KernelId::attend_merge})
      check.page_kernel(kernel, format_info(FormatId::f16), dim);
    for (const KernelId kernel : {KernelId::means, KernelId::attend_merge}) check.page_kernel(kernel, format_info(FormatId::f16), dim, kTransforms);
    for (const FormatId id : kSample)
      for (const KernelId kernel : {KernelId::append, KernelId::read}) check.page_kernel(kernel, format_info(id), dim, kTransforms);
  }
}

int skip(const char* family, const std::string& reason) {
  std::printf("%s: skipped: %s\n", family, reason.c_str());
  return kSkip;
}

}  // namespace

int main(int argc, char** argv) {
  const char* family = argc > 1 ? argv[1] : "";
  std::string json, kernels;
  bool all = false, usage = argc < 2;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--all")
      all = true;
    else if (word == "--json" && i + 1 < argc)
      json = argv[++i];
    else if (word == "--kernel" && i + 1 < argc)
      kernels = argv[++i];
    else
      usage = true;
  }
  if (usage) {
    std::fprintf(stderr, "usage: %s FAMILY [--all] [--kernel NAME] [--json FILE]\n", argv[0]);
    return 2;
  }
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
  std::printf("%s: %s, %s %s\n", family, plan.snapshot.name.c_str(), plan.snapshot.driver_name.c_str(),
              plan.snapshot.driver_info.c_str());
  std::printf("%-9s %-19s %-20s %-14s %-7s %5s %6s %7s %6s %5s %8s\n", "family", "kernel", "shape", "config", "role",
              "VGPRs", "spills", "scratch", "LDS", "waves", "latency");
  Check check(*context.value(), family, kernels);
  check_shapes(check, plan, all);
  std::printf("%s: %d pipelines, %d over budget\n", family, check.compiled(), check.failures());
  if (!json.empty()) {
    std::ofstream file(json, std::ios::binary);
    file << check.lines();
    file.close();
    if (!file) {
      std::fprintf(stderr, "%s: cannot be written\n", json.c_str());
      return 1;
    }
  }
  return check.failures() == 0 && check.compiled() > 0 ? 0 : 1;
}
