// Metamorphic cases: two ways to one result that must agree, bit for bit where only the placement of data differs,
// within the error bounds where the order of additions differs.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "attention_run.hpp"

namespace kvant::conformance {

namespace {

// The case's inputs with the sequences in reverse order; everything of a sequence moves with it.
AttentionInputs reversed(const AttentionInputs& in) {
  AttentionInputs out = in;
  const auto flip = [](auto& list) { std::reverse(list.begin(), list.end()); };
  flip(out.shapes);
  flip(out.fresh);
  flip(out.k);
  flip(out.v);
  flip(out.q);
  flip(out.pages);
  flip(out.q_position);
  return out;
}

// Rows of the reversed batch, brought back into the order of the case.
Bytes unreverse(const Bytes& bytes, const AttentionInputs& in, std::size_t row_bytes) {
  Bytes out(bytes.begin(), bytes.begin() + kGuardBytes);
  std::vector<std::size_t> first(in.shapes.size());
  std::size_t at = kGuardBytes;
  for (std::size_t b = in.shapes.size(); b-- > 0;) {
    first[b] = at;
    at += in.shapes[b].q_len * row_bytes;
  }
  for (std::size_t b = 0; b < in.shapes.size(); ++b)
    out.insert(out.end(), bytes.begin() + static_cast<std::ptrdiff_t>(first[b]),
               bytes.begin() + static_cast<std::ptrdiff_t>(first[b] + in.shapes[b].q_len * row_bytes));
  out.insert(out.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end());
  return out;
}

Comparison compare_outputs(const AttentionOutput& a, const AttentionOutput& b) {
  Comparison figures = compare_bytes(a.out, b.out);
  join(figures, compare_bytes(a.lse, b.lse), "lse");
  return figures;
}

// The same on the device opened anew with the pipelines that an earlier opening of it left on disk.
Result<AttentionOutput> run_from_cached_pipelines(const RunContext& context, const Case& c,
                                                  const AttentionInputs& inputs) {
  std::string folder = (std::filesystem::temp_directory_path() / "kvant_pipelines_XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr)
    return Status(StatusCode::unavailable, "no temporary folder can be made: " + folder);
  const auto remove = [](const std::string* path) {
    std::error_code ignored;
    std::filesystem::remove_all(*path, ignored);
  };
  const std::unique_ptr<const std::string, decltype(remove)> cleanup(&folder, remove);
  const auto run = [&]() -> Result<AttentionOutput> {
    KVANT_ASSIGN(const std::unique_ptr<DeviceContext> device, context.reopen(folder));
    return run_attention(device->executor(), c, inputs, &c.config);
  };
  KVANT_ASSIGN(const AttentionOutput cold, run());
  if (std::filesystem::is_empty(folder))
    return Status(StatusCode::internal, "the device left no pipelines in " + folder);
  KVANT_ASSIGN(AttentionOutput cached, run());
  if (!compare_outputs(cached, cold).equal)
    return Status(StatusCode::internal, "cached pipelines compute other bits than freshly compiled ones");
  return cached;
}

}  // namespace

CaseResult run_relation_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  AttentionInputs inputs = make_attention_inputs(context.seed, c);
  inputs.pages_per_slab = 0;
  const reference::DenseResult truth = attention_truth(c, inputs);
  auto first = run_attention(context.device, c, inputs, &c.config);
  if (!first.ok()) return error_result(c, first.status(), "device");
  result.kernel = first->kernel;
  result.spec = first->spec;

  AttentionInputs other = inputs;
  AttendConfig config = c.config;
  bool exact = true;
  switch (c.relation) {
    case Relation::shuffle: {
      const auto order = Random(context.seed, c.name, 900).permutation(inputs.pool_pages);
      for (auto& pages : other.pages)
        for (std::int32_t& page : pages) page = static_cast<std::int32_t>(order[static_cast<std::size_t>(page)]);
      break;
    }
    case Relation::splits:
      config.kv_split = c.page_tokens;
      exact = false;
      break;
    case Relation::batch_order:
      other = reversed(inputs);
      break;
    case Relation::slabs:
      other.pages_per_slab = 3;
      exact = false;
      break;
    case Relation::twice:
    case Relation::pipelines:
    case Relation::count:
      break;
  }
  auto second = c.relation == Relation::pipelines ? run_from_cached_pipelines(context, c, inputs)
                                                  : run_attention(context.device, c, other, &config);
  if (!second.ok()) return error_result(c, second.status(), "device, second way");
  if (c.relation == Relation::batch_order) {
    const TensorLayout layout = out_layout(c, inputs), cells = lse_layout(c, inputs);
    second->out = unreverse(second->out, inputs, std::size_t{layout.token_stride} * layout.element_bytes());
    second->lse = unreverse(second->lse, inputs, std::size_t{cells.token_stride} * cells.element_bytes());
  }

  AttentionInputs changed = inputs;
  // In every key's row: the weight of a single one may be as small as the bound.
  for (std::size_t at = 0; at < changed.v[0].size(); at += std::size_t{c.kv_heads} * c.dim_v) changed.v[0][at] += 8.0f;
  auto wrong = run_attention(context.device, c, changed, &c.config);
  if (!wrong.ok()) return error_result(c, wrong.status(), "device, changed input");
  const char* fault = "an element of V changed in every row";
  if (exact) {
    result.check = "exact";
    result.figures = compare_outputs(second.value(), first.value());
    conclude(result);
    require_caught(result, !compare_outputs(wrong.value(), first.value()).equal, fault);
  } else {
    result.check = "reduction";
    result.figures = check_attention(c, inputs, truth, second.value());
    join(result.figures, check_attention(c, inputs, truth, first.value()), "first way");
    conclude(result);
    require_caught(result, !check_attention(c, inputs, truth, wrong.value()).equal, fault);
  }
  return result;
}

}  // namespace kvant::conformance
