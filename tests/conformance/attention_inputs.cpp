// Makes the inputs of attention cases, and the oracle's answer to them.
#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "attention_run.hpp"
#include "formats.hpp"
#include "rotation.hpp"
#include "rotation_truth.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

enum Stream : std::uint64_t { stream_k = 1, stream_v = 100, stream_q = 200, stream_pages = 300, stream_mask = 301, stream_heads = 302 };

void make_pages(std::uint64_t seed, const Case& c, AttentionInputs& in) {
  std::uint32_t total = 3;  // spare pages stay poisoned
  for (const SequenceShape& s : in.shapes) total += (s.kv_len + c.page_tokens - 1) / c.page_tokens;
  in.pool_pages = total;
  auto order = Random(seed, c.name, stream_pages).permutation(total);
  if (c.tables != Tables::shuffled)
    for (std::uint32_t i = 0; i < total; ++i) order[i] = i;
  std::uint32_t next = 0;
  for (const SequenceShape& s : in.shapes) {
    std::vector<std::int32_t> pages;
    for (std::uint32_t i = 0; i * c.page_tokens < s.kv_len; ++i) pages.push_back(static_cast<std::int32_t>(order[next++]));
    if (c.holes && pages.size() >= 3) pages[pages.size() / 2] = -1;
    in.pages.push_back(std::move(pages));
  }
}

// Custom masks: in the engine's tables over all keys; in the cache's own over the fresh tokens, as random bits. Every fifth row
// sees nothing of what the mask decides. Of a tree every node sees the history, its ancestors and itself.
void make_masks(std::uint64_t seed, const Case& c, AttentionInputs& in) {
  const Random random(seed, c.name, stream_mask);
  std::uint32_t widest = 1;
  for (std::size_t b = 0; b < in.shapes.size(); ++b) {
    in.mask_kv_begin.push_back(c.tables == Tables::sequence ? in.shapes[b].kv_len - in.fresh[b] : 0);
    widest = std::max(widest, (in.shapes[b].kv_len - in.mask_kv_begin[b] + 31) / 32);
  }
  in.mask_row_words = widest;
  std::uint64_t n = 0;
  for (std::size_t b = 0; b < in.shapes.size(); ++b) {
    std::vector<std::uint32_t> rows(std::size_t{in.shapes[b].q_len} * widest, 0);
    if (c.rule == MaskRule::tree) {
      const std::uint32_t history = in.shapes[b].kv_len - in.fresh[b] - in.mask_kv_begin[b];
      const auto see = [&](std::uint32_t query, std::uint32_t bit) {
        rows[std::size_t{query} * widest + bit / 32] |= 1u << (bit % 32);
      };
      for (std::uint32_t node = 0; node < in.shapes[b].q_len; ++node) {
        const auto parent = static_cast<std::uint32_t>(random.bits(n++) % (node + 1));  // node itself: a root
        if (parent != node)
          std::copy_n(rows.begin() + std::ptrdiff_t{parent} * widest, widest, rows.begin() + std::ptrdiff_t{node} * widest);
        for (std::uint32_t bit = 0; bit < history; ++bit) see(node, bit);
        see(node, history + node);
      }
      in.masks.push_back(std::move(rows));
      continue;
    }
    for (std::uint32_t query = 0; query < in.shapes[b].q_len; ++query)
      for (std::uint32_t bit = 0; bit < widest * 32; ++bit)
        if (query % 5 != 4 && random.uniform(n++) < 0.65) rows[std::size_t{query} * widest + bit / 32] |= 1u << (bit % 32);
    if (b == 0) rows[0] |= 1u;  // somebody sees something, also where every sequence has one key
    in.masks.push_back(std::move(rows));
  }
}

}  // namespace

