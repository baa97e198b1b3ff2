// step_plan, step_run, step_commit, step_abort.
#include <algorithm>

#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "rollback.hpp"
#include "run_args.hpp"
#include "step_args.hpp"

namespace kvant::abi {

kvant_error* step_plan(kvant_cache* cache, const kvant_step_args* args, kvant_step** out_step) {
  return guard("step_plan", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_step, "out_step", "a place for the step"));
    KVANT_TRY(check_sequences_kept(*object));
    if (object->step_open) return precondition("a step of the cache is already open; commit or abort it first");
    KVANT_ASSIGN(const StepInput input, read_step_args(args, *object));

    auto step = std::allocate_shared<StepObject>(ReusedBlock<StepObject>(object->step_blocks), object.object());
    step->fresh_tokens = input.fresh_tokens;
    step->queries = input.queries;
    step->causal_objection = input.causal_objection;
    KVANT_ASSIGN(step->step, object->cache->plan(object->step_entries));
    KVANT_ASSIGN(*out_step, add(step));
    object->step_open = true;
    return {};
  });
}

kvant_error* step_run(kvant_step* step, std::uint32_t layer, const kvant_run_args* args) {
  return guard("step_run", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<StepObject>(step, "step"));
    KVANT_TRY(check_layer(layer, object->cache->cache->spec()));
    KVANT_ASSIGN(RunInput input, read_run_args(args, *object, layer));
    // Wraps may go before the work is done: the executor keeps what submitted and recorded lists name.
    CallImports imports(object->cache->device->executor());
    KVANT_TRY(make_views(input, object->cache->device->executor(), imports.ids));
    return object->cache->cache->run(*object->step, layer, input.run);
  });
}

kvant_error* step_commit(kvant_step* step) {
  return guard("step_commit", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<StepObject>(step, "step"));
    KVANT_TRY(object->cache->cache->commit(std::move(object->step)));
    object->cache->end_step();
    remove_object(step, HandleType::step);
    // The step is committed, whether there is memory to look at it or not.
    (void)within_memory([&]() -> Status {
      object->cache->observe_if_due();
      return {};
    });
    return {};
  });
}

void step_abort(kvant_step* step) {
  guard_void([&] { destroy_step(step); });
}

}  // namespace kvant::abi
