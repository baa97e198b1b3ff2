// The life of a step and of sequences: what each error says, and that after an error everything is as it was.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

CacheSpec two_layers(std::uint64_t tokens, std::uint32_t window = 0) {
  CacheSpec spec;
  spec.layers = {{1, 32, 32, FormatId::f32, FormatId::q8_0, 0, 0},
                 {1, 32, 40, FormatId::q4_0, FormatId::f16, window, 0}};
  spec.capacity_tokens = tokens;
  return spec;
}

bool contains(const Status& status, const char* text) { return status.message().find(text) != std::string::npos; }

// What must not change when a call fails.
struct Books {
  // Without `memory`: slabs and scratch that a step has allocated may stay for the next one.
  explicit Books(CacheModel& model, bool memory = true) {
    const MemoryUse use = model.cache->memory_use();
    figures = {use.used_bytes, use.used_pages, use.sequence_tokens};
    if (memory) figures.insert(figures.end(), {use.pool_bytes, model.executor.live_bytes()});
    for (const auto& [id, tokens] : model.sequences)
      for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
        const auto pages = cache_debug(*model.cache).sequence_pages(id, layer).value();
        tables.push_back(pages);
        for (std::int32_t page : pages)
          figures.push_back(
              page < 0 ? 0 : cache_debug(*model.cache).page_references(layer, static_cast<std::uint32_t>(page)));
      }
  }
  bool operator==(const Books&) const = default;
  std::vector<std::uint64_t> figures;
  std::vector<std::vector<std::int32_t>> tables;
};

RunArgs plain_run(std::vector<float>& k, std::vector<float>& v) {
  RunArgs args;
  args.k.host = reinterpret_cast<std::byte*>(k.data());
  args.v.host = reinterpret_cast<std::byte*>(v.data());
  return args;
}

TEST_CASE("host step: abort gives back every page, and the next plan gets the same ones") {
  CacheModel model(two_layers(16 * 12), 3, 1);
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 20, 0), entry(b, 5, 0)});
  const Books before(model, false);
  for (int i = 0; i < 2; ++i) {
    model.step({entry(a, 40, 3), entry(b, 30, 30)}, false);
    CHECK(Books(model, false) == before);
  }
  {
    auto step = model.cache->plan(std::vector{entry(a, 16, 0)});
    REQUIRE(step.ok());
    CHECK(model.cache->memory_use().used_pages > before.figures[1]);
  }  // destroying an open step aborts it
  CHECK(Books(model, false) == before);
  model.step({entry(a, 1, 1), entry(b, 1, 1)});
  model.check_reads();
}

TEST_CASE("host step: commit needs every layer and names the first that is missing") {
  CacheModel model(two_layers(64), 4, 1);
  const SequenceId a = model.create();
  auto planned = model.cache->plan(std::vector{entry(a, 2, 0)});
  REQUIRE(planned.ok());
  std::unique_ptr<Step> step = std::move(planned).value();
  std::vector<float> k(64, 1.0f), v(80, 2.0f);
  REQUIRE(model.cache->run(*step, 0, plain_run(k, v)).ok());
  const Status early = model.cache->commit(std::move(step));
  CHECK(early.code() == StatusCode::failed_precondition);
  CHECK(contains(early, "layer 1"));
  REQUIRE(step != nullptr);  // still open
  CHECK(model.cache->sequence_length(a).value() == 0);
  REQUIRE(model.cache->run(*step, 1, plain_run(k, v)).ok());
  CHECK(model.cache->commit(std::move(step)).ok());
  CHECK(step == nullptr);
  CHECK(model.cache->sequence_length(a).value() == 2);
}

TEST_CASE("host step: one open step; its sequences stay as they are") {
  CacheModel model(two_layers(16 * 8), 4, 1);
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 20, 0), entry(b, 4, 0)});
  auto step = model.cache->plan(std::vector{entry(a, 1, 1)});
  REQUIRE(step.ok());
  const Books before(model);
  CHECK(model.cache->plan(std::vector{entry(b, 1, 1)}).status().code() == StatusCode::failed_precondition);
  CHECK(model.cache->destroy_sequence(a).code() == StatusCode::failed_precondition);
  CHECK(model.cache->truncate_sequence(a, 3).code() == StatusCode::failed_precondition);
  CHECK(model.cache->convert(0, Side::k, FormatId::f16).code() == StatusCode::failed_precondition);
  CHECK(Books(model) == before);
  CHECK(model.cache->truncate_sequence(b, 3).ok());  // not part of the step
  model.cache->abort(std::move(step).value());
  CHECK(model.cache->commit(nullptr).code() == StatusCode::failed_precondition);
}

