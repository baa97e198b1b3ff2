// The additive bias of attention (KVANT_ATTEND_BIAS), which no cache asks for: every attention module runs plans of the cache
// with a bias put into their dispatches, on the device and on the CPU reference, both against the oracle.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <string>

#include "attend_case.hpp"
#include "attend_configs.hpp"
#include "attention_run.hpp"
#include "check_device.hpp"
#include "cpu_executor.hpp"
#include "formats.hpp"
#include "params/attend.h"
#include "probe_executor.hpp"
#include "support.hpp"

using namespace kvant;
using namespace kvant::conformance;

namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();
constexpr std::uint32_t kSeqWords = sizeof(params::AttendSeq) / 4;

// The bias of a case: rows per sequence for the oracle, and the tensor that holds them, between elements that are NaN.
struct Bias {
  std::uint32_t heads = 1, query_stride = 0, head_stride = 0;
  std::vector<std::uint32_t> offsets;     // element of each sequence
  std::vector<std::vector<float>> rows;   // [query][head][key]
  std::vector<std::uint16_t> elements;
};

struct Shape {
  FormatId k, v;
  std::uint32_t dim_k, dim_v, kv_heads, group, batch, decode_queries, prefill_queries, length;
  MaskRule rule;
  bool sinks, alibi, soft_cap;
  std::uint32_t bias_heads;
  bool heads_outside;  // the tensor: [head][query][key], or [query][head][key]
  Splits splits;
  Tables tables;
  Placement placement;
};

// Is the row hidden as a whole?
bool is_blind(std::uint32_t query, std::uint32_t head) { return (query + 2 * head) % 5 == 2; }

// A token's bias: in rows that are hidden as a whole, in hidden blocks longer than an item of two pages, far below all others, or
// between -1 and 1.
float bias_at(const Random& random, std::uint32_t query, std::uint32_t head, std::uint32_t row, std::uint32_t token) {
  if (is_blind(query, head)) return kHidden;
  const std::uint64_t at = (std::uint64_t{row} << 20) + token;
  if (random.uniform((std::uint64_t{row} << 20) + 0x80000 + token / 50) < 0.4) return kHidden;
  const double value = random.uniform(at);
  return value < 0.05 ? kHidden : value < 0.1 ? -65504.0f : f16_to_f32(f32_to_f16(static_cast<float>(2.0 * value - 1.0)));
}

// Rows begin one element behind each other's end where lengths are even, so that odd elements come first somewhere in any case.
Bias make_bias(const Case& c, const AttentionInputs& inputs, std::uint32_t heads, bool heads_outside) {
  Bias bias;
  bias.heads = heads;
  std::uint32_t longest = 0, most_queries = 0;
  for (const SequenceShape& s : inputs.shapes) {
    longest = std::max(longest, s.kv_len);
    most_queries = std::max(most_queries, s.q_len);
  }
  const std::uint32_t row_stride = longest | 1u;
  bias.query_stride = heads_outside ? row_stride : row_stride * heads;
  bias.head_stride = heads_outside ? row_stride * most_queries : row_stride;
  std::uint32_t next = 3;
  for (std::size_t b = 0; b < inputs.shapes.size(); ++b) {
    const SequenceShape& s = inputs.shapes[b];
    bias.offsets.push_back(next);
    bias.rows.emplace_back();
    next += row_stride * heads * most_queries;
    bias.elements.resize(next, 0x7FFF);
    for (std::uint32_t query = 0; query < s.q_len; ++query)
      for (std::uint32_t head = 0; head < heads; ++head)
        for (std::uint32_t token = 0; token < s.kv_len; ++token) {
          const float value = bias_at(Random(1, c.name, 900 + b), query, head, query * heads + head, token);
          bias.rows[b].push_back(value);
          bias.elements[bias.offsets[b] + query * bias.query_stride + head * bias.head_stride + token] = f32_to_f16(value);
        }
  }
  bias.elements.resize((bias.elements.size() + 1) / 2 * 2, 0x7FFF);
  return bias;
}

