// Cooled pages where codes are taken out, written over or changed in format.
#include <doctest/doctest.h>

#include <numeric>

#include "host_cooling_model.hpp"
#include "memory_planner.hpp"

namespace kvant {
namespace {

using test::cool_spec;
using test::CoolingModel;
using test::entry;

SequenceId filled(CoolingModel& model, std::uint32_t tokens) {
  model.options.mass = true;
  const SequenceId id = model.create();
  model.append({entry(id, tokens, tokens)});
  model.options.mass = false;
  return id;
}

void cool(CoolingModel& model, std::uint32_t percent) {
  const auto report = model.cool(model.bytes() * percent / 100);
  REQUIRE_MESSAGE(report.ok(), report.status().message());
  REQUIRE(report->pages != 0);
}

TEST_CASE("host cooling: a converted layer keeps what is as narrow, and cools what is not") {
  for (const FormatId to : {FormatId::q8_0, FormatId::t2, FormatId::q4_0, FormatId::f32}) {
    CAPTURE(static_cast<int>(to));
    CoolingModel model(cool_spec(512), 2, 3);
    filled(model, 250);
    cool(model, 85);
    std::vector<std::vector<FormatId>> before;
    for (auto& [id, tokens] : model.sequences) {
      for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
        before.emplace_back();
        for (const std::int32_t page : model.pages_of(id, layer)) before.back().push_back(model.graded(layer, model.grade_of(layer, page)));
      }
      for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
        REQUIRE(model.cache->convert(layer, Side::v, to).ok());
        const auto pages = model.pages_of(id, layer);
        for (std::size_t page = 0; page < pages.size(); ++page) {
          const FormatId now = model.graded(layer, model.grade_of(layer, pages[page]));
          if (now != before[layer][page]) model.recode_page(tokens, layer, page, now);
        }
      }
      model.check_reads();
      REQUIRE(model.cache->convert(0, Side::k, FormatId::f16).ok());
      for (std::size_t at = 0; at < tokens.layers[0][0].size(); at += 32) CoolingModel::recode(FormatId::f16, 32, std::span(tokens.layers[0][0]).subspan(at, 32));
      model.check_reads();
      model.append({entry(id, 1, 1)});
    }
  }
}

TEST_CASE("host cooling: tokens written over cooled pages") {
  CoolingModel model(cool_spec(512), 2, 4);
  const SequenceId id = filled(model, 250);
  cool(model, 85);
  for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
    auto& tokens = model.sequences[id];
    std::array<std::vector<float>, 2> rows;
    std::array<TensorView, 2> views;
    for (const Side side : {Side::k, Side::v}) {
      const std::uint32_t d = model.dim(layer, side), row = d * model.spec.layers[layer].kv_heads;
      auto& x = rows[static_cast<std::size_t>(side)];
      x.resize(std::size_t{20} * row);
      for (float& value : x) value = model.random.normal();
      views[static_cast<std::size_t>(side)].host = reinterpret_cast<std::byte*>(x.data());
    }
    const std::size_t first = 40 / 16, last = 59 / 16;
    for (std::size_t page = first; page <= last; ++page)
      if (model.graded(layer, model.grades[id][layer][page]) != model.format(layer, Side::v)) model.recode_page(tokens, layer, page, model.format(layer, Side::v));
    REQUIRE(model.cache->write(id, layer, 40, 20, views[0], views[1]).ok());
    for (const std::size_t page : {first, last}) CHECK(model.grade_of(layer, model.pages_of(id, layer)[page]) == 0);
    for (const Side side : {Side::k, Side::v}) {
      const std::uint32_t d = model.dim(layer, side), row = d * model.spec.layers[layer].kv_heads;
      auto x = rows[static_cast<std::size_t>(side)];
      for (std::size_t at = 0; at < x.size(); at += d) CoolingModel::recode(model.format(layer, side), d, std::span(x).subspan(at, d));
      std::copy(x.begin(), x.end(), tokens.layers[layer][static_cast<std::size_t>(side)].begin() + 40 * row);
    }
    // All layers of a group share pages: the others' rows of these have come back as well.
    for (std::uint32_t other = 0; other < model.spec.layers.size(); ++other)
      for (std::size_t page = first; page <= last; ++page) {
        if (cache_debug(*model.cache).geometry().layers[other].group != cache_debug(*model.cache).geometry().layers[layer].group) continue;
        if (other != layer && model.graded(other, model.grades[id][other][page]) != model.format(other, Side::v))
          model.recode_page(tokens, other, page, model.format(other, Side::v));
        model.grades[id][other][page] = 0;
      }
  }
  model.check_reads();
}

