// Runs rope and hadamard: one dispatch on device and CPU executor. Turned elements are held to a bound, all other bytes and the sums of
// hadamard, which are of whole numbers, are exact.
#include <array>
#include <cmath>
#include <numbers>
#include <string>

#include "cpu_executor.hpp"
#include "formats.hpp"
#include "params/grids.h"
#include "params/strided.h"
#include "probe_executor.hpp"
#include "run_case.hpp"

namespace kvant::conformance {

namespace {

// A tensor [batch][plane][row][element] of an engine: rows by nb[0], planes by nb[1], batches by nb[2].
struct Rows {
  const FormatInfo* format;
  std::uint32_t offset = 0, dim = 0, rows = 0, planes = 0;
  std::array<std::uint32_t, 3> nb{};
  std::size_t bytes = 0;  // whole words

  std::size_t place(std::size_t row, std::size_t element) const {
    return offset + row % rows * nb[0] + row / rows % planes * nb[1] + row / rows / planes * nb[2] + element * format->canonical_bytes;
  }
};

Rows lay_out(const Case& c, FormatId id, std::uint32_t rows, std::uint32_t planes, std::uint32_t gap) {
  Rows tensor{&format_info(id), 3 * gap, c.dim_k, rows, planes, {}, 0};
  tensor.nb[0] = tensor.format->canonical_bytes * c.dim_k + gap;
  tensor.nb[1] = tensor.nb[0] * rows + gap;
  tensor.nb[2] = tensor.nb[1] * planes + gap;
  tensor.bytes = (tensor.offset + std::size_t{tensor.nb[2]} * c.batch + 3) / 4 * 4;
  return tensor;
}

Bytes random_bytes(const Random& random, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random.bits(i) & 0xFF);
  return bytes;
}

void set(Bytes& bytes, const Rows& tensor, std::size_t row, std::size_t element, float x) {
  encode_canonical_row(*tensor.format, {&x, 1}, std::span(bytes).subspan(tensor.place(row, element), tensor.format->canonical_bytes));
}

double get(const Bytes& bytes, const Rows& tensor, std::size_t row, std::size_t element, std::size_t guard) {
  float x = 0;
  decode_canonical_row(*tensor.format, std::span(bytes).subspan(guard + tensor.place(row, element), tensor.format->canonical_bytes), {&x, 1});
  return static_cast<double>(x);
}

// Everything a rope case is made of.
struct Turns {
  Rows tensor;
  params::RopeParams push{};
  Bytes source;
  std::vector<std::uint32_t> positions, frequencies;
  std::vector<float> factors;
  bool in_place = false;
};

Turns make_turns(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0), where(context.seed, c.name, 1);
  Turns t;
  t.in_place = (c.variant & kRopeInPlace) != 0;
  t.tensor = lay_out(c, c.format_k, c.kv_heads, c.length, c.placement == Placement::strided ? 2 : 0);
  const bool part = (c.variant & kRopePart) != 0, halves = (c.variant & kRopeHalves) != 0;
  params::RopeParams& p = t.push;
  p.rows = c.kv_heads;
  p.tokens = c.length;
  p.batches = c.batch;
  p.pairs = part ? c.dim_k / 4 + 1 : c.dim_k / 2;
  p.first = part ? c.dim_k / 4 - 1 : 0;
  p.distance = halves ? p.pairs : 1;
  p.rest = t.in_place ? 0 : c.dim_k - 2 * p.pairs;
  p.src_offset = p.dst_offset = t.tensor.offset;
  p.src_nb1 = p.dst_nb1 = t.tensor.nb[0];
  p.src_nb2 = p.dst_nb2 = t.tensor.nb[1];
  p.src_nb3 = p.dst_nb3 = t.tensor.nb[2];
  p.positions_offset = 2;
  p.positions_stride = c.length;
  p.frequencies_offset = 4;
  p.factors_offset = 1;
  p.scale = 1.25f;
  t.source = random_bytes(random, t.tensor.bytes);
  for (std::size_t row = 0; row < std::size_t{c.kv_heads} * c.length * c.batch; ++row)
    for (std::size_t i = 0; i < c.dim_k; ++i)
      set(t.source, t.tensor, row, i, static_cast<float>(random.normal((row * c.dim_k + i) | (std::uint64_t{1} << 40))));
  const std::uint32_t streams = (c.variant & kRopeStreams) != 0 ? 4 : 1;
  t.positions.assign(2, 77);
  for (std::uint32_t i = 0; i < streams * c.length; ++i) {
    const auto far = static_cast<std::uint32_t>(where.bits(i) % (1u << (i % 3 == 0 ? 20 : 8)));
    t.positions.push_back(i % 5 == 4 ? 0 - far : far);
  }
  t.frequencies.assign(4, 99);
  t.factors.assign(1, 99.0f);
  for (std::uint32_t pair = 0; pair < p.pairs; ++pair) {
    const double turns = std::pow(10000.0, -static_cast<double>(pair) / p.pairs) / (2.0 * std::numbers::pi);
    const params::RopeFrequency f = params::rope_frequency(pair == 3 ? turns + 5.0 : turns,
                                                             static_cast<std::uint32_t>(where.bits(1000 + pair) % streams));
    t.frequencies.insert(t.frequencies.end(), {f.low, f.high, f.whole, f.stream});
    const double factor = std::exp(2.0 * where.normal(3000 + pair));
    t.factors.push_back(static_cast<float>(pair % 5 == 4 ? -factor : factor));
  }
  return t;
}

