// ROPE: every mode of llama.cpp, through the kernel `rope`. Frequencies of pairs are computed here in double, with all that scales them;
// the device multiplies them by positions and divides them by factors, if there are any.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

#include "formats.hpp"
#include "operations.hpp"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::ggml {

namespace {

// The operation's parameters, as ggml packs them.
struct Rope {
  std::int32_t n_dims = 0, mode = 0, n_ctx_orig = 0;
  float freq_base = 0, freq_scale = 0, ext_factor = 0, attn_factor = 0, beta_fast = 0, beta_slow = 0;
  std::array<std::int32_t, GGML_MROPE_SECTIONS> sections{};
  std::int32_t first = 0;  // element that the pairs begin at

  bool vision() const { return mode == GGML_ROPE_TYPE_VISION; }
  bool interleaved() const { return mode == GGML_ROPE_TYPE_IMROPE; }
  // Positions of time, height, width and one more for each token.
  bool multi() const { return mode == GGML_ROPE_TYPE_MROPE || interleaved() || vision(); }
  std::uint32_t pairs() const { return static_cast<std::uint32_t>(vision() ? n_dims : n_dims / 2); }
  std::uint32_t distance() const { return mode == GGML_ROPE_TYPE_NORMAL ? 1 : pairs(); }
};

Rope parse(const ggml_tensor* op) {
  Rope r;
  const std::int32_t* p = op->op_params;
  r.n_dims = p[1];
  r.mode = p[2];
  r.n_ctx_orig = p[4];
  float* const floats[] = {&r.freq_base, &r.freq_scale, &r.ext_factor, &r.attn_factor, &r.beta_fast, &r.beta_slow};
  for (std::size_t i = 0; i < std::size(floats); ++i) std::memcpy(floats[i], p + 5 + i, sizeof(float));
  std::copy_n(p + 11, r.sections.size(), r.sections.begin());
  r.first = p[15];
  return r;
}

// Which position turns each pair, and how often the base has been applied by then.
struct Step {
  std::uint32_t stream = 0, exponent = 0;
};

std::vector<Step> steps_of(const Rope& r) {
  std::vector<Step> steps(r.pairs());
  const auto [s0, s1, s2, s3] = r.sections;
  const std::int32_t sum = s0 + s1 + s2 + s3;
  std::array<std::uint32_t, 4> exponents{};  // of the streams: those of vision begin anew with their sections
  for (std::uint32_t pair = 0; pair < steps.size(); ++pair) {
    std::uint32_t stream = 0;
    if (r.multi()) {
      const auto sector = static_cast<std::int32_t>(pair % u32(sum));
      if (r.vision()) {
        if (sector == 0) exponents[0] = 0;
        else if (sector == s0) exponents[1] = 0;
        else if (sector == s0 + s1) exponents[2] = 0;
        else if (sector == s0 + s1 + s2) exponents[3] = 0;
      }
      if (r.interleaved()) {
        const std::int32_t third = sector % 3;
        stream = sector < 3 * r.sections[u32(third)] ? u32(third) : 3;
      } else {
        stream = sector < s0 ? 0 : sector < s0 + s1 ? 1 : sector < s0 + s1 + s2 ? 2 : 3;
      }
    }
    steps[pair] = {stream, exponents[stream]};
    for (std::uint32_t& exponent : exponents) ++exponent;
  }
  return steps;
}

// Nothing where a frequency is no number of turns that the kernel takes.
std::optional<std::vector<std::uint32_t>> frequencies_of(const Rope& r) {
  float ramp[2] = {};
  ggml_rope_yarn_corr_dims(r.n_dims, r.n_ctx_orig, r.freq_base, r.beta_fast, r.beta_slow, ramp);
  std::vector<std::uint32_t> words;
  const std::vector<Step> steps = steps_of(r);
  for (std::uint32_t pair = 0; pair < steps.size(); ++pair) {
    double scale = static_cast<double>(r.freq_scale);
    if (r.ext_factor != 0.0f) {
      // YaRN: low pairs extrapolate, high ones interpolate.
      const double way = (static_cast<double>(pair) - static_cast<double>(ramp[0])) /
                         std::max(0.001, static_cast<double>(ramp[1]) - static_cast<double>(ramp[0]));
      const double mix = (1.0 - std::clamp(way, 0.0, 1.0)) * static_cast<double>(r.ext_factor);
      scale = scale * (1.0 - mix) + mix;
    }
    const double turns = std::pow(static_cast<double>(r.freq_base), -2.0 * steps[pair].exponent / r.n_dims) * scale / (2.0 * std::numbers::pi);
    if (!(turns >= 0.0 && turns < 0x1p32)) return std::nullopt;
    const params::RopeFrequency f = params::rope_frequency(turns, steps[pair].stream);
    words.insert(words.end(), {f.low, f.high, f.whole, f.stream});
  }
  return words;
}

bool parameters_fit(const Rope& r, std::int64_t ne0) {
  switch (r.mode) {
    case GGML_ROPE_TYPE_NORMAL:
    case GGML_ROPE_TYPE_NEOX:
    case GGML_ROPE_TYPE_MROPE:
    case GGML_ROPE_TYPE_IMROPE:
    case GGML_ROPE_TYPE_VISION: break;
    default: return false;
  }
  if (r.n_dims <= 0 || r.n_dims % 2 != 0 || r.n_dims > ne0 || r.first < 0 || r.first > ne0 - r.n_dims) return false;
  if (r.vision() && (r.first != 0 || 2 * std::int64_t{r.n_dims} != ne0)) return false;
  std::int64_t sum = 0;
  for (const std::int32_t section : r.sections) {
    if (section < 0) return false;
    sum += section;
  }
  if (r.multi() && (sum == 0 || sum > ne0)) return false;
  return frequencies_of(r).has_value();
}

// A result of its own, or the source as it lies.
bool places_fit(const ggml_tensor* op, const ggml_tensor* source) {
  if (op->view_src == nullptr) return true;
  return op->view_src == root_of(source) && op->view_offs == source->view_offs && ggml_are_same_stride(op, source);
}

}  // namespace

