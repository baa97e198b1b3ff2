// The suite's own negative controls: faults put into the device's side (a scale in the pool, a page table entry, a
// specialization constant, a dispatch left out) must make cases fail. A fault that no case notices fails this test.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "attention_run.hpp"
#include "check_device.hpp"
#include "cpu_executor.hpp"
#include "params/attend.h"
#include "probe_executor.hpp"

using namespace kvant;
using namespace kvant::conformance;

namespace {

// The executor under test: the environment's device, or the CPU reference where there is none.
Executor& device() {
  static reference::CpuExecutor cpu;
  std::string why;
  Session* session = test_session(&why);
  REQUIRE_MESSAGE((session != nullptr || !device_required()), why);
  return session != nullptr ? session->executor() : cpu;
}

bool is_attend(const Command& command) {
  const std::string_view name = kernel_info(command.dispatch.kernel).name;
  return command.type == Command::Type::dispatch && name.starts_with("attend_") && command.dispatch.kernel != KernelId::attend_merge;
}

Case sample() {
  for (const Case& c : all_cases())
    if (c.op == Op::relation && c.relation == Relation::twice && c.config.kernel == KernelId::attend_decode &&
        c.format_k == FormatId::q4_0)
      return c;
  return {};
}

bool passes(const std::function<void(CommandList&)>& tamper) {
  const Case c = sample();
  AttentionInputs inputs = make_attention_inputs(1, c);
  inputs.pages_per_slab = 0;
  ProbeExecutor probe(device());
  if (tamper) probe.set_tamper(tamper);
  const auto output = run_attention(probe, c, inputs, &c.config);
  REQUIRE_MESSAGE(output.ok(), output.status().message());  // a refusal would notice any fault, and show nothing of the check
  return check_attention(c, inputs, attention_truth(c, inputs), output.value()).equal;
}

// Overwrites `words` words at `word` of an attention binding just before its dispatch.
void overwrite(CommandList& list, std::size_t binding, std::uint64_t word, std::uint64_t words, std::uint32_t value) {
  std::vector<Command> commands;
  for (const Command& command : list.commands) {
    if (is_attend(command)) {
      const BufferRange& range = command.dispatch.bindings[binding];
      Command fill;
      fill.type = Command::Type::fill;
      fill.barrier_before = true;
      fill.fill = Fill{BufferRange{range.buffer, range.offset + word * 4, words * 4}, value};
      fill.label = "tamper";
      commands.push_back(fill);
      commands.push_back(command);
      commands.back().barrier_before = true;
    } else {
      commands.push_back(command);
    }
  }
  list.commands = commands;
}

}  // namespace

TEST_CASE("the sample passes untouched") {
  REQUIRE_FALSE(sample().name.empty());
  CHECK(passes({}));
}

TEST_CASE("one changed scale in the pool is noticed") {
  const Case c = sample();
  const PageLayout layout = page_layout(format_info(c.format_k), c.dim_k, c.page_tokens);
  CHECK_FALSE(passes([&](CommandList& list) { overwrite(list, 0, layout.scale_offset / 4, 1, 0x44004400u); }));
}

TEST_CASE("one wrong page table entry is noticed") {
  CHECK_FALSE(passes([](CommandList& list) {
    for (const Command& command : list.commands) {
      if (!is_attend(command)) continue;
      params::AttendParams p;
      std::memcpy(&p, command.dispatch.push.data(), sizeof(p));
      overwrite(list, 4, p.pages_offset + 1, 1, p.page_begin);  // the second page of the first sequence becomes page zero
      return;
    }
  }));
}

TEST_CASE("one wrong specialization constant is noticed") {
  const auto change = [](std::uint32_t id, std::function<std::uint32_t(std::uint32_t)> next) {
    return [id, next](CommandList& list) {
      for (Command& command : list.commands)
        if (is_attend(command)) command.dispatch.spec[id] = next(command.dispatch.spec[id]);
    };
  };
  CHECK_FALSE(passes(change(KVANT_SPEC_FORMAT_K, [](std::uint32_t) { return static_cast<std::uint32_t>(FormatId::nf4); })));
  CHECK_FALSE(passes(change(KVANT_SPEC_FLAGS, [](std::uint32_t flags) { return flags ^ KVANT_ATTEND_ALIBI ^ KVANT_ATTEND_WINDOW; })));
}

TEST_CASE("a wrong push constant is noticed") {
  CHECK_FALSE(passes([](CommandList& list) {
    for (Command& command : list.commands) {
      if (!is_attend(command)) continue;
      params::AttendParams p;
      std::memcpy(&p, command.dispatch.push.data(), sizeof(p));
      p.scale *= 1.01f;
      std::memcpy(command.dispatch.push.data(), &p, sizeof(p));
    }
  }));
}

TEST_CASE("a dispatch left out is noticed") {
  CHECK_FALSE(passes([](CommandList& list) {
    std::erase_if(list.commands, [](const Command& command) { return is_attend(command); });
  }));
  CHECK_FALSE(passes([](CommandList& list) {
    std::erase_if(list.commands, [](const Command& c) { return c.type == Command::Type::dispatch && c.dispatch.kernel == KernelId::append; });
  }));
}
