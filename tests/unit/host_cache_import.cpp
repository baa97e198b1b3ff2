// Importing canonical bytes into a step: what was exported comes back code by code, on the CPU executor.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;

constexpr std::uint32_t kHeads = 2, kDimK = 72, kDimV = 64;

CacheSpec two_layers(FormatId k, FormatId v) {
  CacheSpec spec;
  spec.layers = {{kHeads, kDimK, kDimV, k, v, 0, 0}, {kHeads, kDimK, kDimV, v, k, 0, 0}};
  spec.capacity_tokens = 16 * 16;
  return spec;
}

using Bytes = std::vector<std::byte>;

Bytes exported(Cache& cache, SequenceId id, std::uint32_t layer, Side side, std::uint64_t begin, std::uint64_t count) {
  const LayerSpec& spec = cache.spec().layers[layer];
  const std::uint64_t row = side == Side::k ? canonical_row_bytes(format_info(spec.format_k), kDimK)
                                            : canonical_row_bytes(format_info(spec.format_v), kDimV);
  Bytes bytes(count * kHeads * row);
  REQUIRE(cache.read_canonical(id, layer, side, begin, count, bytes).ok());
  return bytes;
}

void same(Cache& a, SequenceId in_a, Cache& b, SequenceId in_b, std::uint64_t tokens) {
  for (std::uint32_t layer = 0; layer < 2; ++layer)
    for (const Side side : {Side::k, Side::v})
      CHECK(exported(a, in_a, layer, side, 0, tokens) == exported(b, in_b, layer, side, 0, tokens));
}

// Appends tokens [begin, end) of `from` to `to`.
void import(Cache& source, SequenceId from, Cache& target, SequenceId to, std::uint64_t begin, std::uint64_t end,
            bool commit = true) {
  const StepEntry entries[] = {entry(to, static_cast<std::uint32_t>(end - begin), 0)};
  auto step = target.plan(entries);
  REQUIRE_MESSAGE(step.ok(), step.status().message());
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    const Status status =
        target.import_layer(*step.value(), layer, exported(source, from, layer, Side::k, begin, end - begin),
                            exported(source, from, layer, Side::v, begin, end - begin));
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  if (commit) {
    REQUIRE(target.commit(std::move(step).value()).ok());
  } else {
    target.abort(std::move(step).value());
  }
}

TEST_CASE("host cache_import: what was exported comes back code by code") {
  for (const FormatInfo& format : formats()) {
    CAPTURE(format.name);
    const CacheSpec spec = two_layers(format.id, FormatId::q8_0);
    CacheModel source(spec, 4, 3), target(spec, 3, 9);
    cache_debug(*target.cache).shuffle_free_pages(5, true);
    const SequenceId a = source.create(), b = target.create();
    source.step({entry(a, 75, 0)});
    for (const auto& [begin, end] : {std::pair{0, 39}, {39, 40}, {40, 48}, {48, 75}})  // inside of pages and at their edges
      import(*source.cache, a, *target.cache, b, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(end));
    same(*source.cache, a, *target.cache, b, 75);
  }
}

TEST_CASE("host cache_import: pages come up in pieces where staging is short") {
  const CacheSpec spec = two_layers(FormatId::nf4_dq, FormatId::q5_1);
  CacheModel source(spec, 4, 3), target(spec, 16, 9);
  const SequenceId a = source.create(), b = target.create();
  source.step({entry(a, 100, 0)});
  import(*source.cache, a, *target.cache, b, 0, 7);
  ExecutorLimits limits = target.executor.limits();
  limits.max_staging_bytes = 8192;
  target.executor.cpu.set_limits(limits);
  import(*source.cache, a, *target.cache, b, 7, 100);
  limits.max_staging_bytes = 1u << 20;
  target.executor.cpu.set_limits(limits);
  same(*source.cache, a, *target.cache, b, 100);
}

TEST_CASE("host cache_import: an aborted import and a shared page leave the others as they were") {
  const CacheSpec spec = two_layers(FormatId::q4_0, FormatId::nf4_dq);
  CacheModel source(spec, 4, 3), target(spec, 4, 9);
  const SequenceId a = source.create(), b = target.create();
  source.step({entry(a, 60, 0)});
  import(*source.cache, a, *target.cache, b, 0, 21);
  const std::uint64_t pages = target.cache->memory_use().used_pages;
  import(*source.cache, a, *target.cache, b, 21, 60, false);
  CHECK(target.cache->memory_use().used_pages == pages);
  same(*source.cache, a, *target.cache, b, 21);
  const SequenceId c = target.cache->fork_sequence(b, 20).value();
  import(*source.cache, a, *target.cache, c, 30, 50);  // other content behind 20 shared tokens
  same(*source.cache, a, *target.cache, b, 21);
  CHECK(exported(*target.cache, c, 0, Side::k, 20, 20) == exported(*source.cache, a, 0, Side::k, 30, 20));
  CHECK(exported(*target.cache, c, 1, Side::v, 0, 20) == exported(*source.cache, a, 1, Side::v, 0, 20));
}

TEST_CASE("host cache_import: refusals change nothing") {
  const CacheSpec spec = two_layers(FormatId::q8_0, FormatId::f16);
  CacheModel model(spec, 4, 3);
  const SequenceId a = model.create();
  const StepEntry entries[] = {entry(a, 3, 0)};
  auto step = model.cache->plan(entries);
  REQUIRE(step.ok());
  const Bytes k(3 * kHeads * canonical_row_bytes(format_info(FormatId::q8_0), kDimK));
  const Bytes v(3 * kHeads * canonical_row_bytes(format_info(FormatId::f16), kDimV));
  const auto refused = [&](std::uint32_t layer, std::span<const std::byte> bytes_k, std::span<const std::byte> bytes_v,
                           StatusCode code, const char* text) {
    const Status status = model.cache->import_layer(*step.value(), layer, bytes_k, bytes_v);
    CHECK(status.code() == code);
    CHECK_MESSAGE(status.message().find(text) != std::string::npos, status.message());
  };
  refused(2, k, v, StatusCode::invalid_argument, "layer (2)");
  refused(0, std::span(k).first(k.size() - 1), v, StatusCode::invalid_argument, "k of layer 0 has");
  refused(0, k, std::span(v).first(1), StatusCode::invalid_argument, "v of layer 0 has 1 bytes, 3 tokens take 768");
  CHECK(model.cache->commit(std::move(step).value()).code() == StatusCode::failed_precondition);  // nothing counts as appended
  model.cache->abort(std::move(step).value());

  const StepEntry asks[] = {entry(a, 3, 0)};
  auto first = model.cache->plan(asks);
  REQUIRE(first.ok());
  auto stale = std::move(first).value();
  CHECK(model.cache->import_layer(*stale, 0, k, v).ok());
  model.cache->abort(std::move(stale));
  CHECK(model.cache->memory_use().used_pages == 0);
}

}  // namespace
}  // namespace kvant
