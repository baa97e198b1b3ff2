// Reference of attend_merge: partial means weighted by their log-sum-exps.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.hpp"
#include "params/attend.h"
#include "rotation_matrix.hpp"

namespace kvant::reference {

void run_merge(KernelCall& call) {
  const auto p = call.params<params::MergeParams>();
  const std::uint32_t dim = call.spec[KVANT_SPEC_HEAD_DIM_V];
  const std::uint32_t flags = call.spec[KVANT_SPEC_FLAGS];
  View& partial = call.bindings[0];
  for (std::uint32_t i = 0; i < call.groups[0]; ++i) {
    const auto item = call.bindings[2].load<params::MergeItem>(
        (p.items_offset + std::uint64_t{p.item_begin + i} * (sizeof(params::MergeItem) / 4)) * 4);
    for (std::uint32_t head = 0; head < p.q_heads && call.log->empty(); ++head) {
      const auto row_of = [&](std::uint32_t split) {
        return std::uint64_t{item.partial_row} + std::uint64_t{split} * item.split_stride + head;
      };
      double largest = -std::numeric_limits<double>::infinity();
      const bool use_sink = (flags & KVANT_ATTEND_SINKS) != 0;
      const double sink = use_sink ? static_cast<double>(call.bindings[3].float_at(std::uint64_t{p.sinks_offset} + head)) : 0.0;
      if (use_sink) largest = sink;
      for (std::uint32_t s = 0; s < item.split_count; ++s)
        largest = std::max(largest, static_cast<double>(partial.float_at(p.partial_lse_offset + row_of(s))));
      std::vector<double> out(dim, 0.0);
      double sum = use_sink ? std::exp(sink - largest) : 0.0;
      for (std::uint32_t s = 0; s < item.split_count; ++s) {
        const double lse = static_cast<double>(partial.float_at(p.partial_lse_offset + row_of(s)));
        if (std::isinf(lse) && lse < 0) continue;  // no visible key: its mean is not looked at
        const double weight = std::exp(lse - largest);
        sum += weight;
        for (std::uint32_t d = 0; d < dim; ++d)
          out[d] += weight * static_cast<double>(partial.float_at(row_of(s) * dim + d));
      }
      for (double& x : out) x = sum > 0.0 ? x / sum : 0.0;
      if ((flags & KVANT_CENTRE_V) != 0 && sum > 0.0) {
        const double keys = sum - (use_sink ? std::exp(sink - largest) : 0.0);
        for (std::uint32_t d = 0; d < dim; ++d)
          out[d] += keys / sum * static_cast<double>(call.bindings[5].float_at(std::uint64_t{head / p.group} * dim + d));
      }
      if ((flags & KVANT_ROTATE_V) != 0) out = rotated_back(out);
      const std::uint64_t first =
          p.out_offset + std::uint64_t{item.q_row} * p.out_token_stride + std::uint64_t{head} * p.out_head_stride;
      for (std::uint32_t d = 0; d < dim; ++d)
        store_element(call.bindings[1], call.spec[KVANT_SPEC_IO_TYPE_OUT], first + d, out[d]);
      if ((flags & KVANT_ATTEND_LSE) != 0) {
        const double lse = sum > 0.0 ? largest + std::log(sum) : -std::numeric_limits<double>::infinity();
        call.bindings[4].store((p.lse_offset + std::uint64_t{item.q_row} * p.q_heads + head) * 4, static_cast<float>(lse));
      }
    }
  }
}

}  // namespace kvant::reference