TEST_CASE("host cooling: states and canonical bytes have the layer's format") {
  CoolingModel from(cool_spec(512), 2, 5), to(cool_spec(512), 3, 6);
  const SequenceId id = filled(from, 250);
  cool(from, 85);
  std::vector<std::byte> bytes;
  StateSelection selection;
  selection.all_sequences = true;
  REQUIRE(from.cache->save_state(selection, [&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return Status();
  }).ok());
  std::span<const std::byte> left = bytes;
  const auto loaded = to.cache->load_state([&](std::span<std::byte> out) -> Result<std::size_t> {
    const std::size_t size = std::min(out.size(), left.size());
    std::copy_n(left.begin(), size, out.begin());
    left = left.subspan(size);
    return size;
  });
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  const SequenceId copy = loaded.value().front().sequence;
  to.sequences[copy] = from.sequences[id];
  for (std::uint32_t layer = 0; layer < from.spec.layers.size(); ++layer)
    for (std::size_t page = 0; page < from.grades[id][layer].size(); ++page)
      if (from.graded(layer, from.grades[id][layer][page]) != from.format(layer, Side::v)) to.recode_page(to.sequences[copy], layer, page, from.format(layer, Side::v));
  to.check_reads();
  from.check_reads();
  // Canonical bytes: the same rows, decoded.
  for (std::uint32_t layer = 0; layer < from.spec.layers.size(); ++layer) {
    const FormatInfo& format = format_info(from.format(layer, Side::v));
    const std::uint32_t d = from.dim(layer, Side::v), heads = from.spec.layers[layer].kv_heads;
    const std::uint64_t row = canonical_row_bytes(format, d);
    std::vector<std::byte> rows(row * heads * 250);
    REQUIRE(from.cache->read_canonical(id, layer, Side::v, 0, 250, rows).ok());
    std::vector<float> x(d);
    for (std::size_t at = 0; at < std::size_t{250} * heads; ++at) {
      decode_canonical_row(format, std::span(rows).subspan(at * row, row), x);
      for (std::uint32_t i = 0; i < d; ++i) REQUIRE(x[i] == to.sequences[copy].layers[layer][1][at * d + i]);
    }
  }
}

TEST_CASE("host cooling: under a memory limit cooled pages count, and what they gave back is there") {
  CacheSpec spec = cool_spec(512);
  spec.layers.erase(spec.layers.begin() + 1);  // one layer group
  spec.layers[0].format_k = FormatId::q8_0;
  spec.layers[1].format_v = FormatId::f16;
  CoolingModel model(spec, 2, 7);
  const SequenceId id = filled(model, 300);
  const std::uint64_t limit = model.bytes();
  REQUIRE(model.cache->set_memory_limit(limit, {}).ok());
  const StepEntry more = entry(id, 32, 0);
  CHECK(model.cache->plan({&more, 1}).status().code() == StatusCode::resource_exhausted);
  cool(model, 85);
  model.append({entry(id, 32, 1)});
  CHECK(model.bytes() <= limit);
  model.check_reads();
  MemoryOptions none;
  none.ladder = {};
  const Status refused = model.cache->set_memory_limit(model.bytes() / 2, none);
  CHECK(refused.code() == StatusCode::resource_exhausted);
  CHECK_MESSAGE(refused.message().find("a limit of " + std::to_string(model.bytes() / 2)) != std::string::npos, refused.message());
  // Wider keys would be so in cooled pages as well.
  const Status wider = model.cache->convert(1, Side::k, FormatId::f32);
  CHECK(wider.code() == StatusCode::resource_exhausted);
  CHECK(model.bytes() <= limit);
  model.check_reads();
  // What nobody holds any more is there for the next context.
  model.destroy(id);
  const SequenceId next = model.create();
  model.append({entry(next, 290, 1)});
  CHECK(model.bytes() <= limit);
  model.check_reads();
}

TEST_CASE("host cooling: a single slab of pages that nobody holds is given back too") {
  CacheSpec spec = cool_spec(512);
  spec.layers = {{2, 64, 64, FormatId::q4_0, FormatId::f16, 0, 0}};
  CoolingModel model(spec, 2, 12);
  model.formats = {FormatId::t3};
  const SequenceId id = filled(model, 300);
  const std::uint64_t limit = model.bytes();
  REQUIRE(model.cache->set_memory_limit(limit, {}).ok());
  cool(model, 98);
  REQUIRE(model.cooled_pages(0) <= cache_debug(*model.cache).geometry().groups[0].pages_per_slab);
  model.destroy(id);
  const SequenceId next = model.create();
  model.append({entry(next, 300, 1)});
  CHECK(model.bytes() == limit);
  model.check_reads();
}

