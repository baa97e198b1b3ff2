// Corners of the cache that random histories seldom reach: two owners of one page, a full pool, pages of different fill, and
// dispatches and passes that the device's limits cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

CacheSpec plain_spec(std::uint64_t tokens, std::uint32_t layers = 1) {
  CacheSpec spec;
  spec.layers.assign(layers, {1, 32, 32, FormatId::f32, FormatId::f16, 0, 0});
  spec.capacity_tokens = tokens;
  return spec;
}

// Many short items: a query or two over one page each.
void cut_finely(CacheModel& model) {
  AttendConfig config = model.executor.cpu.attend_config({});
  config.kernel = KernelId::attend_prefill;
  config.heads_per_tile = 1;
  config.queries_per_item = 2;
  config.kv_split = config.kv_per_item = 16;
  model.executor.cpu.set_attend_config(config);
}

TEST_CASE("host cache: of two owners of a page the one that writes gets a copy") {
  CacheModel model(plain_spec(16 * 8), 4, 1);
  const SequenceId a = model.create();
  model.step({entry(a, 32, 0)});
  model.fork(a, 32);
  model.truncate(a, 20);
  const auto shared = cache_debug(*model.cache).sequence_pages(a, 0).value();
  REQUIRE(cache_debug(*model.cache).page_references(0, static_cast<std::uint32_t>(shared[1])) == 2);
  model.step({entry(a, 4, 4)});
  CHECK(cache_debug(*model.cache).sequence_pages(a, 0).value()[1] != shared[1]);
  CHECK(cache_debug(*model.cache).page_references(0, static_cast<std::uint32_t>(shared[1])) == 1);
  model.check_reads();
}

TEST_CASE("host cache: a full pool has no page for the copy of a shared one") {
  CacheModel model(plain_spec(16 * 4), 4, 1);
  const SequenceId a = model.create(), b = model.create();
  model.step({entry(a, 32, 0), entry(b, 32, 0)});
  model.fork(a, 32);
  model.truncate(a, 20);
  const auto pages = cache_debug(*model.cache).sequence_pages(a, 0).value();
  const Status status = model.cache->plan(std::vector{entry(a, 1, 1)}).status();
  CHECK(status.code() == StatusCode::resource_exhausted);
  CHECK_MESSAGE(status.message().find("1 pages are needed") != std::string::npos, status.message());
  CHECK(cache_debug(*model.cache).sequence_pages(a, 0).value() == pages);
  CHECK(model.cache->memory_use().used_pages == 4);
  model.check_reads();
}

TEST_CASE("host cache: an aborted step leaves the free pages in their order") {
  std::array<std::vector<std::int32_t>, 2> pages;
  for (const bool aborted : {false, true}) {
    CacheModel model(plain_spec(16 * 12), 12, 1);
    const SequenceId a = model.create();
    model.step({entry(a, 20, 0)});
    if (aborted) model.step({entry(a, 70, 0)}, false);
    model.step({entry(a, 70, 0)});
    pages[aborted ? 1 : 0] = cache_debug(*model.cache).sequence_pages(a, 0).value();
  }
  CHECK(pages[0] == pages[1]);
}

TEST_CASE("host cache: convert takes a shared page as far as its longest owner filled it") {
  CacheModel model(plain_spec(16 * 8), 4, 1);
  const SequenceId a = model.create();
  model.step({entry(a, 32, 0)});
  model.fork(a, 32);
  model.truncate(model.sequences.rbegin()->first, 5);
  REQUIRE(model.cache->convert(0, Side::v, FormatId::q8_0).ok());
  for (auto& [id, tokens] : model.sequences)
    for (std::size_t at = 0; at < tokens.layers[0][1].size(); at += 32)
      CacheModel::recode(FormatId::q8_0, 32, std::span(tokens.layers[0][1]).subspan(at, 32));
  model.check_reads();
}

TEST_CASE("host cache: grids cut at the device's limit still reach every item and every merge") {
  CacheModel model(plain_spec(16 * 16), 16, 1);
  cut_finely(model);
  ExecutorLimits limits = model.executor.limits();
  limits.max_groups[0] = 2;
  model.executor.cpu.set_limits(limits);
  model.options.lse = true;
  const SequenceId a = model.create();
  model.step({entry(a, 90, 90)});
  model.step({entry(a, 1, 1)});
  for (const CommandList& list : model.executor.lists)
    for (const Command& command : list.commands)
      if (command.type == Command::Type::dispatch) CHECK(command.dispatch.groups[0] <= 2);
}

TEST_CASE("host cache: partial results that do not fit at once go through passes of different size") {
  CacheModel model(plain_spec(16 * 16), 4, 1);
  cut_finely(model);
  const SequenceId a = model.create();
  model.step({entry(a, 20, 0)});
  ExecutorLimits limits = model.executor.limits();
  limits.max_binding_bytes = 180 * 33 * sizeof(float);  // 180 partial rows of 32 values and a log-sum-exp
  model.executor.cpu.set_limits(limits);
  model.options.lse = true;
  model.options.sinks = true;
  model.step({entry(a, 90, 90)});
  CHECK(model.executor.count(KernelId::attend_merge) > 3);
}

TEST_CASE("host cache: slabs of a failed plan are given back, in memory and in the books") {
  CacheModel model(plain_spec(16 * 4, 2), 4, 1);
  const SequenceId a = model.create();
  model.executor.fail_create = 1;  // the second layer's slab
  CHECK(model.cache->plan(std::vector{entry(a, 1, 0)}).status().code() == StatusCode::resource_exhausted);
  CHECK(model.cache->memory_use().pool_bytes == 0);
  CHECK(model.executor.live_bytes() == 0);
  model.step({entry(a, 1, 1)});
  CHECK(model.cache->memory_use().pool_bytes > 0);
}

}  // namespace
}  // namespace kvant
