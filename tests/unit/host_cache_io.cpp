// Reading, exporting, converting, external pages and stand-alone rows, on the CPU executor.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "host_cache_model.hpp"

namespace kvant {
namespace {

using test::CacheModel;
using test::entry;
using test::Random;

CacheSpec one_layer(FormatId k, FormatId v) {
  CacheSpec spec;
  spec.layers = {{2, 72, 64, k, v, 0, 0}};
  spec.capacity_tokens = 16 * 12;
  return spec;
}

TensorView host_view(std::vector<float>& x) {
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(x.data());
  return view;
}

TEST_CASE("host cache_io: canonical bytes are the reference encoding of what was appended") {
  for (const FormatInfo& format : formats()) {
    CAPTURE(format.name);
    CacheModel model(one_layer(format.id, FormatId::f16), 4, 3);
    cache_debug(*model.cache).shuffle_free_pages(3, true);
    const SequenceId a = model.create();
    model.step({entry(a, 39, 0)});
    const std::uint64_t row = canonical_row_bytes(format, 72);
    std::vector<std::byte> bytes(5 * 2 * row);
    REQUIRE(model.cache->read_canonical(a, 0, Side::k, 30, 5, bytes).ok());
    std::vector<float> decoded(72);
    const auto& rows = model.sequences[a].layers[0][0];
    for (std::size_t r = 0; r < 10; ++r) {
      decode_canonical_row(format, std::span(bytes).subspan(r * row, row), decoded);
      for (std::size_t i = 0; i < 72; ++i) REQUIRE(decoded[i] == rows[(60 + r) * 72 + i]);
    }
  }
}

TEST_CASE("host cache_io: reads in pieces, with strides, into 16-bit types") {
  CacheModel model(one_layer(FormatId::f16, FormatId::f32), 3, 4);
  ExecutorLimits limits = model.executor.limits();
  limits.max_staging_bytes = 4096;  // a row of K takes 576 bytes: a few tokens a piece
  const SequenceId a = model.create();
  model.step({entry(a, 50, 0)});
  model.executor.cpu.set_limits(limits);
  std::vector<std::uint16_t> halves(50 * 200, 0x1234);
  TensorView view;
  view.host = reinterpret_cast<std::byte*>(halves.data());
  view.type = IoType::f16;
  view.token_stride = 200;
  view.head_stride = 90;
  REQUIRE(model.cache->read(a, 0, Side::k, 0, 50, view).ok());
  const auto& rows = model.sequences[a].layers[0][0];
  for (std::size_t t = 0; t < 50; ++t)
    for (std::size_t e = 0; e < 200; ++e) {
      const std::size_t head = e / 90, i = e % 90;
      const bool inside = head < 2 && i < 72;
      REQUIRE(halves[t * 200 + e] == (inside ? f32_to_f16(rows[(t * 2 + head) * 72 + i]) : 0x1234));
    }
}

TEST_CASE("host cache_io: large steps go through scratch, piece by piece, with the same result") {
  CacheModel model(one_layer(FormatId::q8_0, FormatId::q4_1), 64, 5);
  ExecutorLimits limits = model.executor.limits();
  limits.max_staging_bytes = 8192;
  model.executor.cpu.set_limits(limits);
  const SequenceId a = model.create();
  model.options.lse = true;
  model.step({entry(a, 90, 90)});
  model.step({entry(a, 1, 1)});
  model.check_reads();
}

TEST_CASE("host cache_io: strided and 16-bit step tensors") {
  Random random(6);
  CacheSpec spec = one_layer(FormatId::f32, FormatId::f32);
  spec.layers[0].head_dim_k = spec.layers[0].head_dim_v = 32;
  CacheModel model(spec, 4, 6);
  const SequenceId a = model.create();
  auto step = model.cache->plan(std::vector{entry(a, 3, 3)});
  REQUIRE(step.ok());
  // Fused projections: [token][q0 q1 k0 k1 v0 v1] of 32, in bf16.
  std::vector<std::uint16_t> fused(3 * 6 * 32);
  for (std::uint16_t& x : fused) x = f32_to_bf16(random.normal());
  std::vector<float> out(3 * 2 * 32);
  RunArgs args;
  auto part = [&](std::size_t first) {
    TensorView view;
    view.host = reinterpret_cast<std::byte*>(fused.data() + first * 32);
    view.type = IoType::bf16;
    view.token_stride = 6 * 32;
    return view;
  };
  args.q = part(0);
  args.k = part(2);
  args.v = part(4);
  args.out = host_view(out);
  args.q_heads = 2;
  REQUIRE(model.cache->run(*step.value(), 0, args).ok());
  REQUIRE(model.cache->commit(std::move(step).value()).ok());
  // The first token sees itself alone: its output is its V.
  for (std::size_t i = 0; i < 64; ++i) CHECK(out[i] == doctest::Approx(bf16_to_f32(fused[4 * 32 + i])));
  std::vector<float> k(3 * 64);
  REQUIRE(model.cache->read(a, 0, Side::k, 0, 3, host_view(k)).ok());
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 64; ++i) CHECK(k[t * 64 + i] == bf16_to_f32(fused[t * 192 + 64 + i]));
}

TEST_CASE("host cache_io: convert keeps what the new format can hold, on every page in use") {
  for (const FormatId target : {FormatId::q8_0, FormatId::nf4_dq, FormatId::bf16, FormatId::f32}) {
    CacheModel model(one_layer(FormatId::f16, FormatId::f16), 3, 7);
    const SequenceId a = model.create();
    model.step({entry(a, 75, 0)});
    model.fork(a, 20);
    const std::uint64_t before = model.cache->memory_use().pool_bytes;
    REQUIRE(model.cache->convert(0, Side::v, target).ok());
    CHECK(model.cache->spec().layers[0].format_v == target);
    CHECK(model.cache->memory_use().pool_bytes != (target == FormatId::bf16 ? 0 : before));
    CHECK(model.cache->memory_use().pool_bytes <= model.executor.live_bytes());
    for (auto& [id, tokens] : model.sequences) {
      auto& rows = tokens.layers[0][1];
      for (std::size_t at = 0; at < rows.size(); at += 64)
        CacheModel::recode(target, 64, std::span(rows).subspan(at, 64));
    }
    model.check_reads();
    model.step({entry(a, 20, 20)});
    model.check_reads();
    REQUIRE(model.cache->convert(0, Side::v, target).ok());  // already there: nothing happens
  }
}

TEST_CASE("host cache_io: external pages") {
  CacheSpec spec = one_layer(FormatId::f32, FormatId::f32);
  spec.layers.push_back(spec.layers[0]);
  spec.external_pages = true;
  test::TestExecutor executor;
  GeometryOptions options;
  options.max_pages_per_slab = 5;
  auto created = create_cache(executor, spec, Log{}, options);
  REQUIRE(created.ok());
  Cache& cache = *created.value();
  cache_debug(cache).set_poison(test::kNan);
  CHECK(cache.create_sequence().status().code() == StatusCode::failed_precondition);
  CHECK(cache.plan({}).status().code() == StatusCode::failed_precondition);

  // Two sequences: pages 9, -1, 2 with 3 tokens in the last; page 7 with 2 tokens.
  const std::vector<std::int64_t> slots{9 * 16, 9 * 16 + 1, -1, 2 * 16 + 2, 7 * 16, 7 * 16 + 1, 2 * 16, 2 * 16 + 1};
  const std::vector<std::int32_t> qo{0, 1, 2}, kv{0, 3, 4}, indices{9, -1, 2, 7}, last{3, 2};
  PagedBatch batch;
  batch.slot_mapping = slots;
  batch.qo_indptr = qo;
  batch.kv_indptr = kv;
  batch.kv_indices = indices;
  batch.kv_last_page_len = last;
  Random random(8);
  std::vector<float> k(8 * 2 * 72), v(8 * 2 * 64), q(2 * 2 * 72), out(2 * 2 * 64);
  for (float& x : k) x = random.normal();
  for (float& x : v) x = random.normal();

  auto refused = [&](PagedBatch wrong, const char* text) {
    const Status status = cache.plan_paged(wrong).status();
    CHECK(status.code() == StatusCode::invalid_argument);
    CHECK_MESSAGE(status.message().find(text) != std::string::npos, status.message());
  };
  PagedBatch wrong = batch;
  const std::vector<std::int64_t> far{12 * 16}, twice{5, 6, 5};
  wrong.slot_mapping = far;
  refused(wrong, "slot 192");
  wrong.slot_mapping = twice;
  refused(wrong, "slot 5 appears twice");
  wrong = batch;
  const std::vector<std::int32_t> bad_pages{9, -2, 2, 7}, bad_last{3, 17}, falling{0, 3, 2};
  wrong.kv_indices = bad_pages;
  refused(wrong, "page -2");
  wrong = batch;
  wrong.kv_last_page_len = bad_last;
  refused(wrong, "kv_last_page_len[1] (17)");
  wrong = batch;
  wrong.kv_indptr = falling;
  refused(wrong, "falls");

  // Seven of eight fresh tokens have a slot. The first 16 tokens of page 9 beyond the second were never written, so the
  // query of sequence 0 may only see page 2: a window is not set, hence the engine masks by a custom mask.
  std::vector<std::uint32_t> mask{0x3, 0x7, 0x2, 0x0};  // tokens 0, 1 and 32..34; token 1
  batch.mask = mask.data();
  batch.mask_row_words = 2;
  auto step = cache.plan_paged(batch);
  REQUIRE(step.ok());
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    RunArgs args;
    args.k = host_view(k);
    args.v = host_view(v);
    args.q = host_view(q);  // zeros: every visible key weighs the same
    args.out = host_view(out);
    args.q_heads = 2;
    REQUIRE(cache.run(*step.value(), layer, args).ok());
    for (std::size_t h = 0; h < 2; ++h)
      for (std::size_t i = 0; i < 64; ++i) {
        auto at = [&](std::size_t token) { return static_cast<double>(v[(token * 2 + h) * 64 + i]); };
        CHECK(static_cast<double>(out[h * 64 + i]) ==
              doctest::Approx((at(0) + at(1) + at(6) + at(7) + at(3)) / 5).epsilon(1e-5));
        CHECK(static_cast<double>(out[128 + h * 64 + i]) == doctest::Approx(at(5)).epsilon(1e-5));
      }
  }
  CHECK(cache.copy_pages(std::vector{2}, std::vector{3}).code() == StatusCode::ok);
  REQUIRE(cache.commit(std::move(step).value()).ok());