Result<std::vector<Bytes>> run_turns(Executor& executor, const Case& c, const Turns& t, bool mutate) {
  auto push = t.push;
  if (mutate) --push.positions_offset;
  Workbench bench(executor);
  KVANT_ASSIGN(const Buffer in, bench.make(t.source));
  KVANT_ASSIGN(const Buffer out, bench.make_filled(t.tensor.bytes, kCanaryByte));
  KVANT_ASSIGN(const Buffer positions, bench.make(to_bytes(std::span<const std::uint32_t>(t.positions))));
  KVANT_ASSIGN(const Buffer frequencies, bench.make(to_bytes(std::span<const std::uint32_t>(t.frequencies))));
  KVANT_ASSIGN(const Buffer factors, bench.make(to_bytes(std::span<const float>(t.factors))));
  const Buffer& destination = t.in_place ? in : out;
  CommandList list;
  Dispatch& d = list.add_dispatch(KernelId::rope, "rope", true);
  const std::uint32_t unit = t.tensor.format->canonical_bytes == 2 && push.distance != 1 && push.pairs % 2 == 0 ? 2 : 1;
  d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::rope).local_size;
  d.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
  d.spec[KVANT_SPEC_ROPE_UNIT] = unit;
  d.spec[KVANT_SPEC_ROPE_FACTORS] = (c.variant & kRopeFactors) != 0 ? 1 : 0;
  d.bindings = {in.range, destination.range, positions.range, frequencies.range, factors.range};
  d.groups = params::rope_grid(params::rope_units(push.pairs, unit, push.rest, push.tokens, push.batches), push.rows,
                               d.spec[KVANT_SPEC_LOCAL_SIZE], executor.limits().max_groups[0], executor.limits().max_groups[1]);
  set_push(d, push);
  KVANT_TRY(bench.run(list));
  KVANT_ASSIGN(Bytes result, bench.fetch(destination));
  return std::vector<Bytes>{std::move(result)};
}