// Sets one number, but not where the whole row is hidden.
void put(Bias& bias, std::size_t sequence, const SequenceShape& s, std::uint32_t query, std::uint32_t head, std::uint32_t token,
         float value) {
  if (is_blind(query, head)) return;
  bias.rows[sequence][(std::size_t{query} * bias.heads + head) * s.kv_len + token] = value;
  bias.elements[bias.offsets[sequence] + query * bias.query_stride + head * bias.head_stride + token] = f32_to_f16(value);
}

// A key that no row may see: of NaN where the formats hold it, else with one element beyond what f16 holds, by a finite scale. And where they
// hold it, one of an infinite value, which neighbouring heads and neighbouring queries differ about.
void put_traps(Bias& bias, const Case& c, AttentionInputs& inputs) {
  constexpr std::uint32_t kNever = 21, kSome = 38;
  const bool plain = c.format_k == FormatId::f16 && c.format_v == FormatId::f16;
  for (std::size_t b = 0; b < inputs.shapes.size(); ++b) {
    const SequenceShape& s = inputs.shapes[b];
    if (s.kv_len <= kSome) continue;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::size_t k_row = std::size_t{c.kv_heads} * c.dim_k, v_row = std::size_t{c.kv_heads} * c.dim_v;
    if (plain) {
      std::fill_n(inputs.k[b].begin() + static_cast<std::ptrdiff_t>(kNever * k_row), k_row, nan);
      std::fill_n(inputs.v[b].begin() + static_cast<std::ptrdiff_t>(kNever * v_row), v_row, nan);
      inputs.v[b][kSome * v_row + 5] = std::numeric_limits<float>::infinity();
    } else {
      inputs.v[b][kNever * v_row + 1] = 1e5f;
    }
    for (std::uint32_t query = 0; query < s.q_len; ++query)
      for (std::uint32_t head = 0; head < bias.heads; ++head) {
        put(bias, b, s, query, head, kNever, kHidden);
        if (plain) put(bias, b, s, query, head, kSome, (query + head) % 2 == 0 ? kHidden : 0.5f);
      }
  }
}

bool is_attend(const Command& command) {
  const std::string_view name = kernel_info(command.dispatch.kernel).name;
  return command.type == Command::Type::dispatch && name.starts_with("attend_") && command.dispatch.kernel != KernelId::attend_merge;
}

// Turns the attention of a list into attention with the bias.
void add_bias(CommandList& list, const Bias& bias, const BufferRange& range) {
  std::vector<Command> commands;
  bool patched = false;
  for (Command& command : list.commands) {
    if (!is_attend(command)) {
      commands.push_back(command);
      continue;
    }
    Dispatch& dispatch = command.dispatch;
    params::AttendParams p;
    std::memcpy(&p, dispatch.push.data(), sizeof(p));
    if (!patched) {
      for (std::size_t b = 0; b < bias.offsets.size(); ++b) {
        const std::uint64_t word = p.seqs_offset + b * kSeqWords + offsetof(params::AttendSeq, mask_offset) / 4;
        Command fill;
        fill.type = Command::Type::fill;
        fill.barrier_before = true;
        fill.fill = Fill{BufferRange{dispatch.bindings[4].buffer, dispatch.bindings[4].offset + word * 4, 4}, bias.offsets[b]};
        fill.label = "bias of a sequence";
        commands.push_back(fill);
      }
      command.barrier_before = true;
      patched = true;
    }
    p.bias_query_stride = bias.query_stride;
    p.bias_head_stride = bias.head_stride;
    p.bias_heads = bias.heads;
    set_push(dispatch, p);
    dispatch.spec[KVANT_SPEC_FLAGS] |= KVANT_ATTEND_BIAS;
    dispatch.bindings[7] = range;
    commands.push_back(command);
  }
  list.commands = commands;
}

Result<AttentionOutput> run_with_bias(Executor& executor, const Case& c, const AttentionInputs& inputs, const Bias& bias) {
  Workbench bench(executor);
  KVANT_ASSIGN(const Buffer buffer, bench.make(to_bytes(std::span<const std::uint16_t>(bias.elements))));
  ProbeExecutor probe(executor);
  probe.set_tamper([&](CommandList& list) { add_bias(list, bias, buffer.range); });
  return run_attention(probe, c, inputs, &c.config);
}