TEST_CASE("host step: errors of plan name their values and change nothing") {
  CacheModel model(two_layers(16 * 4), 2, 1);
  const SequenceId a = model.create();
  model.step({entry(a, 20, 0)});
  const Books before(model);
  auto fails = [&](std::vector<StepEntry> entries, StatusCode code, const char* text) {
    const auto step = model.cache->plan(entries);
    CHECK(step.status().code() == code);
    CHECK_MESSAGE(contains(step.status(), text), step.status().message());
    CHECK(Books(model) == before);
  };
  fails({entry(SequenceId{77}, 1, 1)}, StatusCode::not_found, "sequence 0x4d");
  fails({entry(a, 1, 1), entry(a, 1, 1)}, StatusCode::invalid_argument, "twice");
  fails({entry(a, 50, 0)}, StatusCode::resource_exhausted,
        "3 pages are needed in layer group 0, 2 of the 4 pages of capacity_tokens (64) are free");
  const std::uint32_t mask[1] = {1};
  StepEntry masked = entry(a, 1, 1);
  masked.mask = mask;
  masked.mask_row_words = 0;
  fails({masked}, StatusCode::invalid_argument, "mask_row_words (0)");
  masked.mask_kv_begin = 22;
  fails({masked}, StatusCode::invalid_argument, "mask_kv_begin (22)");
  CHECK(model.cache->plan_paged({}).status().code() == StatusCode::failed_precondition);
  model.step({entry(a, 44, 1)});  // exactly full
  CHECK(model.cache->plan(std::vector{entry(a, 1, 1)}).status().code() == StatusCode::resource_exhausted);
}

TEST_CASE("host step: ids begin where the spec says, and messages name them in hexadecimal") {
  CacheSpec spec = two_layers(16 * 8, 16);
  spec.first_sequence = (3ull << 40) + 1;
  CacheModel model(spec, 2, 1);
  const SequenceId a = model.create(), b = model.create();
  CHECK(static_cast<std::uint64_t>(a) == spec.first_sequence);
  CHECK(static_cast<std::uint64_t>(b) == spec.first_sequence + 1);
  model.step({entry(b, 60, 0)});
  model.step({entry(b, 1, 0)});
  const Status gone = model.cache->truncate_sequence(b, 4);
  CHECK(gone.code() == StatusCode::failed_precondition);
  CHECK_MESSAGE(contains(gone, "of sequence 0x30000000002 has left the window"), gone.message());
}

TEST_CASE("host step: a recorded run submits nothing, however near its tables are to what it can upload") {
  CacheSpec spec;
  spec.layers = {{1, 32, 32, FormatId::f32, FormatId::f32, 0, 0}};
  spec.capacity_tokens = 256;
  CacheModel model(spec, 64, 1);
  const SequenceId a = model.create();
  auto buffer = [&](std::uint64_t bytes) {
    const auto created = model.executor.create_buffer(bytes, BufferKind::device);
    REQUIRE(created.ok());
    TensorView view;
    view.buffer = {created.value(), 0, bytes};
    return view;
  };
  RunArgs args;
  args.k = args.v = buffer(200 * 32 * 4);
  int command_buffer = 0;
  args.command_buffer = &command_buffer;
  // Somewhere below the size at which the step is refused, tables and alignment together pass the staging limit.
  int recorded = 0, refused = 0;
  for (std::uint32_t staging = 1024; staging < 4096; staging += 64) {
    ExecutorLimits limits = model.executor.limits();
    limits.max_staging_bytes = staging;
    model.executor.cpu.set_limits(limits);
    auto step = model.cache->plan(std::vector{entry(a, 200, 0)});
    REQUIRE(step.ok());
    model.executor.lists.clear();
    const Status run = model.cache->run(*step.value(), 0, args);
    CHECK(model.executor.lists.size() == (run.ok() ? 1u : 0u));  // the recorded list alone
    if (!run.ok()) CHECK(run.code() == StatusCode::resource_exhausted);
    ++(run.ok() ? recorded : refused);
    model.cache->abort(std::move(step).value());
  }
  CHECK(recorded > 0);
  CHECK(refused > 0);
}

