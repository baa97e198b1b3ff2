#include "attention_run.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>

#include "cache_debug.hpp"
#include "step.hpp"
#include "probe_executor.hpp"

namespace kvant::conformance {

namespace {

// A tensor of a step: host memory or a device buffer, guarded either way.
struct StepTensor {
  TensorLayout layout;
  Bytes host;     // guard, content, guard
  Buffer buffer;  // if on the device
  TensorView view;

  void make_view() {
    view.type = layout.type;
    view.token_stride = layout.token_stride;
    view.head_stride = layout.head_stride;
    const std::uint64_t skip = std::uint64_t{layout.offset} * layout.element_bytes();
    if (buffer.id == BufferId::none) {
      view.host = host.data() + kGuardBytes + skip;
    } else {
      view.buffer = BufferRange{buffer.id, buffer.range.offset + skip, buffer.range.size - skip};
    }
  }
};

class AttentionRun {
 public:
  AttentionRun(Executor& executor, const Case& c, const AttentionInputs& inputs)
      : executor_(executor), bench_(executor), c_(c), in_(inputs) {}

  Status run(AttentionOutput& output) {
    CacheSpec spec;
    spec.layers = {LayerSpec{c_.kv_heads, c_.dim_k, c_.dim_v, c_.format_k, c_.format_v, c_.window, c_.window_sinks, c_.rotate_k, c_.rotate_v,
                              c_.centre_k, c_.centre_v, in_.means_k, in_.means_v}};
    spec.page_tokens = c_.page_tokens;
    spec.capacity_tokens = std::uint64_t{in_.pool_pages} * c_.page_tokens;
    spec.external_pages = c_.tables != Tables::sequence;
    spec.attention_mass = c_.op == Op::score;
    GeometryOptions options;
    options.max_pages_per_slab = in_.pages_per_slab;
    KVANT_ASSIGN(cache_, create_cache(executor_, spec, Log{}, options));
    if (!spec.external_pages)
      for (std::uint32_t b = 0; b < c_.batch; ++b) {
        KVANT_ASSIGN(const SequenceId id, cache_->create_sequence());
        sequences_.push_back(id);
      }
    KVANT_TRY(step(false, output));
    return step(true, output);
  }

 private:
  bool on_device() const {
    return c_.placement == Placement::buffer || (c_.placement == Placement::strided && c_.length % 2 == 0);
  }

  Status make_input(StepTensor& t, std::span<const float> values) {
    const Bytes content = pack(t.layout, values, kPoisonByte);
    if (on_device()) {
      KVANT_ASSIGN(t.buffer, bench_.make(content));
    } else {
      t.host.assign(kGuardBytes, kGuardByte);
      t.host.insert(t.host.end(), content.begin(), content.end());
      t.host.resize(t.host.size() + kGuardBytes, kGuardByte);
    }
    t.make_view();
    return {};
  }

  Status make_output(StepTensor& t) {
    const std::uint64_t size = (std::max<std::uint64_t>(t.layout.bytes(), 16) + 15) / 16 * 16;
    if (on_device()) {
      KVANT_ASSIGN(t.buffer, bench_.make_filled(size, kCanaryByte));
    } else {
      t.host.assign(static_cast<std::size_t>(size) + 2 * kGuardBytes, kGuardByte);
      std::fill(t.host.begin() + kGuardBytes, t.host.end() - kGuardBytes, kCanaryByte);
    }
    t.make_view();
    return {};
  }

  Result<Bytes> take_output(StepTensor& t) {
    if (on_device()) return bench_.fetch(t.buffer);
    return std::move(t.host);
  }

  // Tokens of the step: history (attend = false) or fresh ones, of every sequence in turn.
  std::uint32_t first_token(std::uint32_t b, bool attend) const { return attend ? in_.shapes[b].kv_len - in_.fresh[b] : 0; }
  std::uint32_t token_count(std::uint32_t b, bool attend) const {
    return attend ? in_.fresh[b] : in_.shapes[b].kv_len - in_.fresh[b];
  }

  Result<std::unique_ptr<Step>> plan(bool attend) {
    if (c_.tables == Tables::sequence) {
      std::vector<StepEntry> entries;
      for (std::uint32_t b = 0; b < c_.batch; ++b) {
        StepEntry e;
        e.sequence = sequences_[b];
        e.append = token_count(b, attend);
        e.queries = attend ? in_.shapes[b].q_len : 0;
        if (e.append == 0 && e.queries == 0) continue;
        e.explicit_positions = attend && c_.rule == MaskRule::cross;
        e.q_pos_begin = e.explicit_positions ? in_.q_position[b] : 0;
        if (attend && !in_.masks.empty()) {
          e.mask = in_.masks[b].data();
          e.mask_row_words = in_.mask_row_words;
          e.mask_kv_begin = in_.mask_kv_begin[b];
        }
        entries.push_back(e);
      }
      return cache_->plan(entries);
    }
    std::vector<std::int64_t> slots;
    std::vector<std::int32_t> qo{0}, kv{0}, indices, last;
    std::vector<std::uint32_t> mask;
    for (std::uint32_t b = 0; b < c_.batch; ++b) {
      for (std::uint32_t i = 0; i < token_count(b, attend); ++i) {
        const std::uint32_t token = first_token(b, attend) + i;
        const std::int32_t page = in_.pages[b][token / c_.page_tokens];
        slots.push_back(page < 0 ? -1 : std::int64_t{page} * c_.page_tokens + token % c_.page_tokens);
      }
      qo.push_back(qo.back() + static_cast<std::int32_t>(in_.shapes[b].q_len));
      indices.insert(indices.end(), in_.pages[b].begin(), in_.pages[b].end());
      kv.push_back(static_cast<std::int32_t>(indices.size()));
      last.push_back(static_cast<std::int32_t>((in_.shapes[b].kv_len - 1) % c_.page_tokens + 1));
      if (!in_.masks.empty()) mask.insert(mask.end(), in_.masks[b].begin(), in_.masks[b].end());
    }
    PagedBatch batch;
    batch.slot_mapping = slots;
    if (attend) {
      batch.qo_indptr = qo;
      batch.kv_indptr = kv;
      batch.kv_indices = indices;
      batch.kv_last_page_len = last;
      batch.mask = mask.empty() ? nullptr : mask.data();
      batch.mask_row_words = mask.empty() ? 0 : in_.mask_row_words;
      batch.explicit_positions = c_.rule == MaskRule::cross;
      if (batch.explicit_positions) batch.q_pos_begin = in_.q_position;
    }
    return cache_->plan_paged(batch);
  }

