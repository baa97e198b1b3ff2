#include "quirks.hpp"

#include <string>

#include "device_plan.hpp"
#include "quoted_text.hpp"

namespace kvant {
namespace {

// Values of VkDriverId.
constexpr std::uint32_t kAmdProprietary = 1, kAmdOpenSource = 2, kNvidia = 4, kIntelWindows = 5, kQualcomm = 8,
                        kLlvmpipe = 13, kMoltenVk = 14;
constexpr std::uint32_t kVendorAmd = 0x1002;

void no_subgroups(DevicePlan& plan) { plan.caps.subgroup = false; }
void no_fp16(DevicePlan& plan) { plan.caps.fp16 = false; }
void no_coopmat(DevicePlan& plan) { plan.caps.coopmat = plan.caps.coopmat2 = false; }

// AMD's own Vulkan drivers, RDNA2 and older; RDNA3 is the first with mixed-sign integer dot products.
bool old_amd_driver_stack(const DeviceSnapshot& s) {
  return (s.driver_id == kAmdProprietary || s.driver_id == kAmdOpenSource) && !s.int_dot_mixed_accelerated;
}

bool is_turing(const DeviceSnapshot& s) {
  const bool tu10x = s.device_id >= 0x1E00 && s.device_id <= 0x1FFF;
  const bool tu11x = s.device_id >= 0x2180 && s.device_id <= 0x21FF;
  return s.driver_id == kNvidia && (tu10x || tu11x);
}

// Intel's Windows driver writes 101.8509 as 18 bits of major and 14 of minor.
bool intel_windows_between(const DeviceSnapshot& s, std::uint32_t first_build, std::uint32_t last_build) {
  const std::uint32_t major = s.driver_version >> 14, build = s.driver_version & 0x3FFF;
  return s.driver_id == kIntelWindows && major == 101 && build >= first_build && build <= last_build;
}

constexpr Quirk kQuirks[] = {
    {1, "amd_phantom_coopmat",
     "the driver advertises cooperative matrices on GPUs that have no matrix units; only RDNA3 and later are real, "
     "told by "
     "their accelerated mixed-sign integer dot product",
     "https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-vulkan/ggml-vulkan.cpp",
     "AMD proprietary and AMDVLK, all", [](const DeviceSnapshot& s) { return old_amd_driver_stack(s) && s.coopmat; },
     no_coopmat},
    {2, "amd_fp16_shuffle",
     "half-precision code that shuffles between lanes computes wrong values on RDNA2 and older; fp32 code is right",
     "https://github.com/ggml-org/llama.cpp/pull/19921", "AMD proprietary, all",
     [](const DeviceSnapshot& s) { return s.driver_id == kAmdProprietary && old_amd_driver_stack(s); }, no_fp16},
    {3, "nvidia_turing_coopmat", "the shader compiler miscompiles attention with KHR cooperative matrices on Turing",
     "https://github.com/ggml-org/llama.cpp/pull/19075", "NVIDIA proprietary, all; TU10x and TU11x",
     [](const DeviceSnapshot& s) { return is_turing(s) && s.coopmat; }, no_coopmat},
    {4, "intel_windows_shuffle_crash", "kernels that shuffle between lanes crash the driver",
     "https://github.com/ggml-org/llama.cpp/issues/26769", "Intel Windows 101.8509 to 101.8860",
     [](const DeviceSnapshot& s) { return intel_windows_between(s, 8509, 8860); }, no_subgroups},
    {5, "moltenvk_amd_subgroups",
     "MoltenVK maps a 64-wide subgroup onto two 32-wide SIMD groups on AMD GPUs, so lanes do not reach each other",
     "https://github.com/KhronosGroup/MoltenVK/issues/2756", "MoltenVK, all; AMD GPUs",
     [](const DeviceSnapshot& s) { return s.driver_id == kMoltenVk && s.vendor_id == kVendorAmd; }, no_subgroups},
    {6, "adreno_subgroup_pipelines",
     "vkCreateComputePipelines fails with VK_ERROR_UNKNOWN for many kernels with subgroup operations",
     "https://github.com/ggml-org/llama.cpp/issues/16881", "Qualcomm proprietary, all seen (Adreno 690, X1, 830)",
     [](const DeviceSnapshot& s) { return s.driver_id == kQualcomm; }, no_subgroups},
    {7, "adreno_fp16_without_storage16", "fp16 arithmetic gives wrong values where 16-bit storage is absent",
     "https://github.com/Tencent/ncnn/blob/master/src/gpu.cpp",
     "Qualcomm proprietary, all; without storageBuffer16BitAccess",
     [](const DeviceSnapshot& s) { return s.driver_id == kQualcomm && !s.storage16; }, no_fp16},
    {8, "no_timeline",
     "never applies by itself; forced on, submits are tracked by fences as on devices without timeline semaphores",
     "https://registry.khronos.org/vulkan/specs/latest/man/html/VK_KHR_timeline_semaphore.html", "none",
     [](const DeviceSnapshot&) { return false; }, [](DevicePlan& plan) { plan.caps.timeline = false; }},
    {9, "no_timestamps",
     "never applies by itself; forced on, the profiler takes wall times as on queues without timestamps",
     "https://registry.khronos.org/vulkan/specs/latest/man/html/vkCmdWriteTimestamp.html", "none",
     [](const DeviceSnapshot&) { return false; }, [](DevicePlan& plan) { plan.timestamps = false; }},
    {10, "no_pipeline_blob", "never applies by itself; forced on, no pipeline cache is read from or written to disk",
     "https://registry.khronos.org/vulkan/specs/latest/man/html/VkPipelineCache.html", "none",
     [](const DeviceSnapshot&) { return false; }, [](DevicePlan& plan) { plan.use_pipeline_blob = false; }},
    {11, "llvmpipe_wide_vectors",
     "with LP_NATIVE_VECTOR_WIDTH above 512 the driver reports subgroups of 32 and more, and executes them as 16 lanes",
     "https://gitlab.freedesktop.org/mesa/mesa/-/blob/main/src/gallium/drivers/llvmpipe/lp_state_cs.c",
     "llvmpipe, seen on Mesa 22.3.6 and 26.1",
     [](const DeviceSnapshot& s) { return s.driver_id == kLlvmpipe && s.subgroup_size > 16; }, no_subgroups},
    {12, "no_coopmat", "never applies by itself; forced on, no cooperative matrices are used, for drivers that fail at them",
     "https://registry.khronos.org/vulkan/specs/latest/man/html/VK_KHR_cooperative_matrix.html", "none",
     [](const DeviceSnapshot&) { return false; }, no_coopmat},
};

std::string known_names() {
  std::string names;
  for (const Quirk& quirk : kQuirks) names += (names.empty() ? "" : ", ") + std::string(quirk.name);
  return names;
}

enum class Forced : std::uint8_t { no, on, off };

}  // namespace

std::span<const Quirk> quirks() { return kQuirks; }

Result<std::vector<const Quirk*>> resolve_quirks(const DeviceSnapshot& snapshot, std::string_view forced) {
  std::vector<Forced> wishes(std::size(kQuirks), Forced::no);
  while (!forced.empty()) {
    const std::size_t comma = forced.find(',');
    std::string_view word = forced.substr(0, comma);
    forced = comma == std::string_view::npos ? std::string_view() : forced.substr(comma + 1);
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    if (word.empty() || (word.front() != '+' && word.front() != '-'))
      return Status(StatusCode::invalid_argument, "quirk (" + quoted_text(word) + ") must begin with + or -");
    std::size_t row = 0;
    while (row < std::size(kQuirks) && kQuirks[row].name != word.substr(1)) ++row;
    if (row == std::size(kQuirks))
      return Status(StatusCode::invalid_argument,
                    "quirk (" + quoted_text(word.substr(1)) + ") is not one of " + known_names());
    wishes[row] = word.front() == '+' ? Forced::on : Forced::off;
  }
  std::vector<const Quirk*> active;
  for (std::size_t row = 0; row < std::size(kQuirks); ++row) {
    const bool acts = wishes[row] == Forced::on || (wishes[row] == Forced::no && kQuirks[row].applies(snapshot));
    if (acts) active.push_back(&kQuirks[row]);
  }
  return active;
}

}  // namespace kvant
