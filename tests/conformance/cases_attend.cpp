// Cases of the attention kernels: a covering array per module, and corners that pairs do not reach.
#include <algorithm>
#include <array>
#include <set>
#include <string>

#include "attend_case.hpp"
#include "attend_configs.hpp"
#include "cases.hpp"
#include "pairwise.hpp"

namespace kvant::conformance {

namespace {

using std::to_string;

struct Dims {
  std::uint32_t k, v;
};
struct Heads {
  std::uint32_t kv, group;
};
struct Window {
  std::uint32_t window, sinks;
};

constexpr std::array<Dims, 10> kDims{
    {{64, 64}, {128, 128}, {32, 32}, {40, 40}, {80, 80}, {96, 96}, {192, 128}, {256, 256}, {576, 512}, {64, 96}}};
constexpr std::array<Heads, 9> kHeads{{{1, 1}, {2, 1}, {1, 4}, {2, 4}, {1, 8}, {2, 3}, {1, 32}, {3, 2}, {8, 1}}};
constexpr std::array<std::uint32_t, 4> kBatch{1, 2, 3, 8};
constexpr std::array<Window, 3> kWindows{{{0, 0}, {13, 0}, {20, 4}}};
constexpr std::array<IoType, 3> kIo{IoType::f32, IoType::f16, IoType::bf16};
constexpr std::array<DataClass, 8> kData{DataClass::normal, DataClass::uniform, DataClass::outlier, DataClass::small,
                                         DataClass::zeros,  DataClass::one_hot, DataClass::ramp,    DataClass::constant};
bool uses_subgroups(KernelId module) { return (kernel_info(module).needs & kernel_needs_subgroup) != 0; }

// The formats that some quick case of a family of modules, decode or prefill, has as K and as V.
struct Seen {
  std::set<FormatId> k, v;
  bool adds(const Case& c) { return k.insert(c.format_k).second | v.insert(c.format_v).second; }
};

void add_module(std::vector<Case>& out, KernelId module, std::uint32_t number, Seen& seen) {
  std::vector<std::uint32_t> formats_k;
  for (const FormatInfo& f : formats())
    if (module_takes(module, static_cast<std::uint32_t>(f.id))) formats_k.push_back(static_cast<std::uint32_t>(f.id));
  const auto n_formats = static_cast<std::uint32_t>(formats().size());
  const std::array<std::uint32_t, 3> queries =
      is_prefill(module) ? std::array<std::uint32_t, 3>{3, 32, 75} : std::array<std::uint32_t, 3>{1, 2, 3};
  // fp16 arithmetic compiles several times as long as fp32 on processors without it, and differs in few lines.
  const bool narrow = (kernel_info(module).needs & kernel_needs_fp16) != 0;
  // K and V are decoded by code of their own: the two modules that every device has share the pairs of formats between them, all modules
  // together meet each several times.
  const bool base = kernel_info(module).needs == 0;
  const std::uint32_t apart = base ? 2 : 6, v_formats = (n_formats + apart - 1) / apart;
  std::uint32_t n = 0;
  for (const auto& row : pairwise_rows({static_cast<std::uint32_t>(formats_k.size()), v_formats, 10, 9, 4, 3, 7, 2, 3, 3, 3, 2, 2,
                                        2, 2, 3, 3, 8, 3, 8, 2, 2, 3, 3, 3, 3})) {
    Case c;
    c.rotate_k = row[22] == 0;
    c.rotate_v = row[23] == 0;
    c.centre_k = row[24] == 0;
    c.centre_v = row[25] == 0;
    c.format_k = formats()[formats_k[row[0]]].id;
    c.format_v = formats()[(row[1] * apart + formats_k[row[0]] + number) % n_formats].id;
    c.dim_k = kDims[row[2]].k;
    c.dim_v = kDims[row[2]].v;
    c.kv_heads = kHeads[row[3]].kv;
    c.group = kHeads[row[3]].group;
    c.batch = kBatch[row[4]];
    c.queries = queries[row[5]];
    c.page_tokens = row[7] == 0 ? 16 : 32;
    const std::uint32_t lengths[] = {1, c.page_tokens - 1, c.page_tokens, c.page_tokens + 1, 61, 257, 1031};
    c.length = lengths[row[6]];
    c.tables = static_cast<Tables>(row[8]);
    c.rule = static_cast<MaskRule>(row[9]);
    c.window = kWindows[row[10]].window;
    c.window_sinks = kWindows[row[10]].sinks;
    c.sinks = row[11] != 0;
    c.alibi = row[12] != 0;
    c.soft_cap = row[13] != 0;
    c.lse = row[14] != 0;
    c.in = kIo[row[15]];
    c.out = kIo[row[16]];
    c.data = kData[row[17]];
    c.placement = static_cast<Placement>(row[18]);
    c.holes = row[21] != 0 && c.tables != Tables::sequence && c.rule != MaskRule::cross;
    shrink(c, kWorkOfACase);
    c.subset = narrow ? subset_of(n++, 12, 50) : subset_of(n++, 8, 40);
    if (c.subset == Subset::smoke && (work(c) > kWorkOfACase / 4 || c.dim_k > 128)) c.subset = Subset::quick;
    if (!finish_attend(c, module, row[19], row[20] != 0 ? Splits::shortest : Splits::tuned)) continue;
    if (base && (c.subset != Subset::full || work(c) <= kWorkOfACase / 4) && seen.adds(c) && c.subset == Subset::full) c.subset = Subset::quick;
    out.push_back(c);
  }
}

// Shapes as models have them, longer than the covering array goes, and the exact edges of window and mask.
void add_corners(std::vector<Case>& out, KernelId module) {
  for (const FormatId format : {FormatId::f16, FormatId::q8_0, FormatId::q4_0, FormatId::nf4, FormatId::nf4_dq, FormatId::q5_1}) {
    if (!module_takes(module, static_cast<std::uint32_t>(format))) continue;
    Case base;
    base.format_k = base.format_v = format;
    base.dim_k = base.dim_v = 128;
    base.kv_heads = 2;
    base.group = 4;
    base.queries = is_prefill(module) ? 40 : 1;
    base.length = is_prefill(module) ? 300 : 2053;
    base.tables = Tables::shuffled;
    base.lse = true;
    base.in = base.out = IoType::f16;
    shrink(base, 4 * kWorkOfACase);
    for (std::uint32_t config = 0; config < 8; ++config) {
      Case c = base;
      if (config >= module_configs(module, attend_shape(c)).size()) break;
      if (finish_attend(c, module, config, Splits::tuned)) out.push_back(c);
    }
    Case window = base;  // the window's first token at a page edge
    window.window = 64;
    window.length = 256 + 64;
    if (finish_attend(window, module, 0, Splits::shortest)) out.push_back(window);
    Case single = base;  // one key, one query
    single.length = single.queries = 1;
    if (finish_attend(single, module, 0, Splits::tuned)) out.push_back(single);
    Case large = base;  // pages as ggml's cache tensors have on processors
    large.page_tokens = 128;
    large.length = 300;
    large.subset = format == FormatId::q4_0 ? Subset::quick : Subset::full;
    if (finish_attend(large, module, 0, Splits::shortest)) out.push_back(large);
    Case all = base;  // every feature at once
    all.length = 77;
    all.rule = MaskRule::custom;
    all.window = 40;
    all.window_sinks = 3;
    all.sinks = all.alibi = all.soft_cap = all.holes = true;
    all.subset = format == FormatId::q4_0 || format == FormatId::f16 ? Subset::quick : Subset::full;
    if (finish_attend(all, module, 0, Splits::shortest)) out.push_back(all);
  }
}

// Keys and values that fp16 cannot hold: modules of narrow arithmetic must keep to fp32 for the formats that can hold them.
void add_range(std::vector<Case>& out, KernelId module) {
  for (const FormatId format : {FormatId::f32, FormatId::bf16}) {
    if (!module_takes(module, static_cast<std::uint32_t>(format))) continue;
    Case c;
    c.format_k = c.format_v = format;
    c.group = 2;
    c.queries = is_prefill(module) ? 32 : 1;
    c.length = 77;
    c.data = DataClass::huge;
    c.subset = Subset::quick;
    if (finish_attend(c, module, 0, Splits::tuned)) out.push_back(c);
  }
}

// Several chunks of keys for one item: the running maximum moves between them, and the newest key, seen by the last query alone,
// is the first of a chunk.
void add_chunks(std::vector<Case>& out, KernelId module) {
  Case c;
  c.format_k = c.format_v = FormatId::q8_0;
  c.group = 2;
  c.queries = is_prefill(module) ? 32 : 2;
  c.length = 513;
  c.tables = Tables::shuffled;
  c.subset = Subset::quick;
  // Modules with subgroup operations have configs for every subgroup size, and a device runs those of its own.
  const std::uint32_t configs = uses_subgroups(module) ? static_cast<std::uint32_t>(module_configs(module, attend_shape(c)).size()) : 1;
  for (std::uint32_t config = 0; config < configs; ++config) {
    Case named = c;
    if (finish_attend(named, module, config, Splits::whole)) out.push_back(named);
  }
}

}  // namespace

void add_attend_cases(std::vector<Case>& out) {
  Seen decode, prefill;
  std::uint32_t of_decode = 0, of_prefill = 0;
  for (const KernelId module : attend_modules()) {
    // Numbered so that the base modules' halves of the pairs differ.
    if (is_prefill(module)) {
      add_module(out, module, ++of_prefill, prefill);
    } else {
      add_module(out, module, of_decode++, decode);
    }
  }
  for (const KernelId module : attend_modules()) add_corners(out, module);
  for (const KernelId module : attend_modules()) add_range(out, module);
  for (const KernelId module : attend_modules()) add_chunks(out, module);
}

}  // namespace kvant::conformance