  const std::vector<std::int64_t> wanted{3 * 16 + 2, -1, 9 * 16, 7 * 16 + 1};
  std::vector<float> rows(4 * 144, 5.0f);
  REQUIRE(cache.read_slots(1, Side::k, wanted, host_view(rows)).ok());
  const std::size_t tokens[4] = {3, 0, 0, 5};
  for (std::size_t r = 0; r < 4; ++r)
    for (std::size_t i = 0; i < 144; ++i) REQUIRE(rows[r * 144 + i] == (r == 1 ? 0.0f : k[tokens[r] * 144 + i]));
  CHECK(cache.read_slots(1, Side::k, std::vector<std::int64_t>{-5, -1}, host_view(rows)).ok());
  CHECK(rows[0] == 0.0f);
  CHECK(cache.read_slots(1, Side::k, std::vector<std::int64_t>{192}, host_view(rows)).code() ==
        StatusCode::invalid_argument);
  CHECK(cache.copy_pages(std::vector{2, 3}, std::vector{3, 4}).code() == StatusCode::invalid_argument);
  CHECK(cache.copy_pages(std::vector{2, 5}, std::vector{4, 4}).code() == StatusCode::invalid_argument);
  CHECK(cache.copy_pages(std::vector{2}, std::vector{12}).code() == StatusCode::invalid_argument);
  CHECK(cache.copy_pages(std::vector{2}, std::vector{1, 4}).code() == StatusCode::invalid_argument);
}