// Turned elements within a bound of the reference's, everything else as there.
Comparison compare_turns(const Turns& t, const Bytes& actual, const Bytes& expected) {
  const params::RopeParams& p = t.push;
  // Either side's rounding may fall to another side: one unit in the last place, and half of one to spare.
  const double narrow = t.tensor.format->id == FormatId::f16 ? 0x1.8p-10 : t.tensor.format->id == FormatId::bf16 ? 0x1.8p-7 : 0x1p-23;
  std::vector<double> values, truth, bound, magnitude;
  Bytes rest = actual;
  for (std::size_t row = 0; row < std::size_t{p.rows} * p.tokens * p.batches; ++row)
    for (std::uint32_t pair = 0; pair < p.pairs; ++pair) {
      const std::uint32_t one = p.first + (p.distance == 1 ? 2 * pair : pair);
      const double both = static_cast<double>(p.scale) * (std::fabs(get(t.source, t.tensor, row, one, 0)) +
                                                          std::fabs(get(t.source, t.tensor, row, one + p.distance, 0)));
      for (const std::uint32_t element : {one, one + p.distance}) {
        values.push_back(get(actual, t.tensor, row, element, kGuardBytes));
        truth.push_back(get(expected, t.tensor, row, element, kGuardBytes));
        // Cosine and sine, two products and a sum.
        bound.push_back(0x1p-21 * both + narrow * std::fabs(truth.back()) + 0x1p-24);
        magnitude.push_back(both);
        const std::size_t at = kGuardBytes + t.tensor.place(row, element);
        std::copy_n(expected.begin() + static_cast<std::ptrdiff_t>(at), t.tensor.format->canonical_bytes,
                    rest.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
  Comparison figures = compare_bounded(values, truth, bound, magnitude, std::size_t{2} * p.pairs);
  join(figures, compare_bytes(rest, expected), "bytes that are not turned");
  return figures;
}

}  // namespace

CaseResult run_rope_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "reduction";
  const Turns turns = make_turns(context, c);
  ProbeExecutor device(context.device);
  auto actual = run_turns(device, c, turns, false);
  if (!actual.ok()) return error_result(c, actual.status(), "device");
  result.kernel = std::string(kernel_info(device.last_dispatch().kernel).name);
  result.spec.assign(device.last_dispatch().spec.begin(), device.last_dispatch().spec.end());
  reference::CpuExecutor cpu;
  auto expected = run_turns(cpu, c, turns, false);
  if (!expected.ok()) return error_result(c, expected.status(), "reference");
  auto mutated = run_turns(cpu, c, turns, true);
  if (!mutated.ok()) return error_result(c, mutated.status(), "mutated reference");
  result.figures = compare_turns(turns, actual.value()[0], expected.value()[0]);
  conclude(result);
  require_caught(result, !compare_turns(turns, actual.value()[0], mutated.value()[0]).equal, "positions of other tokens");
  Bytes overrun = actual.value()[0];
  overrun.back() ^= std::byte{1};
  require_caught(result, !compare_turns(turns, overrun, expected.value()[0]).equal, "write behind the tensor");
  return result;
}

// Whole numbers, so that sums are exact in any order; one product then rounds, everywhere alike.
CaseResult run_hadamard_case(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  const std::uint32_t gap = c.placement == Placement::strided ? 4 : 0;
  const Rows from = lay_out(c, c.format_k, c.length, c.kv_heads, gap / 2), to = lay_out(c, FormatId::f32, c.length, c.kv_heads, gap);
  const std::uint32_t rows = c.length * c.kv_heads * c.batch;
  Bytes source(from.bytes, kPoisonByte);
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t i = 0; i < c.dim_k; ++i)
      set(source, from, row, i, static_cast<float>(static_cast<int>(random.bits(row * c.dim_k + i) % 513) - 256));
  const params::HadamardParams push{.rows = rows, .ne1 = c.length, .ne2 = c.kv_heads,
                                    .src_offset = from.offset, .src_nb1 = from.nb[0], .src_nb2 = from.nb[1], .src_nb3 = from.nb[2],
                                    .dst_offset = to.offset, .dst_nb1 = to.nb[0], .dst_nb2 = to.nb[1], .dst_nb3 = to.nb[2],
                                    .scale = 1.0f / std::sqrt(static_cast<float>(c.dim_k))};
  return run_exact(context, c, "the last row left out", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = push;
    if (mutate) --used.rows;
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in, bench.make(source));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(to.bytes, kCanaryByte));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::hadamard, "hadamard", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = 64;
    d.spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(c.format_k);
    d.spec[KVANT_SPEC_HEAD_DIM_K] = c.dim_k;
    d.bindings = {in.range, out.range};
    d.groups = params::hadamard_grid(std::uint64_t{used.rows} * c.dim_k, d.spec[KVANT_SPEC_LOCAL_SIZE]);
    set_push(d, used);
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes result, bench.fetch(out));
    return std::vector<Bytes>{std::move(result)};
  });
}

}  // namespace kvant::conformance
