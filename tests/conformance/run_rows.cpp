// Runs stand-alone quantization against the host encoders, and the merge kernel against the formula in double.
#include <cmath>
#include <limits>

#include "cpu_executor.hpp"
#include "formats.hpp"
#include "rotation_truth.hpp"
#include "params/attend.h"
#include "run_case.hpp"
#include "tensor_layout.hpp"
#include "probe_executor.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

CaseResult run_quantize_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "exact";
  const FormatInfo& format = format_info(c.format_k);
  const auto x = make_tensor(Random(context.seed, c.name, 0), c.data, c.length, 1, c.dim_k);
  const std::uint64_t row_bytes = canonical_row_bytes(format, c.dim_k);
  Bytes expected(static_cast<std::size_t>(row_bytes * c.length)), actual(expected.size(), kCanaryByte);
  std::vector<float> decoded(x.size()), out(x.size(), std::numeric_limits<float>::quiet_NaN());
  for (std::uint32_t i = 0; i < c.length; ++i) {
    const auto row = std::span(expected).subspan(static_cast<std::size_t>(i * row_bytes), static_cast<std::size_t>(row_bytes));
    encode_canonical_row(format, std::span(x).subspan(std::size_t{i} * c.dim_k, c.dim_k), row);
    decode_canonical_row(format, row, std::span(decoded).subspan(std::size_t{i} * c.dim_k, c.dim_k));
  }
  ProbeExecutor device(context.device);
  if (Status s = quantize_rows(device, c.format_k, c.dim_k, x, actual); !s.ok()) return error_result(c, s, "quantize_rows");
  if (Status s = dequantize_rows(device, c.format_k, c.dim_k, expected, out); !s.ok())
    return error_result(c, s, "dequantize_rows");
  result.kernel = std::string(kernel_info(device.last_dispatch().kernel).name);
  join(result.figures, compare_bytes(actual, expected), "canonical bytes");
  join(result.figures, compare_floats(out, decoded), "decoded rows");
  conclude(result);
  Bytes flipped = actual;
  flipped[flipped.size() / 2] ^= std::byte{1};
  require_caught(result, !compare_bytes(flipped, expected).equal, "flipped code bit");
  auto moved = out;
  moved.back() = std::nextafter(moved.back(), 1e9f);
  require_caught(result, !compare_floats(moved, decoded).equal, "one ulp");
  return result;
}

