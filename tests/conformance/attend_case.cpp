#include "attend_case.hpp"

#include <string>

#include "attend_configs.hpp"
#include "transforms.hpp"
#include "tuning_matrix.hpp"

namespace kvant::conformance {

std::uint64_t work(const Case& c) {
  std::uint64_t sum = 0;
  for (const SequenceShape& s : sequence_shapes(c)) sum += std::uint64_t{s.q_len} * s.kv_len + s.kv_len;
  return sum * c.kv_heads * c.group * (c.dim_k + c.dim_v);
}

void shrink(Case& c, std::uint64_t budget) {
  while (work(c) > budget) {
    if (c.batch > 2)
      c.batch = 2;
    else if (c.length > 257)
      c.length = 257;
    else if (c.batch > 1)
      c.batch = 1;
    else if (c.length > 61)
      c.length = 61;
    else if (c.kv_heads > 2)
      c.kv_heads = 2;
    else if (c.group > 8)
      c.group = 8;
    else if (c.queries > 32)
      c.queries = 32;
    else if (c.group > 2)
      c.group = 2;
    else
      return;
  }
}

namespace {

using std::to_string;

std::string attend_name(const Case& c, const std::string& config) {
  const auto flag = [](bool on, const char* text) { return on ? std::string(text) : std::string(); };
  std::string name = std::string(kernel_info(c.config.kernel).name) + "." + std::string(format_info(c.format_k).name) +
                     "-" + std::string(format_info(c.format_v).name) + ".d" + to_string(c.dim_k) + "-" +
                     to_string(c.dim_v) + ".h" + to_string(c.kv_heads) + "x" + to_string(c.group) + ".b" +
                     to_string(c.batch) + ".q" + to_string(c.queries) + ".n" + to_string(c.length) + ".p" +
                     to_string(c.page_tokens);
  name += c.tables == Tables::identity ? ".identity" : c.tables == Tables::shuffled ? ".shuffled" : ".sequence";
  name += "." + std::string(rule_name(c.rule));
  if (c.window != 0) name += ".w" + to_string(c.window) + (c.window_sinks != 0 ? "s" + to_string(c.window_sinks) : "");
  name += flag(c.sinks, ".sinks") + flag(c.alibi, ".alibi") + flag(c.soft_cap, ".cap") + flag(c.lse, ".lse") +
          flag(c.holes, ".holes") + transform_name(c);
  name +=
      "." + std::string(io_name(c.in)) + "-" + std::string(io_name(c.out)) + "." + std::string(data_class_name(c.data));
  name += c.placement == Placement::host ? ".host" : c.placement == Placement::buffer ? ".buffer" : ".strided";
  return name + "." + config;
}

}  // namespace

bool finish_attend(Case& c, KernelId module, std::uint32_t config_index, Splits splits) {
  c.op = Op::attend;
  const auto configs = module_configs(module, attend_shape(c));
  if (configs.empty()) return false;
  c.config = configs[config_index % configs.size()];
  // A device runs the matrices of its own product and subgroup size. The first config is the one that software executes: half of the cases.
  if (uses_matrices(module) && configs.size() > 1)
    c.config = config_index % 2 == 0 ? configs[0] : configs[1 + config_index / 2 % (configs.size() - 1)];
  std::string config = config_key(c.config);
  if (splits == Splits::shortest && (c.config.kv_per_item == 0 || c.config.kv_per_item >= 2 * c.page_tokens)) {
    c.config.kv_split = 2 * c.page_tokens;
    config += "s";
  } else if (splits == Splits::whole && c.config.kv_per_item == 0) {
    c.config.kv_split = 1u << 20;
    config += "w";
  }
  c.name = attend_name(c, config);
  return true;
}

}  // namespace kvant::conformance
