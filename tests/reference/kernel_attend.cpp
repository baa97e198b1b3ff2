// Reference of attend_decode, attend_prefill and score: every work item, query and head by the textbook, in double.
#include <cmath>
#include <limits>
#include <vector>

#include "formats.hpp"
#include "kernels.hpp"
#include "params/attend.h"
#include "rotation_matrix.hpp"

namespace kvant::reference {

namespace {

struct Attention {
  KernelCall& call;
  params::AttendParams p;
  const FormatInfo& format_k;
  const FormatInfo& format_v;
  PageLayout layout_k, layout_v;
  std::uint32_t dim_k, dim_v, page_tokens, flags;
  // Decoded rows of the current item by (token, KV head); empty until a query first looks at them.
  std::vector<std::vector<float>> rows_k{}, rows_v{};

  View& meta() { return call.bindings[4]; }
  View& facts() { return call.bindings[has(KVANT_CENTRE_K) ? 4 : 6]; }  // sinks and slopes
  bool has(std::uint32_t flag) const { return (flags & flag) != 0; }
};

constexpr std::uint64_t kSeqWords = sizeof(params::AttendSeq) / 4;
constexpr std::uint64_t kItemWords = sizeof(params::AttendItem) / 4;

// May the query at position q_pos (row q_index of the sequence) see the key at position kv?
bool visible(Attention& a, const params::AttendSeq& seq, std::uint32_t q_index, std::int64_t q_pos, std::uint32_t kv) {
  const bool masked_here = a.has(KVANT_ATTEND_CUSTOM_MASK) && seq.mask_row_words != 0 && kv >= seq.mask_kv_begin;
  if (masked_here) {
    const std::uint32_t bit = kv - seq.mask_kv_begin;
    if (bit / 32 >= seq.mask_row_words) return false;
    const std::uint64_t word = std::uint64_t{seq.mask_offset} + std::uint64_t{q_index} * seq.mask_row_words + bit / 32;
    if (((a.meta().word(word) >> (bit % 32)) & 1u) == 0) return false;
  } else if (a.has(KVANT_ATTEND_CAUSAL) && static_cast<std::int64_t>(kv) > q_pos) {
    return false;
  }
  if (a.has(KVANT_ATTEND_WINDOW) && kv >= a.p.window_sinks)
    return static_cast<std::int64_t>(kv) > q_pos - static_cast<std::int64_t>(a.p.window);
  return true;
}

// What the bias adds to the logit of a key; minus infinity hides it.
double bias(Attention& a, const params::AttendSeq& seq, std::uint32_t q_index, std::uint32_t q_head, std::uint32_t kv) {
  if (!a.has(KVANT_ATTEND_BIAS)) return 0.0;
  const std::uint64_t row = std::uint64_t{seq.mask_offset} + std::uint64_t{q_index} * a.p.bias_query_stride +
                            std::uint64_t{q_head % a.p.bias_heads} * a.p.bias_head_stride;
  return load_element(a.call.bindings[7], KVANT_IO_F16, row + kv);
}

// Local page of a token, or nothing if the page is unmapped.
bool find_page(Attention& a, const params::AttendSeq& seq, std::uint32_t kv, std::uint64_t* local) {
  std::uint32_t entry = kv / a.page_tokens;
  const std::uint32_t pages = (seq.kv_len + a.page_tokens - 1) / a.page_tokens;
  if (a.call.mutation == Mutation::page_entry && pages > 1 && entry >= (pages + 1) / 2) --entry;
  const auto page = static_cast<std::int32_t>(a.meta().word(std::uint64_t{a.p.pages_offset} + seq.page_begin + entry));
  if (page < 0) return false;
  if (static_cast<std::uint32_t>(page) < a.p.page_begin) {
    a.call.log->report("page " + std::to_string(page) + " lies before the bound slab's first page " +
                       std::to_string(a.p.page_begin));
    return false;
  }
  *local = static_cast<std::uint32_t>(page) - a.p.page_begin;
  return true;
}

// The decoded row of a token of the item; only rows that a query may see are ever read.
const std::vector<float>& decoded_row(Attention& a, bool is_k, const params::AttendItem& item, std::uint32_t kv,
                                      std::uint64_t local, std::uint32_t kv_head) {
  auto& row = (is_k ? a.rows_k : a.rows_v)[std::size_t{kv - item.kv_begin} * a.p.kv_heads + kv_head];
  if (!row.empty()) return row;
  const PageLayout& layout = is_k ? a.layout_k : a.layout_v;
  View& view = a.call.bindings[is_k ? 0 : 1];
  row.assign(is_k ? a.dim_k : a.dim_v, 0.0f);
  if (const std::byte* head = view.range((local * a.p.kv_heads + kv_head) * layout.head_bytes, layout.head_bytes, "reads"))
    decode_planar_row(is_k ? a.format_k : a.format_v, layout, head, kv % a.page_tokens, row);
  return row;
}

struct Key {
  std::uint32_t kv;
  std::uint64_t local;
  double logit;
};

// The logits of one query head over the item's visible keys.
std::vector<Key> logits(Attention& a, const params::AttendSeq& seq, const params::AttendItem& item, std::uint32_t query,
                        std::uint32_t q_head, std::uint32_t kv_head) {
  const std::uint32_t q_index = item.q_begin + query;
  const std::int64_t q_pos = std::int64_t{seq.q_pos_begin} + q_index;
  const std::uint64_t q_first = std::uint64_t{a.p.q_offset} + std::uint64_t{seq.q_begin + q_index} * a.p.q_token_stride +
                                std::uint64_t{q_head} * a.p.q_head_stride;
  std::vector<double> q(a.dim_k);
  for (std::uint32_t d = 0; d < a.dim_k; ++d)
    q[d] = load_element(a.call.bindings[2], a.call.spec[KVANT_SPEC_IO_TYPE_IN], q_first + d);
  if (a.has(KVANT_ROTATE_K)) q = rotated(q);
  if (a.call.mutation == Mutation::swap_heads && a.p.kv_heads == 1)
    for (double& x : q) x = -x;
  double shift = 0.0;
  for (std::uint32_t d = 0; a.has(KVANT_CENTRE_K) && d < a.dim_k; ++d)
    shift += q[d] * static_cast<double>(a.call.bindings[6].float_at(std::uint64_t{kv_head} * a.dim_k + d));
  std::vector<Key> keys;
  for (std::uint32_t kv = item.kv_begin; kv < item.kv_end && a.call.log->empty(); ++kv) {
    Key key{kv, 0, 0.0};
    if (!visible(a, seq, q_index, q_pos, kv) || !find_page(a, seq, kv, &key.local)) continue;
    const double added = bias(a, seq, q_index, q_head, kv);
    if (added == -std::numeric_limits<double>::infinity()) continue;
    const std::vector<float>& row = decoded_row(a, true, item, kv, key.local, kv_head);
    double s = shift;
    for (std::uint32_t d = 0; d < a.dim_k; ++d) s += q[d] * static_cast<double>(row[d]);
    s *= static_cast<double>(a.p.scale);
    if (a.has(KVANT_ATTEND_SOFT_CAP)) s = static_cast<double>(a.p.soft_cap) * std::tanh(s / static_cast<double>(a.p.soft_cap));
    const double distance = static_cast<double>(std::int64_t{kv} - q_pos);
    if (a.has(KVANT_ATTEND_ALIBI))
      s += static_cast<double>(a.facts().float_at(std::uint64_t{a.p.slopes_offset} + q_head)) *
           (a.has(KVANT_ATTEND_BIAS) ? added : distance);
    else
      s += added;
    key.logit = s;
    keys.push_back(key);
  }
  if (a.call.mutation == Mutation::drop_token && !keys.empty()) {
    std::size_t heaviest = 0;
    for (std::size_t i = 1; i < keys.size(); ++i)
      if (keys[i].logit > keys[heaviest].logit) heaviest = i;
    keys.erase(keys.begin() + static_cast<std::ptrdiff_t>(heaviest));
  }
  if (a.call.mutation == Mutation::drop_half)
    keys.erase(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>((keys.size() + 1) / 2));
  return keys;
}

void attend_row(Attention& a, const params::AttendSeq& seq, const params::AttendItem& item, std::uint32_t query,
                std::uint32_t q_head) {
  std::uint32_t kv_head = q_head / (a.p.q_heads / a.p.kv_heads);
  if (a.call.mutation == Mutation::swap_heads) kv_head = (kv_head + 1) % a.p.kv_heads;
  const std::vector<Key> keys = logits(a, seq, item, query, q_head, kv_head);
  const bool is_final = item.partial_row == KVANT_ITEM_FINAL;
  double largest = -std::numeric_limits<double>::infinity();
  for (const Key& key : keys) largest = std::max(largest, key.logit);
  const bool use_sink = is_final && a.has(KVANT_ATTEND_SINKS);
  const double sink = use_sink ? static_cast<double>(a.facts().float_at(std::uint64_t{a.p.sinks_offset} + q_head)) : 0.0;
  if (use_sink) largest = std::max(largest, sink);

  std::vector<double> out(a.dim_v, 0.0);
  double sum = use_sink ? std::exp(sink - largest) : 0.0;
  for (const Key& key : keys) {
    const double weight = std::exp(key.logit - largest);
    sum += weight;
    const std::vector<float>& row = decoded_row(a, false, item, key.kv, key.local, kv_head);
    const bool grow = a.call.mutation == Mutation::scales || (a.call.mutation == Mutation::scale && &key == keys.data());
    for (std::uint32_t d = 0; d < a.dim_v; ++d) out[d] += weight * static_cast<double>(row[d]) * (grow ? 1.5 : 1.0);
  }
  if (sum > 0.0)
    for (double& x : out) x /= sum;
  const double lse = sum > 0.0 ? largest + std::log(sum) : -std::numeric_limits<double>::infinity();

  if (is_final) {
    if ((a.has(KVANT_ROTATE_V) || a.has(KVANT_CENTRE_V)) && item.kv_begin != item.kv_end) {
      a.call.log->report("an item with keys is final although V is rotated or centred");
      return;
    }
    const std::uint64_t q_row = std::uint64_t{seq.q_begin} + item.q_begin + query;
    const std::uint64_t first = a.p.out_offset + q_row * a.p.out_token_stride + std::uint64_t{q_head} * a.p.out_head_stride;
    for (std::uint32_t d = 0; d < a.dim_v; ++d)
      store_element(a.call.bindings[3], a.call.spec[KVANT_SPEC_IO_TYPE_OUT], first + d, out[d]);
    if (a.has(KVANT_ATTEND_LSE))
      a.call.bindings[7].store((a.p.lse_offset + q_row * a.p.q_heads + q_head) * 4, static_cast<float>(lse));
  } else {
    const std::uint64_t partial = std::uint64_t{item.partial_row} + std::uint64_t{query} * a.p.q_heads + q_head;
    for (std::uint32_t d = 0; d < a.dim_v; ++d)
      a.call.bindings[5].store((partial * a.dim_v + d) * 4, static_cast<float>(out[d]));
    a.call.bindings[5].store((a.p.partial_lse_offset + partial) * 4, static_cast<float>(lse));
  }
}

// The weights of one query head's keys, by the log-sum-exp that its attention has left, added to their masses.
void score_row(Attention& a, const params::AttendSeq& seq, const params::AttendItem& item, std::uint32_t query,
               std::uint32_t q_head) {
  std::uint32_t kv_head = q_head / (a.p.q_heads / a.p.kv_heads);
  const std::uint64_t q_row = std::uint64_t{seq.q_begin} + item.q_begin + query;
  const auto lse = static_cast<double>(a.call.bindings[7].float_at(a.p.lse_offset + q_row * a.p.q_heads + q_head));
  if (std::isinf(lse)) return;
  if (a.call.mutation == Mutation::swap_heads) kv_head = (kv_head + 1) % a.p.kv_heads;
  for (const Key& key : logits(a, seq, item, query, q_head, kv_head)) {
    const double exact = std::exp(key.logit - lse);
    const double weight = exact <= 1.0 ? exact : exact > 1.0 ? 1.0 : 0.0;  // one that is no number counts as none
    const std::uint64_t at = (std::uint64_t{a.p.mass_offset} + key.local * a.p.mass_page_stride +
                              (kv_head * a.page_tokens + key.kv % a.page_tokens) * 2u) * 4;
    const auto units = static_cast<std::uint64_t>(weight * 4294967296.0);
    a.call.bindings[1].store(at, a.call.bindings[1].load<std::uint64_t>(at) + units);
  }
}

using RowFunction = void (*)(Attention&, const params::AttendSeq&, const params::AttendItem&, std::uint32_t, std::uint32_t);

void run_rows(KernelCall& call, RowFunction run_row) {
  const auto k = format_from_id(call.spec[KVANT_SPEC_FORMAT_K]);
  const auto v = format_from_id(call.spec[KVANT_SPEC_FORMAT_V]);
  const std::uint32_t page_tokens = call.spec[KVANT_SPEC_PAGE_TOKENS];
  const auto p = call.params<params::AttendParams>();
  if (!k || !v || p.kv_heads == 0 || p.q_heads % p.kv_heads != 0 || !is_page_size(page_tokens)) {
    call.log->report("attention with invalid formats, heads or page_tokens");
    return;
  }
  const std::uint32_t dim_k = call.spec[KVANT_SPEC_HEAD_DIM_K], dim_v = call.spec[KVANT_SPEC_HEAD_DIM_V];
  Attention a{call, p, format_info(*k), format_info(*v), page_layout(format_info(*k), dim_k, page_tokens),
              page_layout(format_info(*v), dim_v, page_tokens), dim_k, dim_v, page_tokens, call.spec[KVANT_SPEC_FLAGS]};
  if (a.has(KVANT_ATTEND_BIAS) &&
      (p.bias_heads == 0 || a.has(KVANT_ATTEND_CUSTOM_MASK) || a.has(KVANT_ATTEND_LSE) || run_row != attend_row)) {
    call.log->report("a bias without heads, or with a custom mask, log-sum-exps or score, which take its place");
    return;
  }
  const std::uint32_t group = p.q_heads / p.kv_heads;
  const std::uint32_t per_tile = call.spec[KVANT_SPEC_HEADS_PER_TILE];
  if (per_tile == 0 || call.groups[1] != p.kv_heads * ((group + per_tile - 1) / per_tile)) {
    call.log->report("grid has " + std::to_string(call.groups[1]) + " rows for " + std::to_string(p.kv_heads) +
                     " KV heads, group " + std::to_string(group) + " and heads_per_tile " + std::to_string(per_tile));
    return;
  }
  for (std::uint32_t i = 0; i < call.groups[0] && call.log->empty(); ++i) {
    const auto item = a.meta().load<params::AttendItem>(
        (p.items_offset + std::uint64_t{p.item_begin + i} * kItemWords) * 4);
    const auto seq = a.meta().load<params::AttendSeq>((p.seqs_offset + std::uint64_t{item.seq} * kSeqWords) * 4);
    const std::uint32_t kv_limit = call.spec[KVANT_SPEC_KV_PER_ITEM];
    if (item.q_count == 0 || item.q_count > call.spec[KVANT_SPEC_QUERIES_PER_ITEM] || item.kv_begin % page_tokens != 0 ||
        item.kv_begin > item.kv_end || item.kv_end > seq.kv_len || item.q_begin + item.q_count > seq.q_len ||
        (kv_limit != 0 && item.kv_end - item.kv_begin > kv_limit)) {
      call.log->report("work item " + std::to_string(p.item_begin + i) + " (queries " + std::to_string(item.q_begin) + " + " +
                       std::to_string(item.q_count) + ", keys " + std::to_string(item.kv_begin) + " to " +
                       std::to_string(item.kv_end) + ") breaks the rules of params/attend.h");
      return;
    }
    const std::size_t cells = std::size_t{item.kv_end - item.kv_begin} * p.kv_heads;
    a.rows_k.assign(cells, {});
    a.rows_v.assign(cells, {});
    for (std::uint32_t query = 0; query < item.q_count; ++query)
      for (std::uint32_t head = 0; head < p.q_heads && call.log->empty(); ++head) run_row(a, seq, item, query, head);
  }
}

}  // namespace

void run_attend(KernelCall& call) { run_rows(call, attend_row); }

void run_score(KernelCall& call) { run_rows(call, score_row); }

}  // namespace kvant::reference