namespace {

constexpr std::uint32_t kMergeGroup = 2;  // query heads of a KV head

struct MergeData {
  std::uint32_t rows = 0;        // of PARTIAL
  std::vector<float> partial;    // [rows][dim], then [rows]
  std::vector<float> sinks;
  std::vector<float> means;      // of V, as they are stored; zeros where it is not centred
  std::vector<params::MergeItem> items;
};

// Queries' partials lie apart and in shuffled order; one query has no key at all, some splits are empty.
MergeData make_merge_data(const RunContext& context, const Case& c) {
  const Random random(context.seed, c.name, 0);
  MergeData data;
  data.rows = c.queries * c.splits * c.kv_heads + 3;
  data.partial.assign(std::size_t{data.rows} * c.dim_v + data.rows, std::numeric_limits<float>::quiet_NaN());
  const auto order = Random(context.seed, c.name, 1).permutation(c.queries);
  std::uint64_t n = 0;
  for (std::uint32_t query = 0; query < c.queries; ++query) {
    const bool strided = c.placement == Placement::strided;  // splits of all queries interleaved
    const std::uint32_t first = 3 + (strided ? query : query * c.splits) * c.kv_heads;
    const std::uint32_t stride = (strided ? c.queries : 1) * c.kv_heads;
    data.items.push_back({first, stride, c.splits, order[query]});
    for (std::uint32_t split = 0; split < c.splits; ++split)
      for (std::uint32_t head = 0; head < c.kv_heads; ++head) {
        const std::uint32_t row = first + split * stride + head;
        const bool empty = (c.queries > 2 && query == 1) || random.uniform(n++) < 0.15;
        for (std::uint32_t d = 0; d < c.dim_v; ++d)
          data.partial[std::size_t{row} * c.dim_v + d] = empty ? 0.0f : static_cast<float>(random.normal(n++));
        data.partial[std::size_t{data.rows} * c.dim_v + row] =
            empty ? -std::numeric_limits<float>::infinity() : static_cast<float>(4.0 * random.normal(n++));
      }
  }
  for (std::uint32_t head = 0; head < c.kv_heads; ++head) data.sinks.push_back(static_cast<float>(random.normal(n++)));
  data.means = stored_means(context.seed, c, Side::v, c.kv_heads / kMergeGroup);
  data.means.resize(std::size_t{c.kv_heads} / kMergeGroup * c.dim_v, 0.0f);
  return data;
}

struct MergeTruth {
  std::vector<double> out, bound, magnitude, lse, lse_bound;
};

MergeTruth merge_truth(const Case& c, const MergeData& data) {
  constexpr double kU = 0x1p-24;
  MergeTruth t;
  t.out.assign(std::size_t{c.queries} * c.kv_heads * c.dim_v, 0.0);
  t.bound = t.magnitude = t.out;
  t.lse.assign(std::size_t{c.queries} * c.kv_heads, -std::numeric_limits<double>::infinity());
  t.lse_bound.assign(t.lse.size(), 0.0);
  const double rounding = c.out == IoType::f16 ? 0x1p-10 : c.out == IoType::bf16 ? 0x1p-7 : 2 * kU;
  const double step = c.out == IoType::f16 ? 0x1p-24 : 0x1p-126;
  for (const params::MergeItem& item : data.items)
    for (std::uint32_t head = 0; head < c.kv_heads; ++head) {
      const std::size_t cell = std::size_t{item.q_row} * c.kv_heads + head;
      const auto row = [&](std::uint32_t split) { return item.partial_row + split * item.split_stride + head; };
      const auto lse = [&](std::uint32_t split) {
        return static_cast<double>(data.partial[std::size_t{data.rows} * c.dim_v + row(split)]);
      };
      double largest = c.sinks ? static_cast<double>(data.sinks[head]) : -std::numeric_limits<double>::infinity();
      for (std::uint32_t s = 0; s < c.splits; ++s) largest = std::max(largest, lse(s));
      if (std::isinf(largest)) continue;
      double sum = c.sinks ? std::exp(static_cast<double>(data.sinks[head]) - largest) : 0.0;
      for (std::uint32_t s = 0; s < c.splits; ++s) sum += std::exp(lse(s) - largest);
      // exp: 3 + 2|x| ulp; sums of `splits` terms; one division.
      for (std::uint32_t d = 0; d < c.dim_v; ++d) {
        const double mean = static_cast<double>(data.means[std::size_t{head / kMergeGroup} * c.dim_v + d]);
        double value = 0.0, magnitude = 0.0, error = 0.0;
        for (std::uint32_t s = 0; s < c.splits; ++s) {
          const double p = std::exp(lse(s) - largest) / sum;
          if (p == 0.0) continue;
          const double x = static_cast<double>(data.partial[std::size_t{row(s)} * c.dim_v + d]), size = std::fabs(x) + std::fabs(mean);
          value += p * (x + mean);
          magnitude += p * size;
          error += p * size * (6 + 5 * (largest - lse(s))) * kU;
        }
        const std::size_t i = cell * c.dim_v + d;
        t.out[i] = value;
        t.magnitude[i] = magnitude;
        t.bound[i] = 2 * error + (2.0 * c.splits + 12) * kU * magnitude + (c.rotate_v ? 0.0 : std::fabs(value) * rounding + step);
      }
      t.lse[cell] = largest + std::log(sum);
      t.lse_bound[cell] = (2.0 * c.splits + 16) * kU + 8 * (std::fabs(largest) + std::fabs(std::log(sum)) + 1) * kU;
    }
  if (c.rotate_v) take_back(t.out, t.bound, t.magnitude, c.dim_v, rounding, step);
  return t;
}

}  // namespace

