// Tensors in buffers: bound where they lie, submitted without a wait, or recorded for the engine's own command buffer.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;
using test::Random;

constexpr std::uint32_t kHeads = 2, kDim = 32, kTokens = 40;

CacheSpec spec_of(std::uint32_t layers) {
  CacheSpec spec;
  spec.layers.assign(layers, {kHeads, kDim, kDim, FormatId::q8_0, FormatId::f16, 0, 0});
  spec.capacity_tokens = 16 * 8;
  return spec;
}

// A buffer of the executor with the floats from byte `offset` on.
TensorView in_buffer(test::TestExecutor& executor, const std::vector<float>& x, std::uint64_t offset) {
  const BufferId buffer = executor.create_buffer(offset + x.size() * sizeof(float), BufferKind::device).value();
  std::memcpy(executor.cpu.buffer(buffer)->data() + offset, x.data(), x.size() * sizeof(float));
  TensorView view;
  view.buffer = {buffer, offset, x.size() * sizeof(float)};
  return view;
}

std::vector<float> from_buffer(test::TestExecutor& executor, const TensorView& view) {
  std::vector<float> x(view.buffer.size / sizeof(float));
  std::memcpy(x.data(), executor.cpu.buffer(view.buffer.buffer)->data() + view.buffer.offset, view.buffer.size);
  return x;
}

TensorView in_memory(std::vector<float>& x) {
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(x.data());
  return view;
}

TEST_CASE("host tensor_io: buffers and recorded steps give what host tensors give, bit for bit") {
  Random random(1);
  constexpr std::uint32_t layers = 3, q_heads = 4;
  std::vector<float> k(kTokens * kHeads * kDim), v = k, q(kTokens * q_heads * kDim), sinks(q_heads * layers),
                                                 slopes = sinks;
  for (auto* x : {&k, &v, &q, &sinks, &slopes})
    for (float& value : *x) value = random.normal();

  std::vector<std::vector<float>> expected;
  for (int way = 0; way < 3; ++way) {  // host tensors, buffers, recording
    CAPTURE(way);
    CacheModel model(spec_of(layers), 3, 2);
    test::TestExecutor& executor = model.executor;
    AttendConfig config = executor.cpu.attend_config({});
    config.kernel = KernelId::attend_prefill;
    config.heads_per_tile = 1;
    config.queries_per_item = 8;
    config.kv_split = config.kv_per_item = 16;
    executor.cpu.set_attend_config(config);
    const SequenceId a = model.create();
    auto step = model.cache->plan(std::vector{entry(a, kTokens, kTokens)});
    REQUIRE(step.ok());
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      std::vector<float> out(q.size(), -1.0f), lse(kTokens * q_heads, -1.0f);
      RunArgs args;
      args.q_heads = q_heads;
      args.sinks = sinks.data() + layer * q_heads;
      args.alibi_slopes = slopes.data() + layer * q_heads;
      if (way == 0) {
        args.k = in_memory(k), args.v = in_memory(v), args.q = in_memory(q), args.out = in_memory(out),
        args.lse = in_memory(lse);
      } else {
        args.k = in_buffer(executor, k, 20);  // off the binding alignment of 16
        args.v = in_buffer(executor, v, 0);
        args.q = in_buffer(executor, q, 4);
        args.out = in_buffer(executor, out, 36);
        args.lse = in_buffer(executor, lse, 8);
        if (way == 2) args.command_buffer = &model;
      }
      const Status status = model.cache->run(*step.value(), layer, args);
      REQUIRE_MESSAGE(status.ok(), status.message());
      if (way != 0) {
        out = from_buffer(executor, args.out);
        lse = from_buffer(executor, args.lse);
      }
      if (way == 0) {
        expected.push_back(out);
        expected.push_back(lse);
      }
      REQUIRE(out == expected[layer * 2]);
      REQUIRE(lse == expected[layer * 2 + 1]);
    }
    REQUIRE(model.cache->commit(std::move(step).value()).ok());
  }
}

