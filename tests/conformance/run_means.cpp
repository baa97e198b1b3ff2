// Runs means: one dispatch on device and CPU executor, compared bit by bit, gaps and the side that was not asked for included.
#include <algorithm>
#include <cmath>
#include <string>

#include "params/pages.h"
#include "run_case.hpp"
#include "tensor_layout.hpp"
#include "transforms.hpp"
#include "workbench.hpp"

namespace kvant::conformance {

CaseResult run_means_case(const RunContext& context, const Case& c) {
  const TensorLayout layout_k = make_layout(c.in, c.length, c.kv_heads, c.dim_k, c.placement);
  const TensorLayout layout_v = make_layout(c.in, c.length, c.kv_heads, c.dim_v, c.placement);
  auto k = make_tensor(Random(context.seed, c.name, 1), c.data, c.length, c.kv_heads, c.dim_k);
  auto v = make_tensor(Random(context.seed, c.name, 2), c.data, c.length, c.kv_heads, c.dim_v);
  // Every other head has a mean that pays, whatever the data.
  for (auto [rows, dim] : {std::pair{&k, c.dim_k}, std::pair{&v, c.dim_v}}) {
    float largest = 0.0f;
    for (const float x : *rows) largest = std::max(largest, std::fabs(x));
    if (largest == 0.0f) largest = 1.0f;
    for (std::size_t i = 0; i < rows->size(); ++i)
      if (i / dim % c.kv_heads % 2 == 0)
        (*rows)[i] += largest * (static_cast<float>(i % dim % 5) - 1.5f) * (i / dim / c.kv_heads % 2 == 0 ? 1.0f : 1.25f);
  }
  std::vector<std::int32_t> slots(4, -1);  // an offset before the first
  for (std::uint32_t i = 0; i < c.length; ++i) slots.push_back(i % 7 == 3 ? -1 : static_cast<std::int32_t>(i));
  const std::uint32_t v_means = c.kv_heads * c.dim_k + 4;
  return run_exact(context, c, "token left out", [&](Executor& executor, bool mutate) -> Result<std::vector<Bytes>> {
    auto used = slots;
    if (mutate) used[4 + c.length / 2] = used[4 + c.length / 2] < 0 ? 0 : -1;
    const auto rows = std::count_if(used.begin() + 4, used.end(), [](std::int32_t slot) { return slot >= 0; });
    Workbench bench(executor);
    KVANT_ASSIGN(const Buffer in_k, bench.make(pack(layout_k, k, kPoisonByte)));
    KVANT_ASSIGN(const Buffer in_v, bench.make(pack(layout_v, v, kPoisonByte)));
    KVANT_ASSIGN(const Buffer in_slots, bench.make(to_bytes(std::span<const std::int32_t>(used))));
    KVANT_ASSIGN(const Buffer means, bench.make_filled((std::uint64_t{v_means} + c.kv_heads * c.dim_v) * sizeof(float), kCanaryByte));
    CommandList list;
    Dispatch& d = list.add_dispatch(KernelId::means, "means", true);
    d.spec[KVANT_SPEC_LOCAL_SIZE] = executor.page_kernel_config(KernelId::means).local_size;
    d.spec[KVANT_SPEC_HEAD_DIM_K] = c.dim_k;
    d.spec[KVANT_SPEC_HEAD_DIM_V] = c.dim_v;
    d.spec[KVANT_SPEC_IO_TYPE_IN] = static_cast<std::uint32_t>(c.in);
    d.spec[KVANT_SPEC_FLAGS] = transform_flags(c);
    d.bindings = {in_k.range, in_v.range, in_slots.range, means.range};
    d.groups = {c.kv_heads, 2, 1};
    set_push(d, params::MeansParams{.tokens = c.length,
                                    .inverse = 1.0f / static_cast<float>(rows),
                                    .slots_offset = 4,
                                    .k_offset = layout_k.offset,
                                    .k_token_stride = layout_k.token_stride,
                                    .k_head_stride = layout_k.head_stride,
                                    .v_offset = layout_v.offset,
                                    .v_token_stride = layout_v.token_stride,
                                    .v_head_stride = layout_v.head_stride,
                                    .v_means_offset = v_means,
                                    .sides = c.variant});
    KVANT_TRY(bench.run(list));
    KVANT_ASSIGN(Bytes bytes, bench.fetch(means));
    return std::vector<Bytes>{std::move(bytes)};
  });
}

}  // namespace kvant::conformance