TEST_CASE("host cooling: weights decide, and one below zero spares its layer") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    CAPTURE(seed);
    CacheSpec spec = cool_spec(512);
    spec.layers.assign(8, {2, 32, 32, FormatId::q4_0, FormatId::t3, 0, 0});
    spec.layers[0].format_v = FormatId::t4;
    CoolingModel model(spec, 2, seed);
    const SequenceId id = filled(model, 250);
    // The first layer's step is dear and the others' cheap: for a page both are one.
    REQUIRE(model.cache->set_sensitivity(0, Side::v, 40.0).ok());
    for (std::uint32_t layer = 1; layer < 8; ++layer) REQUIRE(model.cache->set_sensitivity(layer, Side::v, seed % 2 == 0 ? 0.0 : 1.0).ok());
    for (const std::uint32_t percent : {95U, 90U, 86U}) {
      const std::uint64_t target = model.bytes() * percent / 100;
      const auto report = model.cool(target);
      if (!report.ok()) CHECK(report.status().code() == StatusCode::resource_exhausted);
      if (report.ok()) CHECK(model.bytes() <= target);
      model.check_reads();
    }
    model.append({entry(id, 1, 1)});
  }
  CoolingModel model(cool_spec(512), 2, 9);
  const SequenceId id = filled(model, 250);
  const auto before = model.sequences[id].layers[1][1];
  REQUIRE(model.cache->set_sensitivity(1, Side::v, -1.0).ok());
  REQUIRE(model.cache->cool({.target_bytes = model.bytes() * 98 / 100, .sinks = 1, .recent = 1}).ok());
  CHECK(model.cooled_pages(0) != 0);
  std::vector<float> got(before.size());
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(got.data());
  REQUIRE(model.cache->read(id, 1, Side::v, 0, 250, view).ok());
  CHECK(got == before);
  // The others are cold by then: the layer cannot join them.
  REQUIRE(model.cache->set_sensitivity(1, Side::v, 1.0).ok());
  const Status late = model.cache->cool({.target_bytes = 1}).status();
  CHECK(late.code() == StatusCode::failed_precondition);
}

TEST_CASE("host cooling: turned keys leave values cold") {
  CoolingModel model(cool_spec(512), 2, 10);
  const SequenceId id = filled(model, 250);
  cool(model, 85);
  const std::size_t cold = model.cooled_pages(0);
  Rotation rotation;
  rotation.frequencies = {1.0, 0.1};
  REQUIRE(model.cache->shift_keys(id, 0, 250, rotation, -3).ok());
  CHECK(model.cooled_pages(0) == cold);
  for (std::uint32_t layer = 0; layer < model.spec.layers.size(); ++layer) {
    std::vector<float> got(model.sequences[id].layers[layer][1].size());
    TensorView view;
    view.host = reinterpret_cast<std::byte*>(got.data());
    REQUIRE(model.cache->read(id, layer, Side::v, 0, 250, view).ok());
    CHECK(got == model.sequences[id].layers[layer][1]);
  }
}

TEST_CASE("host cooling: fresh pages are not given up for cold ones, nor are those that are to be read back whole") {
  CacheSpec spec = cool_spec(512);
  spec.prefix_cache = true;
  CoolingModel model(spec, 2, 11);
  std::vector<std::int32_t> ids(64);
  std::iota(ids.begin(), ids.end(), 1);
  const SequenceId first = model.create(), second = model.create();
  StepEntry prompt = entry(first, 64, 0);
  prompt.tokens = ids.data();
  model.append({prompt});
  REQUIRE(model.cache->cool({.target_bytes = model.bytes() * 9 / 10, .sinks = 0, .recent = 0}).ok());
  const auto cold = model.pages_of(first, 0);
  REQUIRE(std::any_of(cold.begin(), cold.end(), [&](std::int32_t page) { return model.grade_of(0, page) != 0; }));
  prompt.sequence = second;
  model.append({prompt});
  for (std::uint32_t layer = 0; layer < spec.layers.size(); ++layer)
    for (const std::int32_t page : model.pages_of(second, layer)) CHECK(model.grade_of(layer, page) == 0);
  // Who comes next gets the fresh ones.
  SequenceSpec again;
  again.tokens = ids;
  again.whole = true;
  const auto third = model.cache->create_sequence(again);
  REQUIRE(third.ok());
  CHECK(third->reused_tokens == 64);
  CHECK(model.pages_of(third->sequence, 0) == model.pages_of(second, 0));
  // And they stay, as they are to be read back whole.
  (void)model.cache->cool({.target_bytes = 1, .sinks = 0, .recent = 0});
  for (const std::int32_t page : model.pages_of(third->sequence, 0)) CHECK(model.grade_of(0, page) == 0);
}

TEST_CASE("host cooling: a device without memory for cooled pages loses nothing") {
  int failures = 0;
  for (int which = 0; which < 3; ++which)
    for (int n = 0; n < 40; ++n) {
      CAPTURE(which);
      CAPTURE(n);
      CoolingModel model(cool_spec(192), 1, 8);
      const SequenceId id = filled(model, 130);
      int& countdown = which == 0 ? model.executor.fail_create : which == 1 ? model.executor.fail_stage : model.executor.fail_submit;
      countdown = n;
      const std::uint64_t target = model.bytes() * 84 / 100;
      const bool failed = !model.cool(target).ok();
      countdown = -1;
      failures += failed ? 1 : 0;
      model.check_reads();
      model.append({entry(id, 1, 1)});
      REQUIRE(model.cool(target).ok());
      CHECK(model.bytes() <= target);
      model.check_reads();
      if (!failed) break;
    }
  CHECK(failures >= 6);
}

}  // namespace
}  // namespace kvant