CaseResult run_merge_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "reduction";
  const MergeData data = make_merge_data(context, c);
  const TensorLayout layout = make_layout(c.out, c.queries, c.kv_heads, c.dim_v, c.placement);
  const TensorLayout lse_layout = make_layout(IoType::f32, c.queries, c.kv_heads, 1, Placement::buffer);
  const auto run = [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto items = data.items;
    if (mutate) items[0].partial_row -= 1;  // one row early
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer partial, bench.make(to_bytes(std::span<const float>(data.partial))));
    KVANT_ASSIGN(const Buffer out, bench.make_filled(layout.bytes(), kCanaryByte));
    KVANT_ASSIGN(const Buffer meta, bench.make(to_bytes(std::span<const params::MergeItem>(items))));
    KVANT_ASSIGN(const Buffer heads, bench.make(to_bytes(std::span<const float>(data.sinks))));
    KVANT_ASSIGN(const Buffer means, bench.make(to_bytes(std::span<const float>(data.means))));
    KVANT_ASSIGN(const Buffer lse, bench.make_filled(lse_layout.bytes(), kCanaryByte));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::attend_merge, "merge", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::attend_merge).local_size;
    d.spec[KVANT_SPEC_HEAD_DIM_V] = c.dim_v;
    d.spec[KVANT_SPEC_IO_TYPE_OUT] = static_cast<std::uint32_t>(c.out);
    d.spec[KVANT_SPEC_FLAGS] = (c.sinks ? KVANT_ATTEND_SINKS : 0u) | (c.lse ? KVANT_ATTEND_LSE : 0u) | transform_flags(c);
    d.bindings = {partial.range, out.range, meta.range, heads.range, lse.range, means.range};
    d.groups = {c.queries, c.kv_heads, 1};
    set_push(d, params::MergeParams{.item_begin = 0,
                                    .items_offset = 0,
                                    .q_heads = c.kv_heads,
                                    .group = kMergeGroup,
                                    .partial_lse_offset = data.rows * c.dim_v,
                                    .out_offset = layout.offset,
                                    .out_token_stride = layout.token_stride,
                                    .out_head_stride = layout.head_stride,
                                    .lse_offset = 0,
                                    .sinks_offset = 0});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes out_bytes, bench.fetch(out));
    KVANT_ASSIGN(Bytes lse_bytes, bench.fetch(lse));
    return std::vector<Bytes>{std::move(out_bytes), std::move(lse_bytes)};
  };
  ProbeExecutor device(context.device);
  auto actual = run(device, false);
  if (!actual.ok()) return error_result(c, actual.status(), "device");
  result.kernel = "attend_merge";
  reference::CpuExecutor cpu;
  auto expected = run(cpu, false);
  if (!expected.ok()) return error_result(c, expected.status(), "reference");
  auto mutated = run(cpu, true);
  if (!mutated.ok()) return error_result(c, mutated.status(), "mutated reference");

  const MergeTruth truth = merge_truth(c, data);
  const auto check = [&](const std::vector<Bytes>& bytes) {
    Comparison figures = compare_bounded(unpack(layout, bytes[0], kGuardBytes), truth.out, truth.bound, truth.magnitude, c.dim_v);
    if (c.lse)
      join(figures, compare_bounded(unpack(lse_layout, bytes[1], kGuardBytes), truth.lse, truth.lse_bound, truth.lse_bound, 1), "lse");
    // Guards, gaps and, without LSE, the whole of its buffer must be as they were.
    Bytes rest = bytes[0], rest_lse = bytes[1];
    copy_elements(layout, expected.value()[0], rest, kGuardBytes);
    if (c.lse) copy_elements(lse_layout, expected.value()[1], rest_lse, kGuardBytes);
    join(figures, compare_bytes(rest, expected.value()[0]), "bytes outside the tensor");
    join(figures, compare_bytes(rest_lse, expected.value()[1]), "bytes outside the log-sum-exps");
    return figures;
  };
  result.figures = check(actual.value());
  conclude(result);
  if (const Comparison reference = check(expected.value()); !reference.equal) {
    result.status = CaseStatus::internal_error;
    result.message = "the CPU executor is outside the bound: " + reference.message;
  }
  require_caught(result, !check(mutated.value()).equal, "partials one row early");
  Bytes overrun = actual.value()[0];
  overrun.back() ^= std::byte{1};
  require_caught(result, !check({overrun, actual.value()[1]}).equal, "write behind the tensor");
  return result;
}

}  // namespace kvant::conformance
