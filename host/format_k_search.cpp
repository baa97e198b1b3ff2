// A part (16 or 32 elements) is fitted alone first: several ranges, for each the nearest codes and the least-squares scale for
// these. The largest scale gives d, and every part looks among the small integers around its own fit for those that err least
// with the codes nearest to them. Then d itself is fitted to all codes, and the choice is made once more.
#include "format_k_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "format_codec.hpp"

namespace kvant::codec {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A block times a power of two that brings its largest magnitude into [1, 2): squares neither overflow nor vanish.
struct Scaled {
  float x[kSuperBlock];
  int exponent;

  Scaled(const float* from, std::uint32_t largest) : exponent(static_cast<int>(largest >> 23) - 127) {
    const float unit = std::ldexp(1.0f, -exponent);
    for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
      x[i] = from[i] * unit;
      if (std::fabs(x[i]) < 0x1p-60f) x[i] = 0.0f;  // keeps every later step clear of denormals
    }
  }
  // The f16 for a scale of x, and the value of one. What is not zero stays so: the small integers choose what becomes of it.
  std::uint32_t to_f16(float scale) const {
    const std::uint32_t bits = scale_to_f16(std::ldexp(scale, exponent));
    return (bits & 0x7FFFu) == 0 && scale != 0.0f ? bits | 1u : bits;
  }
  float value(std::uint32_t bits) const { return std::ldexp(f16_scale(bits), -exponent); }
};

// What a part comes to: y = step * code - low.
struct Affine {
  float step = 0.0f, low = 0.0f;
};

