// Checks of step_run's arguments: which tensors the step calls for, head counts, numbers, the record extension.
#include "run_args.hpp"

#include <cmath>

#include "boundary.hpp"
#include "checks.hpp"

namespace kvant::abi {
namespace {

// What the step does, and how much of it: why a tensor must or must not be given.
struct Reason {
  const char* verb;
  std::uint64_t count;
  const char* what;
  std::string words() const {
    return count != 0 ? text("the step ", verb, " ", count, " ", what) : text("the step ", verb, " no ", what);
  }
};

// A tensor that the step needs, or must not be given.
Status check_wanted(const void* tensor, bool wanted, std::string_view name, const Reason& reason) {
  if (wanted && tensor == nullptr) return invalid(name, " is NULL although ", reason.words());
  if (!wanted && tensor != nullptr) return invalid(name, " is given although ", reason.words());
  return {};
}

Status check_append(const kvant_run_args& values, const StepObject& step, const LayerSpec& layer, RunInput& input) {
  const bool appends = step.fresh_tokens != 0;
  const Reason reason{"appends", step.fresh_tokens, "tokens"};
  KVANT_TRY(check_wanted(values.k, appends, "args.k", reason));
  KVANT_TRY(check_wanted(values.v, appends, "args.v", reason));
  if (!appends) return {};
  const DeviceObject& device = *step.cache->device;
  KVANT_ASSIGN(input.k, check_tensor(values.k, {"args.k", step.fresh_tokens, layer.kv_heads, layer.head_dim_k}, device));
  KVANT_ASSIGN(input.v, check_tensor(values.v, {"args.v", step.fresh_tokens, layer.kv_heads, layer.head_dim_v}, device));
  if (input.k.type != input.v.type)
    return invalid("args.v.type (", static_cast<std::uint32_t>(input.v.type), ") is not args.k.type (",
                   static_cast<std::uint32_t>(input.k.type), ")");
  return {};
}

Status check_numbers(const kvant_run_args& values) {
  if (!std::isfinite(values.scale) || values.scale < 0.0F)
    return invalid("args.scale (", values.scale, ") is not a finite number of at least 0");
  if (!std::isfinite(values.soft_cap) || values.soft_cap < 0.0F)
    return invalid("args.soft_cap (", values.soft_cap, ") is not a finite number of at least 0");
  for (std::uint32_t head = 0; head < values.q_heads; ++head) {
    if (values.sinks != nullptr && !(values.sinks[head] <= 3.4028235e38F))
      return invalid("args.sinks[", head, "] (", values.sinks[head], ") is not a finite number or minus infinity");
    if (values.alibi_slopes != nullptr && !std::isfinite(values.alibi_slopes[head]))
      return invalid("args.alibi_slopes[", head, "] (", values.alibi_slopes[head], ") is not a finite number");
  }
  return {};
}

Status check_attend(const kvant_run_args& values, const StepObject& step, const LayerSpec& layer, RunInput& input) {
  const bool attends = step.queries != 0;
  const Reason reason{"asks", step.queries, "queries"};
  KVANT_TRY(check_wanted(values.q, attends, "args.q", reason));
  KVANT_TRY(check_wanted(values.out, attends, "args.out", reason));
  if (!attends) {
    KVANT_TRY(check_wanted(values.lse, false, "args.lse", reason));
    KVANT_TRY(check_wanted(values.sinks, false, "args.sinks", reason));
    KVANT_TRY(check_wanted(values.alibi_slopes, false, "args.alibi_slopes", reason));
    if (values.q_heads != 0) return invalid("args.q_heads (", values.q_heads, ") is not 0 although ", reason.words());
    return {};
  }
  if (values.q_heads == 0 || values.q_heads > kMaxQueryHeads || values.q_heads % layer.kv_heads != 0)
    return invalid("args.q_heads (", values.q_heads, ") is not a multiple of the layer's ", layer.kv_heads,
                   " KV heads between ", layer.kv_heads, " and ", kMaxQueryHeads);
  const DeviceObject& device = *step.cache->device;
  KVANT_ASSIGN(input.q, check_tensor(values.q, {"args.q", step.queries, values.q_heads, layer.head_dim_k}, device));
  KVANT_ASSIGN(input.out,
               check_tensor(values.out, {"args.out", step.queries, values.q_heads, layer.head_dim_v, true}, device));
  if (values.lse == nullptr) return {};
  KVANT_ASSIGN(input.lse, check_tensor(values.lse, {"args.lse", step.queries, values.q_heads, 1, true, true}, device));
  if (input.lse.type != IoType::f32)
    return invalid("args.lse.type (", static_cast<std::uint32_t>(input.lse.type), ") is not KVANT_TYPE_F32 (0)");
  return {};
}

// Recording into the engine's command buffer: only on its own device, and nothing may need the host in between.
Status check_record(const kvant_next* node, const StepObject& step, RunInput& input) {
  if (node == nullptr) return {};
  kvant_vulkan_record record{};
  KVANT_TRY(read_struct(reinterpret_cast<const kvant_vulkan_record*>(node), "args.next: kvant_vulkan_record", record));
  if (!step.cache->device->borrowed)
    return precondition("args.next: kvant_vulkan_record is given, but the device was not imported by " KVANT_EXT_VULKAN);
  KVANT_TRY(check_pointer(record.command_buffer, "args.next: kvant_vulkan_record.command_buffer", "a VkCommandBuffer"));
  for (const CheckedTensor* tensor : {&input.k, &input.v, &input.q, &input.out, &input.lse})
    if (tensor->host != nullptr)
      return invalid(tensor->name, ".data is given, but a run that is recorded takes buffers only");
  input.run.command_buffer = record.command_buffer;
  return {};
}

}  // namespace

Result<RunInput> read_run_args(const kvant_run_args* args, const StepObject& step, std::uint32_t layer_index) {
  kvant_run_args values{};
  KVANT_TRY(read_struct(args, "args", values));
  KnownNext known[] = {{KVANT_NEXT_VULKAN_RECORD}};
  KVANT_TRY(walk_next(values.next, "args", known));
  constexpr std::uint32_t kFlags = KVANT_RUN_NON_CAUSAL | KVANT_RUN_INVARIANT | KVANT_RUN_MASS;
  if ((values.flags & ~kFlags) != 0)
    return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(kFlags));
  const LayerSpec& layer = step.cache->cache->spec().layers[layer_index];
  RunInput input;
  KVANT_TRY(check_append(values, step, layer, input));
  KVANT_TRY(check_attend(values, step, layer, input));
  KVANT_TRY(check_numbers(values));
  input.run.causal = (values.flags & KVANT_RUN_NON_CAUSAL) == 0;
  input.run.invariant = (values.flags & KVANT_RUN_INVARIANT) != 0;
  input.run.mass = (values.flags & KVANT_RUN_MASS) != 0;
  if (input.run.causal && !step.causal_objection.empty()) return invalid(step.causal_objection);
  const CheckedTensor* const tensors[] = {&input.k, &input.v, &input.q, &input.out, &input.lse};
  KVANT_TRY(check_no_overlap(tensors));
  KVANT_TRY(check_record(known[0].node, step, input));
  input.run.q_heads = values.q_heads;
  input.run.scale = values.scale;
  input.run.soft_cap = values.soft_cap;
  input.run.sinks = values.sinks;
  input.run.alibi_slopes = values.alibi_slopes;
  return input;
}

Status make_views(RunInput& input, Executor& executor, std::vector<BufferId>& imports) {
  KVANT_ASSIGN(input.run.k, make_view(input.k, executor, imports));
  KVANT_ASSIGN(input.run.v, make_view(input.v, executor, imports));
  KVANT_ASSIGN(input.run.q, make_view(input.q, executor, imports));
  KVANT_ASSIGN(input.run.out, make_view(input.out, executor, imports));
  KVANT_ASSIGN(input.run.lse, make_view(input.lse, executor, imports));
  return {};
}

}  // namespace kvant::abi