TEST_CASE("host step: errors of run name their values and leave the step usable") {
  CacheModel model(two_layers(64), 4, 1);
  const SequenceId a = model.create();
  auto planned = model.cache->plan(std::vector{entry(a, 2, 1)});
  REQUIRE(planned.ok());
  Step& step = *planned.value();
  std::vector<float> k(64, 1.0f), v(80, 2.0f), q(64, 1.0f), out(80, -1.0f);
  RunArgs args = plain_run(k, v);
  args.q.host = reinterpret_cast<std::byte*>(q.data());
  args.out.host = reinterpret_cast<std::byte*>(out.data());
  args.q_heads = 2;
  auto fails = [&](std::uint32_t layer, const RunArgs& wrong, const char* text) {
    const Status status = model.cache->run(step, layer, wrong);
    CHECK(status.code() == StatusCode::invalid_argument);
    CHECK_MESSAGE(contains(status, text), status.message());
  };
  RunArgs wrong = args;
  fails(2, args, "layer (2)");
  wrong.k.host = nullptr;
  fails(0, wrong, "k of layer 0 is missing");
  wrong = args;
  wrong.v.host = nullptr;
  fails(0, wrong, "only k");
  wrong = args;
  wrong.v.type = IoType::f16;
  fails(0, wrong, "different element types");
  wrong = args;
  wrong.out.host = nullptr;
  fails(0, wrong, "out is missing");
  wrong = args;
  wrong.q_heads = 0;
  fails(0, wrong, "q_heads (0)");
  wrong = args;
  wrong.command_buffer = &step;
  fails(0, wrong, "host memory");
  for (float x : out) CHECK(x == -1.0f);
  for (std::uint32_t layer = 0; layer < 2; ++layer) CHECK(model.cache->run(step, layer, args).ok());
  CHECK(model.cache->commit(std::move(planned).value()).ok());

  std::unique_ptr<Step> orphan;
  {
    CacheModel other(two_layers(64), 4, 1);
    const SequenceId b = other.create();
    orphan = std::move(other.cache->plan(std::vector{entry(b, 1, 0)})).value();
    CHECK(model.cache->run(*orphan, 0, args).code() == StatusCode::failed_precondition);
  }
  orphan.reset();  // its cache is gone: nothing to abort
}

TEST_CASE("host step: any failed allocation, staging or submit leaves the cache as it was") {
  for (int kind = 0; kind < 3; ++kind) {
    bool failed = true;
    for (int n = 0; failed && n < 60; ++n) {
      CAPTURE(kind);
      CAPTURE(n);
      CacheModel model(two_layers(16 * 20, 24), 2, 1);
      const SequenceId a = model.create();
      model.step({entry(a, 21, 3)});
      model.fork(a, 21);
      const Books before(model);
      int& countdown = kind == 0   ? model.executor.fail_create
                       : kind == 1 ? model.executor.fail_stage
                                   : model.executor.fail_submit;
      countdown = n;
      failed = false;
      auto fork = model.cache->fork_sequence(a, 18);
      if (fork.ok()) {
        REQUIRE(model.cache->destroy_sequence(fork.value()).ok());
      } else {
        failed = true;
        REQUIRE(Books(model) == before);
      }
      auto planned = model.cache->plan(std::vector{entry(a, 60, 60)});
      if (!planned.ok()) {
        failed = true;
        const Books after(model);
        REQUIRE(after.tables == before.tables);
        REQUIRE(after.figures[1] == before.figures[1]);
      } else {
        std::vector<float> k(60 * 40, 1.0f), v(60 * 40, 2.0f), q(60 * 80, 0.5f), out(60 * 80);
        RunArgs args = plain_run(k, v);
        args.q.host = reinterpret_cast<std::byte*>(q.data());
        args.out.host = reinterpret_cast<std::byte*>(out.data());
        args.q_heads = 2;
        for (std::uint32_t layer = 0; layer < 2; ++layer)
          if (!model.cache->run(*planned.value(), layer, args).ok()) failed = true;
        model.cache->abort(std::move(planned).value());
        REQUIRE(Books(model).tables == before.tables);
      }
      if (!failed) {  // not reached by the countdown yet: it may reach into this
        failed = !model.cache->convert(0, Side::k, FormatId::q8_0).ok();
        REQUIRE(Books(model).tables == before.tables);
        if (!failed) break;
        CHECK(model.cache->spec().layers[0].format_k == FormatId::f32);
      }
      countdown = -1;
      model.step({entry(a, 3, 2)});
      model.check_reads();
    }
    CHECK_FALSE(failed);  // the sweep went past the last call
  }
}

