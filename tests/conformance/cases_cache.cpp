// Cases that exercise the cache as a whole: scripts of sequence operations, and relations between two ways to one
// result.
#include <array>
#include <string>

#include "attend_configs.hpp"
#include "cases.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

using std::to_string;

constexpr std::array<std::uint32_t, 4> kDims{64, 80, 128, 40};
constexpr std::uint32_t kScripts = 4;  // run_sequence.cpp: fork, truncate, abort, reuse

void add_sequence(std::vector<Case>& out) {
  static constexpr const char* kNames[kScripts] = {"fork", "truncate", "abort", "reuse"};
  std::uint32_t n = 0;
  const std::size_t count = formats().size();
  for (std::size_t turn = 0; turn < count; turn += kScripts)  // the scripts together have every K beside every V
    for (const FormatInfo& k : formats())
      for (std::uint32_t script = 0; script < kScripts; ++script) {
        Case c;
        c.op = Op::sequence;
        c.variant = script;
        c.format_k = k.id;
        c.format_v = formats()[(static_cast<std::size_t>(k.id) * 5 + script + 2 + turn) % count].id;
        c.dim_k = kDims[n % 4];
        c.dim_v = kDims[(n / 4) % 4];
        c.kv_heads = 1 + n % 3;
        c.group = 1 + n % 2;
        c.page_tokens = n % 2 == 0 ? 16 : 32;
        c.length = n % 3 == 0 ? 2 * c.page_tokens : 3 * c.page_tokens - 5;
        c.tables = Tables::sequence;
        c.rotate_k = n % 5 < 2;
        c.rotate_v = n % 5 == 1 || n % 5 == 3;
        c.centre_k = n % 3 == 0;
        c.centre_v = n % 4 < 2;
        c.subset = turn == 0 ? subset_of(n + 3, 5, 15) : Subset::full;
        ++n;
        c.name = std::string("sequence.") + kNames[script] + "." + std::string(k.name) + "-" +
                 std::string(format_info(c.format_v).name) + ".d" + to_string(c.dim_k) + "-" + to_string(c.dim_v) +
                 ".h" + to_string(c.kv_heads) + "x" + to_string(c.group) + ".n" + to_string(c.length) + ".p" +
                 to_string(c.page_tokens) + transform_name(c);
        out.push_back(c);
      }
}

void add_relations(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (const KernelId module : attend_modules())
    for (std::uint32_t relation = 0; relation < static_cast<std::uint32_t>(Relation::count); ++relation)
      for (const FormatInfo& info : formats()) {
        const FormatId format = info.id;
        // Opening the device twice takes long: for two formats of each module.
        if (static_cast<Relation>(relation) == Relation::pipelines && format != FormatId::q8_0 &&
            format != FormatId::nf4)
          continue;
        if (!module_takes(module, static_cast<std::uint32_t>(format))) continue;
        Case c;
        c.op = Op::relation;
        c.relation = static_cast<Relation>(relation);
        c.format_k = format;
        c.format_v = formats()[(static_cast<std::size_t>(format) + n) % formats().size()].id;
        c.dim_k = c.dim_v = kDims[n % 4];
        c.kv_heads = 2;
        c.group = 1 + n % 4;
        c.batch = c.relation == Relation::batch_order ? 3 : 2;
        c.queries = is_prefill(module) ? 19 : 1;
        c.length = 131;
        c.page_tokens = n % 2 == 0 ? 16 : 32;
        c.lse = true;
        c.rotate_k = n % 5 < 2;
        c.rotate_v = n % 5 == 1 || n % 5 == 3;
        c.centre_k = n % 3 == 0;
        c.centre_v = n % 4 < 2;
        c.subset = subset_of(n, 17, 51);
        const auto configs = module_configs(module, attend_shape(c));
        if (configs.empty()) continue;
        c.config = configs[n++ % configs.size()];
        c.name = "relation." + std::string(relation_name(c.relation)) + "." + std::string(kernel_info(module).name) +
                 "." + std::string(format_info(c.format_k).name) + "-" + std::string(format_info(c.format_v).name) +
                 ".d" + to_string(c.dim_k) + ".g" + to_string(c.group) + ".p" + to_string(c.page_tokens) + transform_name(c) + "." + config_key(c.config);
        out.push_back(c);
      }
}

}  // namespace

void add_cache_cases(std::vector<Case>& out) {
  add_sequence(out);
  add_relations(out);
}

}  // namespace kvant::conformance
