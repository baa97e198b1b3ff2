// q5_k, q3_k and q2_k through the table: rows go there and back, as engines with glued heads have them, and nothing else takes them.
#include <cmath>
#include <cstring>

#include <kvant/kvant_ext_manager.h>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kInvalid = KVANT_ERROR_INVALID_ARGUMENT;

struct KQuant {
  const char* name;
  std::uint32_t block_bytes;
  double error;  // most relative squared error on normal data
};
constexpr KQuant kQuants[] = {{"q5_k", 176, 0.0014}, {"q3_k", 110, 0.0235}, {"q2_k", 84, 0.090}};

std::string refusal(std::uint32_t id, const std::string& argument, const std::string& name) {
  char number[16];
  std::snprintf(number, sizeof number, "0x%x", id);
  return argument + " (" + number + ") is " + name + ", which is for quantize and dequantize only";
}

}  // namespace

TEST_CASE("k-quants: names, ids and sizes") {
  Session session({.open_device = false});
  std::uint32_t count = 0;
  require_ok(api().format_count(session.context, &count));
  for (const KQuant& k : kQuants) {
    CAPTURE(k.name);
    const std::uint32_t id = session.format(k.name);
    CHECK(id >= 0x10000);
    CHECK(id > count);  // the enumeration is of formats that caches hold
    auto info = make<kvant_format_info>();
    require_ok(api().format_info(session.context, id, &info));
    CHECK(std::strcmp(info.name, k.name) == 0);
    CHECK(info.block_elements == 256);
    CHECK(info.block_bytes == k.block_bytes);
    CHECK(info.bits_per_element == k.block_bytes / 32.0);
    for (const std::uint32_t blocks : {1u, 4u, 4096u}) {
      std::uint64_t bytes = 0;
      require_ok(api().row_bytes(session.context, id, 256 * blocks, &bytes));
      CHECK(bytes == std::uint64_t{blocks} * k.block_bytes);
    }
  }
  std::uint32_t id = 99;
  check_error(api().format_find(session.context, "q5_K", &id), KVANT_ERROR_NOT_FOUND, "format_find", "q5_k, q3_k, q2_k");
  CHECK(id == 99);
}

TEST_CASE("k-quants: rows of glued heads go there and back") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  constexpr std::uint32_t kRow = 8 * 128, kRows = 6;  // tokens of 8 heads
  const std::vector<float> x = random_floats(kRow * kRows, 12);
  for (const KQuant& k : kQuants) {
    CAPTURE(k.name);
    const std::uint32_t format = session.format(k.name);
    const std::uint64_t row = std::uint64_t{kRow / 256} * k.block_bytes;
    std::vector<unsigned char> bytes(row * kRows + 16, 0xEE), alone(row);
    std::vector<float> y(x.size() + 4, 8.0F);
    require_ok(api().quantize(session.device, format, kRow, kRows, x.data(), x.size() * 4, bytes.data(), row * kRows));
    require_ok(api().dequantize(session.device, format, kRow, kRows, bytes.data(), row * kRows, y.data(), x.size() * 4));
    double error = 0, squares = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      error += std::pow(double{x[i]} - double{y[i]}, 2.0);
      squares += std::pow(double{x[i]}, 2.0);
    }
    CHECK(error <= k.error * squares);
    CHECK(error > 0);
    for (std::size_t i = row * kRows; i < bytes.size(); ++i) CHECK(bytes[i] == 0xEE);
    for (std::size_t i = x.size(); i < y.size(); ++i) CHECK(y[i] == 8.0F);
    // A row does not depend on its neighbours, nor on where its bytes lie.
    require_ok(api().quantize(session.device, format, kRow, 1, x.data() + 3 * kRow, kRow * 4, alone.data(), row));
    CHECK(std::memcmp(alone.data(), bytes.data() + 3 * row, row) == 0);
    std::memmove(bytes.data() + 1, bytes.data(), row);
    std::vector<float> moved(kRow);
    require_ok(api().dequantize(session.device, format, kRow, 1, bytes.data() + 1, row, moved.data(), kRow * 4));
    CHECK(std::memcmp(moved.data(), y.data(), kRow * 4) == 0);
  }
}

TEST_CASE("k-quants: caches refuse them") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const auto* m = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(m != nullptr);
  kvant_cache* cache = make_cache(session, {.format_k = "q8_0", .format_v = "q8_0"});
  const std::uint32_t held = session.format("q8_0");
  for (const KQuant& k : kQuants) {
    CAPTURE(k.name);
    const std::uint32_t id = session.format(k.name);
    auto layer = make<kvant_layer_args>();
    layer.kv_heads = 2;
    layer.head_dim_k = 256;
    auto args = make<kvant_cache_args>();
    args.layer_count = 1;
    args.layers = &layer;
    args.capacity_tokens = 64;
    kvant_cache* none = nullptr;
    layer.format_k = id;
    check_error(api().cache_create(session.device, &args, &none), kInvalid, "cache_create", refusal(id, "format_k", k.name));
    layer.format_k = held;
    layer.format_v = id;
    check_error(api().cache_create(session.device, &args, &none), kInvalid, "cache_create", refusal(id, "format_v", k.name));
    CHECK(none == nullptr);
    check_error(api().cache_convert(cache, 0, KVANT_SIDE_K, id), kInvalid, "cache_convert", refusal(id, "format", k.name));
    check_error(m->cache_quantize(cache, held, id), kInvalid, "cache_quantize", refusal(id, "format_v", k.name));
    auto memory = make<kvant_memory_args>();
    memory.formats = &id;
    memory.format_count = 1;
    check_error(m->memory_limit(cache, &memory), kInvalid, "memory_limit", refusal(id, "args.formats[0]", k.name));
  }
  api().cache_destroy(cache);
}