TEST_CASE("host tensor_io: what is recorded stays valid until the next plan") {
  // Every layer asks with other sinks, hence other META; buffers that earlier layers named must survive the growth.
  Random random(2);
  CacheModel model(spec_of(40), 8, 2);
  const SequenceId a = model.create();
  std::vector<float> k(kHeads * kDim, 1.0f), q(64 * kHeads * kDim, 1.0f), sinks(64 * kHeads, 0.5f);
  auto step = model.cache->plan(std::vector{entry(a, 1, 1)});
  REQUIRE(step.ok());
  RunArgs args;
  args.k = args.v = in_buffer(model.executor, k, 0);
  args.q = in_buffer(model.executor, q, 0);
  args.out = in_buffer(model.executor, q, 0);
  args.command_buffer = &model;
  args.sinks = sinks.data();
  model.executor.lists.clear();
  for (std::uint32_t layer = 0; layer < 40; ++layer) {
    args.q_heads = kHeads * (1 + layer % 64);  // other items too
    const Status status = model.cache->run(*step.value(), layer, args);
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  for (const CommandList& list : model.executor.lists)
    for (const Command& command : list.commands) {
      if (command.type != Command::Type::dispatch) continue;
      for (const BufferRange& range : command.dispatch.bindings)
        if (range.buffer != BufferId::none) REQUIRE(model.executor.cpu.buffer(range.buffer) != nullptr);
    }
  REQUIRE(model.cache->commit(std::move(step).value()).ok());
}

TEST_CASE("host tensor_io: buffer ranges that cannot be bound name their values") {
  CacheModel model(spec_of(1), 8, 2);
  const SequenceId a = model.create();
  auto step = model.cache->plan(std::vector{entry(a, 2, 0)});
  REQUIRE(step.ok());
  const std::vector<float> rows(2 * kHeads * kDim, 1.0f);
  RunArgs args;
  args.k = args.v = in_buffer(model.executor, rows, 0);
  auto fails = [&](const TensorView& k, const char* text) {
    RunArgs wrong = args;
    wrong.k = k;
    const Status status = model.cache->run(*step.value(), 0, wrong);
    CHECK(status.code() == StatusCode::invalid_argument);
    CHECK_MESSAGE(status.message().find(text) != std::string::npos, status.message());
  };
  TensorView wrong = args.k;
  wrong.buffer.offset = 2;
  fails(wrong, "offset (2)");
  wrong = args.k;
  wrong.buffer.size -= 4;
  fails(wrong, "needs 512 bytes, its buffer range has 508");
  wrong = args.k;
  wrong.token_stride = 1ull << 33;
  fails(wrong, "needs");
  TensorView half = args.k;
  half.type = IoType::f16;
  half.buffer = {half.buffer.buffer, 2, 2 * kHeads * kDim * 2};
  args.v.type = IoType::f16;
  fails(half, "half a 32-bit word, at byte 258");
  args.v.type = IoType::f32;
  CHECK(model.cache->run(*step.value(), 0, args).ok());
}

TEST_CASE("host tensor_io: a 16-bit output keeps to whole words") {
  CacheModel model(spec_of(1), 8, 2);
  const SequenceId a = model.create();
  model.step({entry(a, 3, 0)});
  const std::vector<float> room(256, 0.0f);
  TensorView out = in_buffer(model.executor, room, 0);
  out.type = IoType::f16;
  REQUIRE(model.cache->read(a, 0, Side::k, 0, 3, out).ok());
  out.buffer.offset += 2;
  out.buffer.size -= 2;
  CHECK(model.cache->read(a, 0, Side::k, 0, 3, out).code() == StatusCode::invalid_argument);
  out.buffer.offset += 2;
  out.buffer.size -= 2;
  out.head_stride = 33;
  CHECK(model.cache->read(a, 0, Side::k, 0, 3, out).code() == StatusCode::invalid_argument);
}

}  // namespace
}  // namespace kvant