AttentionInputs make_attention_inputs(std::uint64_t seed, const Case& c) {
  AttentionInputs in;
  in.shapes = sequence_shapes(c);
  const std::uint32_t q_heads = c.kv_heads * c.group;
  for (std::uint32_t b = 0; b < c.batch; ++b) {
    const SequenceShape& s = in.shapes[b];
    in.fresh.push_back(c.rule == MaskRule::cross ? 0 : s.q_len);
    in.k.push_back(round_to(c.in, make_tensor(Random(seed, c.name, stream_k + b), c.data, s.kv_len, c.kv_heads, c.dim_k)));
    in.v.push_back(round_to(c.in, make_tensor(Random(seed, c.name, stream_v + b), c.data, s.kv_len, c.kv_heads, c.dim_v)));
    in.q.push_back(round_to(c.in, make_tensor(Random(seed, c.name, stream_q + b), DataClass::normal, s.q_len, q_heads, c.dim_k)));
    in.q_position.push_back(c.rule == MaskRule::cross ? static_cast<std::int32_t>(5 + 3 * b)
                                                      : static_cast<std::int32_t>(s.kv_len - s.q_len));
  }
  in.means_k = given_means(seed, c, Side::k, c.kv_heads);
  in.means_v = given_means(seed, c, Side::v, c.kv_heads);
  in.stored_k = stored_means(seed, c, Side::k, c.kv_heads);
  in.stored_v = stored_means(seed, c, Side::v, c.kv_heads);
  make_pages(seed, c, in);
  if (c.rule == MaskRule::custom || c.rule == MaskRule::tree) make_masks(seed, c, in);
  const Random heads(seed, c.name, stream_heads);
  for (std::uint32_t h = 0; h < q_heads; ++h) {
    if (c.sinks) in.sinks.push_back(static_cast<float>(heads.normal(h)));
    if (c.alibi) in.slopes.push_back(static_cast<float>(std::exp2(-8.0 * (h + 1) / q_heads)));
  }
  in.scale = heads.bits(1000) % 2 == 0 ? 0.0f : 0.11f;
  if (c.data == DataClass::huge) in.scale = 0x1p-20f;  // logits of common size
  in.soft_cap = c.soft_cap ? 3.0f : 0.0f;
  in.pages_per_slab = heads.bits(1001) % 3 == 0 ? std::max(2u, in.pool_pages / 3) : 0;
  return in;
}

reference::DenseProblem attention_problem(const Case& c, const AttentionInputs& in) {
  reference::DenseProblem p;
  p.q_heads = c.kv_heads * c.group;
  p.kv_heads = c.kv_heads;
  p.dim_k = c.dim_k;
  p.dim_v = c.dim_v;
  p.causal = c.rule != MaskRule::cross;
  p.window = c.window;
  p.window_sinks = c.window_sinks;
  p.scale = in.scale == 0.0f ? static_cast<double>(static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.dim_k))))
                             : static_cast<double>(in.scale);
  p.soft_cap = static_cast<double>(in.soft_cap);
  p.sinks = in.sinks;
  p.slopes = in.slopes;
  const std::uint32_t needs = kernel_info(c.config.kernel).needs;
  if ((needs & kernel_needs_fp16) != 0) p.arithmetic = reference::Arithmetic::f16;
  if ((needs & kernel_needs_coopmat) != 0) p.arithmetic = reference::Arithmetic::matrix;
  if ((needs & kernel_needs_int_dot) != 0) p.arithmetic = reference::Arithmetic::int_dot;
  // One unit in the last place: conversions of the output may round to nearest or toward zero.
  if (c.out == IoType::f16) p.out_rounding = 0x1p-10, p.out_step = 0x1p-24;
  if (c.out == IoType::bf16) p.out_rounding = 0x1p-7;
  // What lies in the pages. Where K is rotated the problem is that of rotated keys and queries, whose f32 values are certain; where V is,
  // the result is taken back afterwards (attention_truth).
  p.mean_k = in.stored_k;
  p.mean_v = in.stored_v;
  const auto decoded = [&](FormatId id, std::vector<float> rows, std::uint32_t dim, Side side) {
    const FormatInfo& format = format_info(id);
    store_rows(rows, c, side, side == Side::k ? in.stored_k : in.stored_v);
    Bytes row(static_cast<std::size_t>(canonical_row_bytes(format, dim)));
    std::vector<float> out(rows.size());
    for (std::size_t at = 0; at < rows.size(); at += dim) {
      encode_canonical_row(format, std::span(rows).subspan(at, dim), row);
      decode_canonical_row(format, row, std::span(out).subspan(at, dim));
    }
    return out;
  };
  std::uint32_t q_begin = 0;
  for (std::uint32_t b = 0; b < c.batch; ++b) {
    reference::DenseSequence s;
    s.k = decoded(c.format_k, in.k[b], c.dim_k, Side::k);
    s.v = decoded(c.format_v, in.v[b], c.dim_v, Side::v);
    s.kv_len = in.shapes[b].kv_len;
    s.q_len = in.shapes[b].q_len;
    s.q_begin = q_begin;
    s.q_position = in.q_position[b];
    s.mapped.resize(s.kv_len, 1);
    for (std::uint32_t kv = 0; kv < s.kv_len; ++kv) s.mapped[kv] = in.pages[b][kv / c.page_tokens] >= 0 ? 1 : 0;
    if (!in.masks.empty()) {
      s.mask = in.masks[b];
      s.mask_row_words = in.mask_row_words;
      s.mask_kv_begin = in.mask_kv_begin[b];
    }
    std::vector<float> q = in.q[b];
    for (std::size_t at = 0; c.rotate_k && at < q.size(); at += c.dim_k) rotate_row(std::span(q).subspan(at, c.dim_k));
    p.q.insert(p.q.end(), q.begin(), q.end());
    q_begin += s.q_len;
    p.sequences.push_back(std::move(s));
  }
  return p;
}