bool supports_rope(const ggml_tensor* op, const ExecutorLimits& limits) {
  const ggml_tensor *source = op->src[0], *positions = op->src[1], *factors = op->src[2];
  if (source == nullptr || positions == nullptr) return false;
  if (source->type != GGML_TYPE_F32 && source->type != GGML_TYPE_F16 && source->type != GGML_TYPE_BF16) return false;
  if (op->type != source->type || !ggml_are_same_shape(op, source)) return false;
  const Rope r = parse(op);
  if (!parameters_fit(r, source->ne[0]) || !places_fit(op, source)) return false;
  for (const ggml_tensor* side : {source, op}) {
    if (!rows_contiguous(side) || ggml_nbytes(side) > bindable_bytes(limits)) return false;
    if (ggml_nelements(side) > std::numeric_limits<std::uint32_t>::max()) return false;
  }
  if (positions->type != GGML_TYPE_I32 || !ggml_is_vector(positions) || !rows_contiguous(positions)) return false;
  if (positions->ne[0] != source->ne[2] * (r.multi() ? 4 : 1)) return false;
  return factors == nullptr || (factors->type == GGML_TYPE_F32 && rows_contiguous(factors) && factors->ne[0] >= r.pairs());
}

Status record_rope(Work& work, const ggml_tensor* node) {
  const ggml_tensor *s = node->src[0], *positions = node->src[1], *factors = node->src[2];
  const Rope r = parse(node);
  const auto words = frequencies_of(r);
  if (!words) return {StatusCode::unimplemented, "this operation was not said to be supported"};
  if (ggml_nelements(node) == 0) return {};
  KVANT_ASSIGN(const BufferRange frequencies, work.upload(*words));
  const Window source = work.window(s);
  const Window destination = work.window(node);
  const Window position = work.window(positions);
  Window factor;
  if (factors != nullptr) factor = work.window(factors);
  const bool in_place = buffer_id(s) == buffer_id(node) && offset_of(s) == offset_of(node);
  params::RopeParams p{};
  p.rows = u32(s->ne[1]);
  p.tokens = u32(s->ne[2]);
  p.batches = u32(s->ne[3]);
  p.pairs = r.pairs();
  p.first = u32(r.first);
  p.distance = r.distance();
  p.rest = in_place ? 0 : u32(s->ne[0]) - 2 * p.pairs;
  p.src_offset = source.skipped;
  p.dst_offset = destination.skipped;
  set_strides(p, s, node);
  p.positions_offset = position.skipped / 4;
  p.positions_stride = p.tokens;
  p.factors_offset = factor.skipped / 4;
  p.scale = r.attn_factor;
  if (r.ext_factor != 0.0f) p.scale *= 1.0f + 0.1f * std::log(1.0f / r.freq_scale);
  // Two neighbours of 16 bits may fill a word.
  const std::uint32_t unit = s->type != GGML_TYPE_F32 && p.distance != 1 && p.pairs % 2 == 0 ? 2 : 1;
  const ExecutorLimits& limits = work.executor().limits();
  const std::uint32_t local = work.executor().page_kernel_config(KernelId::rope).local_size;
  Dispatch& dispatch = work.add(KernelId::rope, "rope", p, true);
  dispatch.spec[KVANT_SPEC_LOCAL_SIZE] = local;
  dispatch.spec[KVANT_SPEC_FORMAT_K] = u32(*format_of(s->type));
  dispatch.spec[KVANT_SPEC_ROPE_UNIT] = unit;
  dispatch.spec[KVANT_SPEC_ROPE_FACTORS] = factors != nullptr ? 1 : 0;
  dispatch.bindings[0] = source.range;
  dispatch.bindings[1] = destination.range;
  dispatch.bindings[2] = position.range;
  dispatch.bindings[3] = frequencies;
  dispatch.bindings[4] = factor.range;
  dispatch.groups = params::rope_grid(params::rope_units(p.pairs, unit, p.rest, p.tokens, p.batches), p.rows, local, limits.max_groups[0],
                                      limits.max_groups[1]);
  return {};
}

}  // namespace kvant::ggml