TEST_CASE("host cache_io: external pages need one layer group") {
  CacheSpec spec = one_layer(FormatId::f32, FormatId::f32);
  spec.layers.push_back({2, 72, 64, FormatId::f32, FormatId::f32, 100, 0});
  spec.external_pages = true;
  test::TestExecutor executor;
  const auto cache = Cache::create(executor, spec, Log{});
  CHECK(cache.status().code() == StatusCode::invalid_argument);
}

TEST_CASE("host rows: stand-alone quantization equals the reference, in chunks") {
  test::TestExecutor executor;
  ExecutorLimits limits = executor.limits();
  limits.max_staging_bytes = 20'000;  // a few pages a chunk
  executor.cpu.set_limits(limits);
  Random random(9);
  const std::uint32_t dim = 104, rows = 101;
  std::vector<float> x(dim * rows), back(dim * rows), expected(dim);
  for (float& value : x) value = random.normal();
  for (const FormatInfo& format : formats()) {
    CAPTURE(format.name);
    const std::uint64_t row = canonical_row_bytes(format, dim);
    std::vector<std::byte> bytes(rows * row), reference_row(row);
    REQUIRE(quantize_rows(executor, format.id, dim, x, bytes).ok());
    REQUIRE(dequantize_rows(executor, format.id, dim, bytes, back).ok());
    for (std::uint32_t r = 0; r < rows; ++r) {
      encode_canonical_row(format, std::span(x).subspan(r * dim, dim), reference_row);
      REQUIRE(std::memcmp(reference_row.data(), bytes.data() + r * row, row) == 0);
      decode_canonical_row(format, reference_row, expected);
      REQUIRE(std::memcmp(expected.data(), back.data() + r * dim, dim * sizeof(float)) == 0);
    }
    CHECK(executor.live.empty());
    bytes.pop_back();
    CHECK(quantize_rows(executor, format.id, dim, x, bytes).code() == StatusCode::invalid_argument);
    CHECK(dequantize_rows(executor, format.id, dim, bytes, back).code() == StatusCode::invalid_argument);
  }
}

}  // namespace
}  // namespace kvant
