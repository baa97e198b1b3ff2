// Tokens written at and over the end of a sequence: it grows, or on any failure is as it was, with the ids that it was told ahead.
#include <doctest/doctest.h>

#include <algorithm>

#include "host_prefix_model.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;

Status write(PrefixModel& model, SequenceId id, std::uint32_t layer, std::uint64_t begin, std::uint64_t count) {
  const LayerSpec& facts = model.spec.layers[std::min<std::size_t>(layer, model.spec.layers.size() - 1)];  // all are alike
  std::vector<float> rows(count * facts.kv_heads * facts.head_dim_k, 1.0f);
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(rows.data());
  return model.cache->write(id, layer, begin, count, view, view);
}

std::uint64_t length_of(PrefixModel& model, SequenceId id) { return model.cache->sequence_length(id).value(); }

TEST_CASE("host write: a write that fails after growing leaves length, pages and ids as they were") {
  const Tokens told = counting(0, 48);
  for (const std::uint64_t begin : {20u, 17u}) {
    CAPTURE(begin);
    int failures = 0;
    for (int fault = 0; fault < 12; ++fault) {
      CAPTURE(fault);
      PrefixModel model(PrefixModel::small(12));
      const SequenceId id = model.create(told).sequence;
      REQUIRE(model.append(id, counting(0, 20), false).ok());
      const std::uint64_t pages = model.cache->memory_use().used_pages;
      int& countdown = fault % 3 == 0   ? model.executor.fail_submit
                       : fault % 3 == 1 ? model.executor.fail_stage
                                        : model.executor.fail_create;
      countdown = fault / 3;
      const Status status = write(model, id, 0, begin, 20);
      countdown = -1;
      if (status.ok()) {
        CHECK(length_of(model, id) == begin + 20);
        continue;
      }
      ++failures;
      REQUIRE(length_of(model, id) == 20);
      CHECK(model.cache->memory_use().used_pages == pages);
      model.check_references();
      if (begin != 20) continue;  // tokens that are there may have been written over: their ids are gone
      model.check_all();
      // The rest of the prompt, whose ids nobody tells again, is published.
      REQUIRE(model.append(id, counting(20, 28), false).ok());
      model.check_all();
      CHECK(model.create(told).reused_tokens == 48);
    }
    CHECK(failures >= 2);
  }
}

TEST_CASE("host write: growing, and what is refused before anything happens") {
  PrefixModel model(PrefixModel::small(4));
  const Tokens told = counting(0, 48);
  const SequenceId id = model.create(told).sequence;
  REQUIRE(model.append(id, counting(0, 20), false).ok());
  CHECK(write(model, id, 0, 21, 1).code() == StatusCode::invalid_argument);   // a gap
  CHECK(write(model, id, 2, 20, 1).code() == StatusCode::invalid_argument);   // no such layer
  CHECK(write(model, id, 0, 20, 45).code() == StatusCode::resource_exhausted);  // 65 tokens in 4 pages
  CHECK(model.cache->write(id, 0, 20, UINT64_MAX, {}, {}).code() == StatusCode::invalid_argument);
  CHECK(model.cache->write(id, 0, 20, 4, {}, {}).code() == StatusCode::invalid_argument);  // no tensors
  CHECK(length_of(model, id) == 20);
  model.check_all();
  REQUIRE(model.append(id, counting(20, 28), false).ok());
  CHECK(model.create(told).reused_tokens == 48);

  // A write that succeeds makes tokens without ids.
  PrefixModel other(PrefixModel::small(8));
  const SequenceId grown = other.create(told).sequence;
  REQUIRE(other.append(grown, counting(0, 20), false).ok());
  for (std::uint32_t layer = 0; layer < 2; ++layer) REQUIRE(write(other, grown, layer, 20, 28).ok());
  CHECK(length_of(other, grown) == 48);
  SequenceSpec prefix;
  prefix.tokens = told;
  CHECK(other.cache->find_prefix(prefix).value() == 16);
}

}  // namespace
}  // namespace kvant