// The oracle's answer, with the bias, without it, or with each head's rows given to the next one.
enum class Truth { whole, no_bias, next_head };
reference::DenseResult truth_of(const Case& c, const AttentionInputs& inputs, const Bias& bias, Truth truth) {
  reference::DenseProblem problem = attention_problem(c, inputs);
  problem.bias_heads = bias.heads;
  for (std::size_t b = 0; b < inputs.shapes.size() && truth != Truth::no_bias; ++b) {
    std::vector<float>& rows = problem.sequences[b].bias = bias.rows[b];
    const auto row = static_cast<std::ptrdiff_t>(inputs.shapes[b].kv_len);
    const std::ptrdiff_t of_query = row * bias.heads;
    for (auto at = rows.begin(); truth == Truth::next_head && at != rows.end(); at += of_query) std::rotate(at, at + row, at + of_query);
  }
  return reference::dense_attention(problem);
}

Session* session() {
  std::string why;
  Session* opened = test_session(&why);
  REQUIRE_MESSAGE((opened != nullptr || !device_required()), why);
  return opened;
}

// The shape as a case of the module, with a config that the device has; false if there is none.
bool make_case(const Shape& shape, KernelId module, std::uint32_t number, Case& c) {
  if (!module_takes(module, static_cast<std::uint32_t>(shape.k))) return false;
  c.format_k = shape.k;
  c.format_v = shape.v;
  c.dim_k = shape.dim_k;
  c.dim_v = shape.dim_v;
  c.kv_heads = shape.kv_heads;
  c.group = shape.group;
  c.batch = shape.batch;
  c.queries = is_prefill(module) ? shape.prefill_queries : shape.decode_queries;
  c.length = shape.length;
  c.rule = shape.rule;
  c.sinks = shape.sinks;
  c.alibi = shape.alibi;
  c.soft_cap = shape.soft_cap;
  c.tables = shape.tables;
  c.placement = shape.placement;
  c.holes = shape.tables == Tables::shuffled && shape.rule != MaskRule::cross;
  const std::size_t configs = module_configs(module, attend_shape(c)).size();
  for (std::uint32_t i = 0; i < configs; ++i) {
    Case named = c;
    if (!finish_attend(named, module, number + i, shape.splits)) return false;
    if (Session* device = session(); device != nullptr && device->plan() != nullptr && !missing_for(named, *device->plan()).empty())
      continue;
    c = named;
    c.name += ".bias" + std::to_string(shape.bias_heads);
    return true;
  }
  return false;
}

constexpr auto kF16 = FormatId::f16;
constexpr std::array<Shape, 9> kShapes{{
    {kF16, kF16, 128, 128, 2, 4, 2, 1, 3, 113, MaskRule::cross, false, false, false, 1, true, Splits::tuned, Tables::sequence, Placement::host},
    {FormatId::q8_0, FormatId::q8_0, 64, 64, 2, 1, 1, 3, 32, 113, MaskRule::cross, true, false, false, 2, true, Splits::shortest,
     Tables::shuffled, Placement::buffer},
    {FormatId::q4_0, FormatId::q4_0, 40, 40, 1, 4, 2, 1, 75, 113, MaskRule::cross, false, false, true, 4, false, Splits::tuned,
     Tables::identity, Placement::host},
    {FormatId::iq4_nl, FormatId::iq4_nl, 128, 128, 1, 4, 2, 3, 32, 113, MaskRule::cross, false, true, false, 4, true, Splits::shortest,
     Tables::sequence, Placement::buffer},
    {kF16, kF16, 576, 512, 1, 4, 1, 1, 3, 113, MaskRule::cross, false, false, false, 4, true, Splits::tuned, Tables::identity, Placement::host},
    {FormatId::q8_0, kF16, 128, 128, 2, 4, 2, 3, 75, 200, MaskRule::causal, true, true, true, 8, true, Splits::shortest, Tables::shuffled,
     Placement::buffer},
    {FormatId::q4_0, FormatId::iq4_nl, 64, 64, 1, 4, 1, 1, 32, 513, MaskRule::cross, false, false, false, 2, false, Splits::whole,
     Tables::sequence, Placement::host},
    {kF16, kF16, 64, 64, 1, 4, 1, 1, 3, 113, MaskRule::cross, true, false, false, 4, true, Splits::shortest, Tables::sequence, Placement::host},
    {kF16, kF16, 64, 64, 1, 1, 2, 3, 32, 113, MaskRule::cross, true, false, false, 1, true, Splits::tuned, Tables::identity, Placement::buffer},
}};

