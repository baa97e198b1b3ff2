// Attention cases that walk an axis whole where a covering array only pairs it: every config of every module for every
// head size, draft trees, and wide batches.
#include <array>

#include "attend_case.hpp"
#include "attend_configs.hpp"
#include "cases.hpp"

namespace kvant::conformance {

namespace {

struct Dims {
  std::uint32_t k, v;
};
constexpr std::array<Dims, 9> kDims{
    {{32, 32}, {40, 40}, {64, 64}, {80, 80}, {96, 96}, {128, 128}, {192, 128}, {256, 256}, {576, 512}}};

FormatId format_at(std::size_t index) { return formats()[index % formats().size()].id; }

// Every config that tuning can choose for a head size, with every K format; modules with subgroup operations have
// configs for six subgroup sizes, of which a device runs its own, so each of theirs gets two formats.
void add_configs(std::vector<Case>& out, KernelId module) {
  const bool subgroups = (kernel_info(module).needs & kernel_needs_subgroup) != 0;
  std::uint32_t n = 0;
  for (const Dims dims : kDims)
    for (std::uint32_t format = 0; format < formats().size(); ++format)
      for (std::uint32_t config = 0;; ++config) {
        Case c;
        c.format_k = format_at(format);
        c.format_v = format_at(format * 3 + config + n / 7);
        c.dim_k = dims.k;
        c.dim_v = dims.v;
        c.kv_heads = 1 + n % 2;
        c.group = std::array<std::uint32_t, 5>{4, 1, 7, 2, 16}[n % 5];
        c.queries = is_prefill(module) ? std::array<std::uint32_t, 3>{33, 16, 5}[n % 3] : 1 + n % 2;
        c.page_tokens = n % 3 == 0 ? 32 : 16;
        c.length = std::array<std::uint32_t, 5>{97, 48, 33, 130, 17}[n / 2 % 5];
        c.tables = n % 2 == 0 ? Tables::shuffled : Tables::sequence;
        c.lse = n % 4 == 0;
        c.in = n % 3 == 0 ? IoType::f16 : n % 3 == 1 ? IoType::f32 : IoType::bf16;
        c.out = n % 5 == 0 ? IoType::f16 : IoType::f32;
        c.placement = n % 2 == 0 ? Placement::buffer : Placement::host;
        const std::size_t configs = module_configs(module, attend_shape(c)).size();
        if (config >= configs) break;
        ++n;
        if (!module_takes(module, static_cast<std::uint32_t>(c.format_k))) continue;
        if (subgroups && (format + config) % formats().size() != 0 && (format + config) % formats().size() != 5)
          continue;
        shrink(c, kWorkOfACase / 4);
        if (finish_attend(c, module, config, n % 3 == 0 ? Splits::shortest : Splits::tuned)) out.push_back(c);
      }
}

// Draft trees of a few and of many nodes, over a history of no token, a part of a page, and several pages.
void add_trees(std::vector<Case>& out, KernelId module) {
  struct Tree {
    std::uint32_t nodes, history;
  };
  constexpr std::array<Tree, 4> kTrees{{{7, 0}, {5, 23}, {33, 64}, {64, 130}}};
  std::uint32_t n = 0;
  for (std::uint32_t format = 0; format < formats().size(); ++format)
    for (const Tree& tree : kTrees) {
      Case c;
      c.rule = MaskRule::tree;
      c.format_k = format_at(format);
      c.format_v = format_at(format + n % 3);
      c.dim_k = c.dim_v = n % 2 == 0 ? 64 : 80;
      c.kv_heads = 2;
      c.group = 1 + n % 3;
      c.batch = 1 + n % 2;
      c.queries = tree.nodes;
      c.length = tree.nodes + tree.history;
      c.page_tokens = n % 3 == 0 ? 32 : 16;
      c.tables = n % 3 == 1 ? Tables::shuffled : Tables::sequence;
      c.window = n % 4 == 3 ? 40 : 0;
      c.window_sinks = n % 4 == 3 ? 3 : 0;
      c.lse = n % 2 == 0;
      c.alibi = n % 5 == 2;
      ++n;
      if (!module_takes(module, static_cast<std::uint32_t>(c.format_k))) continue;
      if (c.format_k == FormatId::q8_0 && tree.nodes == 33) c.subset = Subset::quick;
      if (finish_attend(c, module, n, n % 2 == 0 ? Splits::tuned : Splits::shortest)) out.push_back(c);
    }
}

// Sixty-four sequences of unequal lengths in one dispatch, one of them without queries.
void add_batches(std::vector<Case>& out, KernelId module) {
  std::uint32_t n = 0;
  for (const FormatId format : {FormatId::f16, FormatId::q8_0, FormatId::q4_0, FormatId::nf4, FormatId::q5_1})
    for (const std::uint32_t length : {1u, 16u, 75u}) {
      Case c;
      c.format_k = c.format_v = format;
      c.dim_k = c.dim_v = n % 2 == 0 ? 64 : 128;
      c.kv_heads = 1 + n % 2;
      c.group = 2;
      c.batch = 64;
      c.queries = is_prefill(module) ? 9 : 1;
      c.length = length;
      c.tables = static_cast<Tables>(n % 3);
      c.holes = n % 4 == 1 && c.tables != Tables::sequence;
      c.sinks = n % 2 == 1;
      ++n;
      if (!module_takes(module, static_cast<std::uint32_t>(c.format_k))) continue;
      if (format == FormatId::q4_0 && length == 75) c.subset = Subset::quick;
      if (finish_attend(c, module, n, Splits::tuned)) out.push_back(c);
    }
}

}  // namespace

void add_sweep_cases(std::vector<Case>& out) {
  for (const KernelId module : attend_modules()) add_configs(out, module);
  for (const KernelId module : attend_modules()) add_trees(out, module);
  for (const KernelId module : attend_modules()) add_batches(out, module);
}

}  // namespace kvant::conformance