// Nearest codes and their squared error, summed in four strands.
float quantize(const AffineShape& shape, const float* x, const Affine& fit, std::int32_t* codes) {
  const float inverse = fit.step > 0.0f ? 1.0f / fit.step : 0.0f, top = static_cast<float>(shape.top);
  float sums[4] = {};
  for (std::uint32_t begin = 0; begin < shape.part; begin += 4) {
    for (std::uint32_t j = 0; j < 4; ++j) {
      const float scaled = (x[begin + j] + fit.low) * inverse, kept = scaled > 0.0f ? scaled : 0.0f;
      const auto code = static_cast<std::int32_t>((kept < top ? kept : top) + 0.5f);
      const float error = x[begin + j] - (fit.step * static_cast<float>(code) - fit.low);
      sums[j] += error * error;
      codes[begin + j] = code;
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The least squares for these codes; the offset is never above zero.
Affine refit(const AffineShape& shape, const float* x, const std::int32_t* codes, const Affine& before) {
  const auto count = static_cast<float>(shape.part);
  float sum_x = 0.0f, sum_q = 0.0f, sum_qq = 0.0f, sum_xq = 0.0f;
  for (std::uint32_t i = 0; i < shape.part; ++i) {
    const auto q = static_cast<float>(codes[i]);
    sum_x += x[i];
    sum_q += q;
    sum_qq += q * q;
    sum_xq += x[i] * q;
  }
  const float determinant = count * sum_qq - sum_q * sum_q;  // of small integers, exact
  if (determinant <= 0.0f) return before;
  Affine fit;
  fit.step = (count * sum_xq - sum_q * sum_x) / determinant;
  fit.low = (fit.step * sum_q - sum_x) / count;
  if (fit.low < 0.0f) fit = {sum_xq / sum_qq, 0.0f};
  return fit.step > 0.0f ? fit : before;
}

Affine fit_part(const AffineShape& shape, const float* x) {
  const float lowest = std::min(*std::min_element(x, x + shape.part), 0.0f);
  const float range = *std::max_element(x, x + shape.part) - lowest;
  Affine best{0.0f, -lowest};
  if (range <= 0.0f) return best;
  std::int32_t codes[32];
  float least = kInfinity;
  for (std::uint32_t k = 0; k < shape.tries; ++k) {
    const float share = shape.narrowest + static_cast<float>(k) * shape.wider_by;
    Affine fit{range * share / static_cast<float>(shape.top), std::max(-lowest - 0.5f * (1.0f - share) * range, 0.0f)};
    for (int round = 0; round < 2; ++round) {
      const float error = quantize(shape, x, fit, codes);
      if (error < least) {
        least = error;
        best = fit;
      }
      fit = refit(shape, x, codes, fit);
    }
  }
  return best;
}

// The integers up to `most` around value / unit.
struct Around {
  std::uint32_t first = 0, last = 0;
  Around(float value, float unit, std::uint32_t most) {
    if (!(unit > 0.0f)) return;
    const auto middle = static_cast<std::uint32_t>(std::min(value / unit, static_cast<float>(most)) + 0.5f);
    first = middle == 0 ? 0 : middle - 1;
    last = std::min(middle + 1, most);
  }
};

// Scales, mins and codes of a block for its d and low. Returns the squared error.
float choose(const AffineShape& shape, const Scaled& data, const Affine* fits, AffineBlock& block) {
  const float d = data.value(block.d_bits), low = data.value(block.low_bits);
  float total = 0.0f;
  for (std::uint32_t part = 0; part < kSuperBlock / shape.part; ++part) {
    const float* x = data.x + part * shape.part;
    const Around scales(fits[part].step, d, shape.most), mins(fits[part].low, low, shape.most);
    float least = kInfinity;
    for (std::uint32_t scale = scales.first; scale <= scales.last; ++scale) {
      for (std::uint32_t min = mins.first; min <= mins.last; ++min) {
        std::int32_t codes[32];
        const float error = quantize(shape, x, {d * static_cast<float>(scale), low * static_cast<float>(min)}, codes);
        if (!(error < least)) continue;
        least = error;
        block.scales[part] = scale;
        block.mins[part] = min;
        std::copy_n(codes, shape.part, block.codes + part * shape.part);
      }
    }
    total += least;
  }
  return total;
}

// d and low by least squares for the block's integers; false if they leave it open.
bool refit_scales(const AffineShape& shape, const Scaled& data, AffineBlock& block) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const std::uint32_t part = i / shape.part;
    const double a = block.scales[part] * block.codes[i], b = block.mins[part], x = static_cast<double>(data.x[i]);
    aa += a * a;
    ab += a * b;
    bb += b * b;
    ax += a * x;
    bx += b * x;
  }
  const double determinant = aa * bb - ab * ab;
  if (!(determinant > 0.0)) return false;
  const auto d = static_cast<float>((ax * bb - bx * ab) / determinant), low = static_cast<float>((ax * ab - bx * aa) / determinant);
  if (!(d > 0.0f) || !(low > 0.0f)) return false;
  const std::uint32_t d_bits = data.to_f16(d), low_bits = data.to_f16(low);
  const bool changed = d_bits != block.d_bits || low_bits != block.low_bits;
  block.d_bits = d_bits;
  block.low_bits = low_bits;
  return changed;
}

// A part with the steps y = step * (code - 4), of either sign.
float quantize(const float* x, float step, std::int32_t* codes) {
  const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
  float sums[4] = {};
  for (std::uint32_t begin = 0; begin < 16; begin += 4) {
    for (std::uint32_t j = 0; j < 4; ++j) {
      const float scaled = x[begin + j] * inverse, kept = scaled > -4.0f ? scaled : -4.0f;
      const auto code = static_cast<std::int32_t>((kept < 3.0f ? kept : 3.0f) + 4.5f);
      const float error = x[begin + j] - step * (static_cast<float>(code) - 4.0f);
      sums[j] += error * error;
      codes[begin + j] = code;
    }
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

struct Symmetric {
  float step = 0.0f, error = 0.0f;
};

// The best step of this sign for a part.
Symmetric fit_part(const float* x, float sign) {
  float largest = 0.0f;
  for (std::uint32_t i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(x[i]));
  if (largest == 0.0f) return {};
  Symmetric best{0.0f, kInfinity};
  for (float reach = 2.0f; reach <= 4.5f; reach += 0.5f) {  // the code that the largest value gets
    float step = sign * largest / reach;
    for (int round = 0; round < 2; ++round) {
      std::int32_t codes[16];
      const float error = quantize(x, step, codes);
      if (error < best.error) best = {step, error};
      float qq = 0.0f, qx = 0.0f;
      for (std::uint32_t i = 0; i < 16; ++i) {
        const float q = static_cast<float>(codes[i]) - 4.0f;
        qq += q * q;
        qx += q * x[i];
      }
      if (qq == 0.0f || qx * sign <= 0.0f) break;
      step = qx / qq;
    }
  }
  return best;
}

float choose(const Scaled& data, const float (&steps)[16][2], SymmetricBlock& block) {
  const float d = data.value(block.d_bits);
  float total = 0.0f;
  for (std::uint32_t part = 0; part < 16; ++part) {
    const float* x = data.x + 16 * part;
    float least = kInfinity;
    for (const float step : steps[part]) {
      const auto middle = d == 0.0f ? 0 : static_cast<std::int32_t>(std::floor(std::clamp(step / d, -32.0f, 31.0f) + 0.5f));
      for (const std::int32_t scale : {middle, std::max(middle - 1, -32), std::min(middle + 1, 31)}) {
        std::int32_t codes[16];
        const float error = quantize(x, d * static_cast<float>(scale), codes);
        if (!(error < least)) continue;
        least = error;
        block.scales[part] = scale;
        std::copy_n(codes, 16, block.codes + 16 * part);
      }
    }
    total += least;
  }
  return total;
}

bool refit_scales(const Scaled& data, SymmetricBlock& block) {
  double aa = 0, ax = 0;
  for (std::uint32_t i = 0; i < kSuperBlock; ++i) {
    const double a = block.scales[i / 16] * (static_cast<std::int32_t>(block.codes[i]) - 4);
    aa += a * a;
    ax += a * static_cast<double>(data.x[i]);
  }
  if (!(aa > 0.0)) return false;
  const std::uint32_t before = block.d_bits;
  block.d_bits = data.to_f16(static_cast<float>(ax / aa));
  return block.d_bits != before;
}

}  // namespace

AffineBlock search_affine(const AffineShape& shape, const float* x) {
  AffineBlock best;
  const std::uint32_t largest = largest_magnitude(x, kSuperBlock);
  if (largest >= kHugeBits) best.d_bits = kF16Nan;
  if (largest < kTinyBits || largest >= kHugeBits) return best;
  const Scaled data(x, largest);
  Affine fits[16], top;
  for (std::uint32_t part = 0; part < kSuperBlock / shape.part; ++part) {
    fits[part] = fit_part(shape, data.x + part * shape.part);
    top.step = std::max(top.step, fits[part].step);
    top.low = std::max(top.low, fits[part].low);
  }
  const auto most = static_cast<float>(shape.most);
  best.d_bits = data.to_f16(top.step / most);
  best.low_bits = data.to_f16(top.low / most);
  const float least = choose(shape, data, fits, best);
  AffineBlock next = best;
  if (refit_scales(shape, data, next) && choose(shape, data, fits, next) < least) best = next;
  const auto zero = [](std::uint32_t value) { return value == 0; };
  if (std::all_of(best.scales, best.scales + 16, zero)) best.d_bits = 0;
  if (std::all_of(best.mins, best.mins + 16, zero)) best.low_bits = 0;
  return best;
}

SymmetricBlock search_symmetric(const float* x) {
  SymmetricBlock zeros;
  std::fill_n(zeros.scales, 16, -32);  // bytes of zeros
  const std::uint32_t largest = largest_magnitude(x, kSuperBlock);
  if (largest >= kHugeBits) zeros.d_bits = kF16Nan;
  if (largest < kTinyBits || largest >= kHugeBits) return zeros;
  SymmetricBlock best;
  const Scaled data(x, largest);
  float steps[16][2], top = 0.0f;
  for (std::uint32_t part = 0; part < 16; ++part) {
    const Symmetric up = fit_part(data.x + 16 * part, 1.0f), down = fit_part(data.x + 16 * part, -1.0f);
    steps[part][0] = up.step;
    steps[part][1] = down.step;
    const float better = down.error < up.error ? down.step : up.step;
    if (std::fabs(better) > std::fabs(top)) top = better;
  }
  best.d_bits = data.to_f16(top / -32.0f);
  const float least = choose(data, steps, best);
  SymmetricBlock next = best;
  if (refit_scales(data, next) && choose(data, steps, next) < least) best = next;
  return std::all_of(best.scales, best.scales + 16, [](std::int32_t scale) { return scale == 0; }) ? zeros : best;
}

}  // namespace kvant::codec