TEST_CASE("host step: fork shares full pages, copies the open one; writing needs a private page") {
  CacheModel model(two_layers(16 * 20), 4, 2);
  const SequenceId a = model.create();
  model.step({entry(a, 40, 0)});
  CHECK(model.cache->memory_use().used_pages == 6);  // 3 pages in each of 2 layer groups
  model.fork(a, 40);
  CHECK(model.cache->memory_use().used_pages == 8);
  model.fork(a, 32);
  CHECK(model.cache->memory_use().used_pages == 8);
  // Cut to the middle of a shared page: nothing is copied until somebody writes.
  model.truncate(a, 25);
  CHECK(model.cache->memory_use().used_pages == 6);
  const auto shared = cache_debug(*model.cache).sequence_pages(a, 0).value();
  CHECK(cache_debug(*model.cache).page_references(0, static_cast<std::uint32_t>(shared[1])) == 3);
  const Books before(model);
  model.step({entry(a, 2, 2)}, false);
  CHECK(Books(model) == before);
  model.step({entry(a, 2, 2)});
  const auto written = cache_debug(*model.cache).sequence_pages(a, 0).value();
  CHECK(written[0] == shared[0]);
  CHECK(written[1] != shared[1]);
  CHECK(cache_debug(*model.cache).page_references(0, static_cast<std::uint32_t>(shared[1])) == 2);
  model.check_reads();
  std::vector<StepEntry> all;
  for (const auto& [id, tokens] : model.sequences) all.push_back(entry(id, 5, 5));
  model.step(all);
  model.check_reads();
}

TEST_CASE("host step: unknown sequences, lengths and ranges") {
  CacheModel model(two_layers(16 * 4), 4, 2);
  const SequenceId a = model.create();
  model.step({entry(a, 10, 0)});
  const SequenceId gone = model.create();
  model.destroy(gone);
  CHECK(model.create() != gone);
  for (const Status& status :
       {model.cache->destroy_sequence(gone), model.cache->truncate_sequence(gone, 0),
        model.cache->fork_sequence(gone, 0).status(), model.cache->sequence_length(gone).status(),
        model.cache->destroy_sequence(SequenceId::none)}) {
    CHECK(status.code() == StatusCode::not_found);
    CHECK(contains(status, "does not exist"));
  }
  CHECK(contains(model.cache->truncate_sequence(a, 11), "tokens (11) exceed the sequence's length, 10"));
  CHECK(contains(model.cache->fork_sequence(a, 11).status(), "tokens (11)"));
  TensorView out;
  std::vector<float> floats(64);
  out.host = reinterpret_cast<std::byte*>(floats.data());
  CHECK(model.cache->read(a, 0, Side::k, 9, 2, out).code() == StatusCode::invalid_argument);
  CHECK(model.cache->read(a, 0, Side::k, ~0ull, 2, out).code() == StatusCode::invalid_argument);
  CHECK(model.cache->read(a, 5, Side::k, 0, 1, out).code() == StatusCode::invalid_argument);
  std::vector<std::byte> bytes(7);
  CHECK(contains(model.cache->read_canonical(a, 0, Side::k, 0, 1, bytes), "out has 7 bytes"));
}

TEST_CASE("host step: a step that asks the same again allocates nothing on the device") {
  CacheModel model(two_layers(16 * 20), 20, 2);
  const SequenceId a = model.create();
  model.step({entry(a, 100, 1)});
  for (int i = 0; i < 3; ++i) model.step({entry(a, 1, 1)});
  const auto buffers = model.executor.live;
  for (int i = 0; i < 8; ++i) model.step({entry(a, 1, 1)});
  CHECK(model.executor.live == buffers);
}

}  // namespace
}  // namespace kvant