  Status step(bool attend, AttentionOutput& output) {
    std::uint32_t tokens = 0;
    std::vector<float> k, v, q;
    for (std::uint32_t b = 0; b < c_.batch; ++b) {
      const std::uint32_t count = token_count(b, attend);
      const auto part = [&](const std::vector<float>& rows, std::uint32_t dim) {
        const std::size_t row = std::size_t{c_.kv_heads} * dim;
        return std::span(rows).subspan(first_token(b, attend) * row, count * row);
      };
      const auto k_part = part(in_.k[b], c_.dim_k), v_part = part(in_.v[b], c_.dim_v);
      k.insert(k.end(), k_part.begin(), k_part.end());
      v.insert(v.end(), v_part.begin(), v_part.end());
      if (attend) q.insert(q.end(), in_.q[b].begin(), in_.q[b].end());
      tokens += count;
    }
    if (tokens == 0 && !attend) return {};
    RunArgs args;
    args.q_heads = c_.kv_heads * c_.group;
    StepTensor k_tensor{make_layout(c_.in, tokens, c_.kv_heads, c_.dim_k, c_.placement), {}, {}, {}};
    StepTensor v_tensor{make_layout(c_.in, tokens, c_.kv_heads, c_.dim_v, c_.placement), {}, {}, {}};
    StepTensor out{out_layout(c_, in_), {}, {}, {}}, lse{lse_layout(c_, in_), {}, {}, {}};
    StepTensor q_tensor{make_layout(c_.in, out.layout.tokens, args.q_heads, c_.dim_k, c_.placement), {}, {}, {}};
    if (tokens > 0) {
      KVANT_TRY(make_input(k_tensor, k));
      KVANT_TRY(make_input(v_tensor, v));
      args.k = k_tensor.view;
      args.v = v_tensor.view;
    }
    if (attend) {
      KVANT_TRY(make_input(q_tensor, q));
      KVANT_TRY(make_output(out));
      KVANT_TRY(make_output(lse));
      args.q = q_tensor.view;
      args.out = out.view;
      if (c_.lse) args.lse = lse.view;
      args.scale = in_.scale;
      args.soft_cap = in_.soft_cap;
      args.causal = c_.rule != MaskRule::cross;
      args.mass = c_.op == Op::score;
      args.sinks = in_.sinks.empty() ? nullptr : in_.sinks.data();
      args.alibi_slopes = in_.slopes.empty() ? nullptr : in_.slopes.data();
    }
    KVANT_ASSIGN(std::unique_ptr<Step> planned, plan(attend));
    KVANT_TRY(cache_->run(*planned, 0, args));
    KVANT_TRY(cache_->commit(std::move(planned)));
    if (!attend) return {};
    KVANT_ASSIGN(output.out, take_output(out));
    KVANT_ASSIGN(output.lse, take_output(lse));
    for (std::uint32_t b = 0; b < c_.batch && args.mass; ++b)
      for (std::uint32_t head = 0; head < c_.kv_heads; ++head) {
        std::vector<float> mass(in_.shapes[b].kv_len);
        KVANT_TRY(cache_->attention_mass(sequences_[b], 0, head, 0, mass));
        KVANT_ASSIGN(const auto pages, cache_debug(*cache_).sequence_pages(sequences_[b], 0));
        for (std::size_t t = 0; t < mass.size(); ++t)
          if (pages[t / c_.page_tokens] < 0) mass[t] = std::nanf("");
        output.mass.insert(output.mass.end(), mass.begin(), mass.end());
      }
    return {};
  }

  Executor& executor_;
  Workbench bench_;
  const Case& c_;
  const AttentionInputs& in_;
  std::unique_ptr<Cache> cache_;
  std::vector<SequenceId> sequences_;
};

}  // namespace

Result<AttentionOutput> run_attention(Executor& executor, const Case& c, const AttentionInputs& inputs, const AttendConfig* config) {
  ProbeExecutor test(executor);
  if (config != nullptr) test.force_config(*config);
  AttentionOutput output;
  AttentionRun run(test, c, inputs);
  KVANT_TRY(run.run(output));
  output.kernel = std::string(kernel_info(test.last_dispatch().kernel).name);
  output.spec.assign(test.last_dispatch().spec.begin(), test.last_dispatch().spec.end());
  return output;
}

}  // namespace kvant::conformance