reference::DenseResult attention_truth(const Case& c, const AttentionInputs& in) {
  reference::DenseProblem problem = attention_problem(c, in);
  if (!c.rotate_v) return reference::dense_attention(problem);
  const double rounding = std::exchange(problem.out_rounding, 0x1p-24), step = std::exchange(problem.out_step, 0.0);
  reference::DenseResult result = reference::dense_attention(problem);
  take_back(result.out, result.out_bound, result.weight, c.dim_v, rounding, step);
  return result;
}

TensorLayout out_layout(const Case& c, const AttentionInputs& in) {
  std::uint32_t rows = 0;
  for (const SequenceShape& s : in.shapes) rows += s.q_len;
  return make_layout(c.out, rows, c.kv_heads * c.group, c.dim_v, c.placement);
}

TensorLayout lse_layout(const Case& c, const AttentionInputs& in) {
  return make_layout(IoType::f32, out_layout(c, in).tokens, c.kv_heads * c.group, 1, Placement::buffer);
}

Comparison check_attention(const Case& c, const AttentionInputs& in, const reference::DenseResult& truth,
                           const AttentionOutput& output) {
  const auto outside = [](const TensorLayout& layout, const Bytes& bytes) {
    // Everything that is no element still holds what it held before: canary inside, guard bytes around.
    Bytes expected(bytes.size(), kGuardByte);
    std::fill(expected.begin() + kGuardBytes, expected.end() - kGuardBytes, kCanaryByte);
    copy_elements(layout, bytes, expected, kGuardBytes);
    return compare_bytes(bytes, expected);
  };
  const TensorLayout layout = out_layout(c, in);
  Comparison figures = compare_bounded(unpack(layout, output.out, kGuardBytes), truth.out, truth.out_bound, truth.weight, c.dim_v, truth.row_share);
  const bool zero = figures.reference_is_zero;
  join(figures, outside(layout, output.out), "bytes outside the tensor");
  if (c.lse) {
    const TensorLayout cells = lse_layout(c, in);
    join(figures, compare_bounded(unpack(cells, output.lse, kGuardBytes), truth.lse, truth.lse_bound, truth.lse_bound, 1), "lse");
    join(figures, outside(cells, output.lse), "bytes outside the log-sum-exps");
  }
  figures.reference_is_zero = zero;
  return figures;
}

}  // namespace kvant::conformance
