// Cases of the kernel score: attention masses of sequences, over the items of decode and of prefill.
#include <array>
#include <string>

#include "attend_configs.hpp"
#include "cases.hpp"
#include "pairwise.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

using std::to_string;

struct Heads {
  std::uint32_t kv, group;
};

constexpr std::array<std::uint32_t, 7> kDims{64, 128, 32, 40, 80, 256, 576};
constexpr std::array<Heads, 6> kHeads{{{1, 1}, {2, 1}, {1, 4}, {2, 3}, {1, 8}, {3, 2}}};
constexpr std::array<IoType, 3> kIo{IoType::f32, IoType::f16, IoType::bf16};
constexpr std::array<DataClass, 5> kData{DataClass::normal, DataClass::uniform, DataClass::outlier, DataClass::zeros, DataClass::one_hot};

std::string score_name(const Case& c) {
  const auto flag = [](bool on, const char* text) { return on ? std::string(text) : std::string(); };
  std::string name = "score." + std::string(kernel_info(c.config.kernel).name) + "." + std::string(format_info(c.format_k).name) +
                     ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + "x" + to_string(c.group) + ".b" +
                     to_string(c.batch) + ".q" + to_string(c.queries) + ".n" + to_string(c.length) + ".p" + to_string(c.page_tokens);
  name += "." + std::string(rule_name(c.rule));
  if (c.window != 0) name += ".w" + to_string(c.window) + "s" + to_string(c.window_sinks);
  return name + flag(c.sinks, ".sinks") + flag(c.alibi, ".alibi") + flag(c.soft_cap, ".cap") + flag(c.lse, ".lse") + transform_name(c) + "." +
         std::string(io_name(c.in)) + "." + std::string(data_class_name(c.data)) +
         (c.placement == Placement::host ? ".host" : c.placement == Placement::buffer ? ".buffer" : ".strided") + "." + config_key(c.config);
}

void add_module(std::vector<Case>& out, KernelId module) {
  const auto n_formats = static_cast<std::uint32_t>(formats().size());
  const std::array<std::uint32_t, 3> queries =
      is_prefill(module) ? std::array<std::uint32_t, 3>{3, 17, 32} : std::array<std::uint32_t, 3>{1, 2, 3};
  std::uint32_t n = is_prefill(module) ? 2 : 0;
  for (const auto& row : pairwise_rows({n_formats, 7, 6, 3, 3, 5, 2, 3, 2, 2, 2, 2, 2, 3, 5, 3, 3, 2, 2})) {
    Case c;
    c.op = Op::score;
    c.tables = Tables::sequence;
    c.format_k = formats()[row[0]].id;
    c.format_v = FormatId::f16;
    c.dim_k = c.dim_v = kDims[row[1]];
    c.kv_heads = kHeads[row[2]].kv;
    c.group = kHeads[row[2]].group;
    c.batch = 1 + row[3];
    c.queries = queries[row[4]];
    c.page_tokens = row[6] == 0 ? 16 : 32;
    const std::uint32_t lengths[] = {1, c.page_tokens, c.page_tokens + 1, 61, 257};
    c.length = lengths[row[5]];
    c.rule = static_cast<MaskRule>(row[7]);
    if (row[8] != 0) c.window = 20, c.window_sinks = 4;
    c.sinks = row[9] != 0;
    c.alibi = row[10] != 0;
    c.soft_cap = row[11] != 0;
    c.lse = row[12] != 0;
    c.in = kIo[row[13]];
    c.data = kData[row[14]];
    c.placement = static_cast<Placement>(row[15]);
    c.rotate_k = row[17] != 0;
    c.centre_k = row[18] != 0;
    c.subset = subset_of(n++, 23, 46);
    if (c.subset == Subset::smoke && c.dim_k > 128) c.subset = Subset::quick;
    const auto configs = module_configs(module, attend_shape(c));
    if (configs.empty()) continue;
    c.config = configs[row[16] % configs.size()];
    c.name = score_name(c);
    out.push_back(c);
  }
}

}  // namespace

void add_score_cases(std::vector<Case>& out) {
  for (const KernelId module : {KernelId::attend_decode, KernelId::attend_prefill, KernelId::attend_prefill_f16}) add_module(out, module);
}

}  // namespace kvant::conformance
