// Reference of rope and hadamard: angles and matrix products in long double and double, row after row.
#include <bit>
#include <cmath>
#include <numbers>
#include <vector>

#include "formats.hpp"
#include "kernels.hpp"
#include "params/grids.h"
#include "params/strided.h"

namespace kvant::reference {

namespace {

// One tensor: dimension 0 without gaps, the others with strides in bytes.
struct Side {
  View* view;
  const FormatInfo* format;
  std::uint64_t offset, nb1, nb2, nb3;

  std::uint64_t place(std::uint64_t element, std::uint64_t row, std::uint64_t token, std::uint64_t batch) const {
    return offset + element * format->canonical_bytes + row * nb1 + token * nb2 + batch * nb3;
  }
};

double load(const Side& side, std::uint64_t at) {
  const std::byte* in = side.view->range(at, side.format->canonical_bytes, "reads");
  float x = 0;
  if (in != nullptr) decode_canonical_row(*side.format, {in, side.format->canonical_bytes}, {&x, 1});
  return static_cast<double>(x);
}

void store(const Side& side, std::uint64_t at, double value) {
  const float x = static_cast<float>(value);
  std::byte* out = side.view->range(at, side.format->canonical_bytes, "writes");
  if (out != nullptr) encode_canonical_row(*side.format, {&x, 1}, {out, side.format->canonical_bytes});
}

// The angle in radians, within half a turn to either side.
double angle_of(KernelCall& call, const params::RopeParams& p, std::uint32_t pair, std::uint32_t token) {
  const std::uint64_t at = p.frequencies_offset + std::uint64_t{pair} * 4;
  const std::uint64_t fraction = call.bindings[3].word(at + 1) * 0x100000000u + call.bindings[3].word(at);
  const std::uint64_t stream = call.bindings[3].word(at + 3);
  long double turns = std::ldexp(static_cast<long double>(fraction), -64) + static_cast<long double>(call.bindings[3].word(at + 2));
  if (call.spec[KVANT_SPEC_ROPE_FACTORS] != 0) turns /= static_cast<long double>(call.bindings[4].float_at(p.factors_offset + pair));
  const auto position = static_cast<std::int32_t>(call.bindings[2].word(p.positions_offset + stream * p.positions_stride + token));
  const long double turned = std::remainder(std::remainder(turns, 1.0L) * static_cast<long double>(position), 1.0L);
  return static_cast<double>(turned * 2.0L * std::numbers::pi_v<long double>);
}

}  // namespace

void run_rope(KernelCall& call) {
  const auto p = call.params<params::RopeParams>();
  const auto id = format_from_id(call.spec[KVANT_SPEC_FORMAT_K]);
  if (!id || (*id != FormatId::f32 && *id != FormatId::f16 && *id != FormatId::bf16)) {
    call.log->report("format " + std::to_string(call.spec[KVANT_SPEC_FORMAT_K]) + " is not f32, f16 or bf16");
    return;
  }
  const FormatInfo& format = format_info(*id);
  const std::uint32_t unit = call.spec[KVANT_SPEC_ROPE_UNIT];
  if ((unit != 1 && (unit != 2 || p.distance == 1)) || p.pairs % unit != 0)
    call.log->report("units of " + std::to_string(unit) + " of " + std::to_string(p.pairs) + " pairs at a distance of " +
                     std::to_string(p.distance));
  if ((p.src_offset | p.src_nb1 | p.src_nb2 | p.src_nb3 | p.dst_offset | p.dst_nb1 | p.dst_nb2 | p.dst_nb3) % 2 != 0)
    call.log->report("an offset or a stride is odd");
  if (call.groups[0] == 0 || call.groups[1] == 0 || call.groups[2] != 1) call.log->report("the grid is empty or has three dimensions");
  const Side from{&call.bindings[0], &format, p.src_offset, p.src_nb1, p.src_nb2, p.src_nb3};
  const Side to{&call.bindings[1], &format, p.dst_offset, p.dst_nb1, p.dst_nb2, p.dst_nb3};
  const double scale = static_cast<double>(p.scale);
  for (std::uint32_t token = 0; token < p.tokens; ++token) {
    std::vector<double> angles(p.pairs);
    for (std::uint32_t pair = 0; pair < p.pairs; ++pair) angles[pair] = angle_of(call, p, pair, token);
    for (std::uint32_t batch = 0; batch < p.batches && call.log->empty(); ++batch)
      for (std::uint32_t row = 0; row < p.rows && call.log->empty(); ++row) {
        for (std::uint32_t pair = 0; pair < p.pairs; ++pair) {
          const std::uint64_t one = p.first + (p.distance == 1 ? 2 * pair : pair), other = one + p.distance;
          const double a = load(from, from.place(one, row, token, batch)), b = load(from, from.place(other, row, token, batch));
          const double cosine = std::cos(angles[pair]) * scale, sine = std::sin(angles[pair]) * scale;
          store(to, to.place(one, row, token, batch), a * cosine - b * sine);
          store(to, to.place(other, row, token, batch), a * sine + b * cosine);
        }
        for (std::uint32_t i = 0; i < p.rest; ++i) {
          const std::uint64_t element = i < p.first ? i : std::uint64_t{i} + 2 * p.pairs;
          const std::byte* in = from.view->range(from.place(element, row, token, batch), format.canonical_bytes, "reads");
          std::byte* out = to.view->range(to.place(element, row, token, batch), format.canonical_bytes, "writes");
          if (in == nullptr || out == nullptr) return;
          std::memcpy(out, in, format.canonical_bytes);
        }
      }
  }
}

void run_hadamard(KernelCall& call) {
  const auto p = call.params<params::HadamardParams>();
  const std::uint64_t n = call.spec[KVANT_SPEC_HEAD_DIM_K], local = call.spec[KVANT_SPEC_LOCAL_SIZE];
  if (n == 0 || n > 512 || !std::has_single_bit(n) || !std::has_single_bit(local) || n > 8 * local) {
    call.log->report("rows of " + std::to_string(n) + " elements for " + std::to_string(local) + " invocations");
    return;
  }
  const auto id = format_from_id(call.spec[KVANT_SPEC_FORMAT_K]);
  if (!id || (*id != FormatId::f32 && *id != FormatId::f16)) call.log->report("the source is neither f32 nor f16");
  if ((p.dst_offset | p.dst_nb1 | p.dst_nb2 | p.dst_nb3) % 4 != 0) call.log->report("the destination is not of whole words");
  if (!call.log->empty()) return;
  if (call.groups[1] > 1 && call.groups[0] != params::kTransferGroupsX) call.log->report("rows of the grid are not whole");
  const std::uint64_t groups = (call.groups[1] - 1) * std::uint64_t{params::kTransferGroupsX} + call.groups[0];
  if (groups * 8 * local < n * p.rows) call.log->report("the grid does not cover " + std::to_string(p.rows) + " rows");
  const Side from{&call.bindings[0], &format_info(*id), p.src_offset, p.src_nb1, p.src_nb2, p.src_nb3};
  const Side to{&call.bindings[1], &format_info(FormatId::f32), p.dst_offset, p.dst_nb1, p.dst_nb2, p.dst_nb3};
  const auto place = [&](const Side& side, std::uint64_t element, std::uint64_t row) {
    return side.place(element, row % p.ne1, row / p.ne1 % p.ne2, row / p.ne1 / p.ne2);
  };
  std::vector<double> x(n);
  for (std::uint64_t row = 0; row < p.rows && call.log->empty(); ++row) {
    for (std::uint64_t i = 0; i < n; ++i) x[i] = load(from, place(from, i, row));
    for (std::uint64_t i = 0; i < n; ++i) {
      double sum = 0.0;
      for (std::uint64_t j = 0; j < n; ++j) sum += std::popcount(i & j) % 2 == 0 ? x[j] : -x[j];
      store(to, place(to, i, row), sum * static_cast<double>(p.scale));
    }
  }
}

}  // namespace kvant::reference