void run_shape(const Shape& shape, KernelId module, std::uint32_t number, std::size_t& executed) {
  Case c;
  if (!make_case(shape, module, number, c)) return;
  CAPTURE(c.name);
  AttentionInputs inputs = make_attention_inputs(1, c);
  Bias bias = make_bias(c, inputs, shape.bias_heads, shape.heads_outside);
  put_traps(bias, c, inputs);
  const reference::DenseResult truth = truth_of(c, inputs, bias, Truth::whole);
  const reference::DenseResult without = truth_of(c, inputs, bias, Truth::no_bias);
  const reference::DenseResult next_head = truth_of(c, inputs, bias, Truth::next_head);
  const auto check = [&](Executor& executor, const char* where) {
    const auto output = run_with_bias(executor, c, inputs, bias);
    REQUIRE_MESSAGE(output.ok(), where, ": ", output.status().message());
    CHECK(output->kernel == kernel_info(module).name);
    const Comparison figures = check_attention(c, inputs, truth, output.value());
    CHECK_MESSAGE(figures.equal, where, ": ", figures.message);
    CHECK_FALSE(figures.reference_is_zero);
    CHECK_FALSE(check_attention(c, inputs, without, output.value()).equal);
    if (bias.heads > 1) CHECK_FALSE(check_attention(c, inputs, next_head, output.value()).equal);
  };
  reference::CpuExecutor cpu;
  if (Session* device = session(); device != nullptr) {
    const std::uint64_t messages = device->validation_messages();
    check(device->executor(), "device");
    CHECK_MESSAGE(device->validation_messages() == messages, device->last_validation_message());
    cpu.set_limits(device->executor().limits());
  }
  check(cpu, "CPU executor");
  ++executed;
}

// With KVANT_TEST_FULL=1 every module runs every shape, otherwise a part of them: software devices compile for seconds.
bool takes(std::size_t shape, std::size_t module) {
  const char* full = std::getenv("KVANT_TEST_FULL");
  return (full != nullptr && std::string_view(full) == "1") || (shape + module) % 2 == 0;
}

}  // namespace

TEST_SUITE_BEGIN("bias");

TEST_CASE("every attention module adds the bias and hides keys by it") {
  for (std::size_t m = 0; m < attend_modules().size(); ++m) {
    const KernelId module = attend_modules()[m];
    const char* only = std::getenv("KVANT_TEST_MODULE");  // where the others have run already
    if (only != nullptr && kernel_info(module).name != only) continue;
    std::size_t executed = 0;
    for (std::size_t s = 0; s < kShapes.size(); ++s)
      if (takes(s, m)) run_shape(kShapes[s], module, static_cast<std::uint32_t>(m + s / 2), executed);
    MESSAGE(std::string(kernel_info(module).name), ": ", executed, " cases");
    Session* device = session();
    if (device == nullptr || only != nullptr || (kernel_info(module).needs == 0)) CHECK(executed > 0);
  }
}

TEST_CASE("the reference refuses a bias that another feature excludes") {
  Case c;
  REQUIRE(make_case(kShapes[0], KernelId::attend_decode, 0, c));
  c.lse = true;
  const AttentionInputs inputs = make_attention_inputs(1, c);
  reference::CpuExecutor cpu;
  CHECK_FALSE(run_with_bias(cpu, c, inputs, make_bias(c, inputs, 1, true)).ok());
}

TEST_SUITE_END();
