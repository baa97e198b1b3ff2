// paged_plan, paged_read, paged_copy: caches whose page tables the engine keeps.
#include <algorithm>

#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "paged_args.hpp"
#include "tensors.hpp"

namespace kvant::abi {

kvant_error* paged_plan(kvant_cache* cache, const kvant_paged_args* args, kvant_step** out_step) {
  return guard("paged_plan", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_step, "out_step", "a place for the step"));
    KVANT_TRY(check_pages_external(*object));
    if (object->step_open) return precondition("a step of the cache is already open; commit or abort it first");
    KVANT_ASSIGN(const PagedInput input, read_paged_args(args, *object));
    auto step = std::allocate_shared<StepObject>(ReusedBlock<StepObject>(object->step_blocks), object.object());
    step->fresh_tokens = input.batch.slot_mapping.size();
    step->queries = input.queries;
    step->causal_objection = input.causal_objection;
    KVANT_ASSIGN(step->step, object->cache->plan_paged(input.batch));
    KVANT_ASSIGN(*out_step, add(step));
    object->step_open = true;
    return {};
  });
}

kvant_error* paged_read(kvant_cache* cache, std::uint32_t layer, std::uint32_t side, std::uint64_t slot_count,
                        const std::int64_t* slots, const kvant_tensor* out) {
  return guard("paged_read", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pages_external(*object));
    KVANT_TRY(check_layer(layer, object->cache->spec()));
    KVANT_ASSIGN(const Side which, check_side(side));
    if (slot_count > kMaxTokens) return invalid("slot_count (", slot_count, ") is greater than ", kMaxTokens);
    if (slot_count == 0) return {};
    KVANT_TRY(check_pointer(slots, "slots", text(slot_count, " slots")));
    const std::span<const std::int64_t> all(slots, slot_count);
    KVANT_TRY(check_slots(all, *object, "slots"));
    const LayerSpec& spec = object->cache->spec().layers[layer];
    const std::uint32_t head_dim = which == Side::k ? spec.head_dim_k : spec.head_dim_v;
    KVANT_ASSIGN(const CheckedTensor tensor,
                 check_tensor(out, {"out", slot_count, spec.kv_heads, head_dim, true}, *object->device));
    CallImports imports(object->device->executor());
    KVANT_ASSIGN(const TensorView view, make_view(tensor, object->device->executor(), imports.ids));
    return object->cache->read_slots(layer, which, all, view);
  });
}

kvant_error* paged_copy(kvant_cache* cache, std::uint32_t pair_count, const std::int32_t* source_pages,
                        const std::int32_t* destination_pages) {
  return guard("paged_copy", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pages_external(*object));
    if (pair_count == 0) return {};
    KVANT_TRY(check_pointer(source_pages, "source_pages", text(pair_count, " pages")));
    KVANT_TRY(check_pointer(destination_pages, "destination_pages", text(pair_count, " pages")));
    const std::span<const std::int32_t> source(source_pages, pair_count), destination(destination_pages, pair_count);
    KVANT_TRY(check_page_pairs(source, destination, *object));
    return object->cache->copy_pages(source, destination);
  });
}

}  // namespace kvant::abi
