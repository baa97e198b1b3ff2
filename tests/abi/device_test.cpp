// What a device tells of itself, conversion of rows, profiles and the copy that benchmarks compare with.
#include <cmath>
#include <string_view>

#include <nlohmann/json.hpp>

#include "library.hpp"

using namespace abi_test;

TEST_CASE("device: facts, plan, modules and quirks as JSON") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  std::uint32_t count = 0;
  require_ok(api().device_count(session.context, &count));
  std::vector<kvant_device_info> infos(count + 1, make<kvant_device_info>());
  for (std::uint32_t i = 0; i < count; ++i) require_ok(api().device_info(session.context, i, &infos[i]));
  require_ok(api().device_describe(session.device, &infos[count]));
  std::uint32_t usable = 0;
  for (const kvant_device_info& info : infos) {
    CHECK(std::string_view(info.name) != "");
    CHECK(std::string_view(info.driver) != "");
    CHECK((info.usable == 1) == std::string_view(info.reasons).empty());
    CHECK(info.memory_size > 0);
    CHECK(info.type <= KVANT_DEVICE_CPU);
    usable += info.usable;
    const auto json = nlohmann::json::parse(info.json);
    CHECK(json.at("snapshot").at("name") == info.name);
    CHECK(json.at("plan").at("tier") == info.tier);
    CHECK(json.at("quirks").is_array());
    std::size_t available = 0;
    for (const auto& module : json.at("modules")) {
      CHECK(module.at("name").get<std::string>() != "");
      CHECK(module.at("available").get<bool>() != module.contains("reason"));
      available += module.at("available").get<bool>() ? 1u : 0u;
    }
    if (info.usable == 1) CHECK(available >= 7);  // the tier-0 modules
  }
  CHECK(usable >= 2);
}

TEST_CASE("device: an override narrows it, and the facts show that") {
  Session session({.open_device = false});
  std::uint32_t count = 0;
  require_ok(api().device_count(session.context, &count));
  if (count == 0) {
    session.has_device();
    return;
  }
  auto args = make<kvant_device_args>();
  args.device_index = KVANT_DEVICE_BEST;
  args.capability_override = "{\"fp16\": false, \"subgroup_ops\": 0, \"int_dot\": false}";
  kvant_device* device = nullptr;
  require_ok(api().device_open(session.context, &args, &device));
  auto info = make<kvant_device_info>();
  require_ok(api().device_describe(device, &info));
  CHECK(info.tier == 0);
  const auto json = nlohmann::json::parse(info.json);
  CHECK(json.at("plan").at("capabilities").at("fp16") == false);
  CHECK(json.at("snapshot").at("fp16") == false);
  for (const auto& module : json.at("modules"))
    if (module.at("name") == "attend_decode_f16")
      CHECK(module.at("reason").get<std::string>().find("16-bit") != std::string::npos);
  api().device_close(device);
}

TEST_CASE("formats: enumeration agrees with names and sizes") {
  Session session({.open_device = false});
  std::uint32_t count = 0;
  require_ok(api().format_count(session.context, &count));
  for (std::uint32_t id = 0; id < count; ++id) {
    auto info = make<kvant_format_info>();
    require_ok(api().format_info(session.context, id, &info));
    CAPTURE(info.name);
    std::uint32_t found = ~0u;
    require_ok(api().format_find(session.context, info.name, &found));
    CHECK(found == id);
    CHECK(info.block_elements >= 1);
    std::uint64_t bytes = 0;
    require_ok(api().row_bytes(session.context, id, 128, &bytes));
    CHECK(bytes == std::uint64_t{info.block_bytes} * (128 / info.block_elements));
    // The pool holds the same bits as the canonical bytes, or up to the scale planes' alignment more.
    CHECK(info.bits_per_element >= 2.25);
    CHECK(std::fabs(info.bits_per_element - static_cast<double>(bytes) * 8 / 128) <= 0.5);
  }
  for (const char* name : {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "nf4", "nf4_dq", "f8_e4m3", "iq4_nl", "nl4", "t4", "t5", "t4x", "t3",
                           "t2", "q8h"})
    session.format(name);
}

TEST_CASE("device: rows go to canonical bytes and back") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  constexpr std::uint32_t kDim = 64, kRows = 5;
  const std::vector<float> x = random_floats(kDim * kRows, 11);
  struct Bound {
    const char* format;
    float error;
  };
  for (const Bound bound : {Bound{"f32", 0.0F}, Bound{"q4_0", 0.13F}, Bound{"nf4_dq", 0.19F}}) {
    CAPTURE(bound.format);
    const std::uint32_t format = session.format(bound.format);
    std::uint64_t row = 0;
    require_ok(api().row_bytes(session.context, format, kDim, &row));
    std::vector<unsigned char> bytes(row * kRows + 16, 0xEE);
    std::vector<float> y(x.size() + 4, 8.0F);
    require_ok(api().quantize(session.device, format, kDim, kRows, x.data(), x.size() * 4, bytes.data(), row * kRows));
    require_ok(api().dequantize(session.device, format, kDim, kRows, bytes.data(), row * kRows, y.data(), x.size() * 4));
    float worst = 0.0F;
    for (std::size_t i = 0; i < x.size(); ++i) {
      REQUIRE(std::isfinite(y[i]));
      worst = std::max(worst, std::fabs(x[i] - y[i]));
    }
    CHECK(worst <= bound.error);
    if (bound.error > 0.0F) CHECK(worst > 0.0F);
    for (std::size_t i = row * kRows; i < bytes.size(); ++i) CHECK(bytes[i] == 0xEE);
    for (std::size_t i = x.size(); i < y.size(); ++i) CHECK(y[i] == 8.0F);
  }
}

TEST_CASE("device: exported bytes decode to what is read") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  constexpr std::uint32_t kTokens = 21;
  kvant_cache* cache = make_cache(session, {.format_k = "q4_0", .format_v = "nf4_dq"});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = random_floats(kTokens * 128, 1);
  data.v = random_floats(kTokens * 128, 2);
  run_step(cache, 1, sequence, kTokens, 0, data);
  for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
    const std::uint32_t format = session.format(side == KVANT_SIDE_K ? "q4_0" : "nf4_dq");
    std::uint64_t row = 0;
    require_ok(api().row_bytes(session.context, format, 64, &row));
    std::vector<unsigned char> bytes(row * kTokens * 2);
    require_ok(api().sequence_export(cache, sequence, 0, side, 0, kTokens, bytes.data(), bytes.size()));
    std::vector<float> decoded(kTokens * 128), read(kTokens * 128);
    require_ok(api().dequantize(session.device, format, 64, kTokens * 2, bytes.data(), bytes.size(), decoded.data(),
                                decoded.size() * 4));
    kvant_tensor out = tensor_of(read);
    require_ok(api().sequence_read(cache, sequence, 0, side, 0, kTokens, &out));
    CHECK(decoded == read);
  }
  // Another format on one side; the other stays.
  std::vector<float> before(kTokens * 128), after(kTokens * 128);
  kvant_tensor a = tensor_of(before), b = tensor_of(after);
  require_ok(api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, &a));
  require_ok(api().cache_convert(cache, 0, KVANT_SIDE_K, session.format("f32")));
  require_ok(api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, &b));
  CHECK(before == after);
  api().cache_destroy(cache);
}

TEST_CASE("device: profiles and the copy rate") {
  Session session({.profiling = true});
  if (!session.has_device()) return;
  std::uint32_t count = 0;
  require_ok(api().device_profile(session.device, &count));
  kvant_cache* cache = make_cache(session, {});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.q_heads = 2;
  data.k = random_floats(8 * 128, 1);
  data.v = random_floats(8 * 128, 2);
  data.q = random_floats(128, 3);
  data.out.assign(128, 0.0F);
  run_step(cache, 1, sequence, 8, 1, data);
  double rate = 0.0;
  require_ok(api().device_measure_copy(session.device, 1u << 20, &rate));
  CHECK(rate > 1e6);
  CHECK(rate < 1e14);
  require_ok(api().device_profile(session.device, &count));
  auto info = make<kvant_device_info>();
  require_ok(api().device_describe(session.device, &info));
  if (nlohmann::json::parse(info.json).at("plan").at("timestamps") == true) {
    bool appended = false;
    for (std::uint32_t i = 0; i < count; ++i) {
      auto entry = make<kvant_profile_entry>();
      require_ok(api().device_profile_entry(session.device, i, &entry));
      CHECK(entry.count > 0);
      CHECK(entry.microseconds >= 0.0);
      appended = appended || std::string_view(entry.label) == "append";
    }
    CHECK(appended);
  }
  auto entry = make<kvant_profile_entry>();
  check_error(api().device_profile_entry(session.device, count, &entry), KVANT_ERROR_INVALID_ARGUMENT, "device_profile_entry",
              "index (" + std::to_string(count) + ")");
  CHECK(entry.label == nullptr);
  std::uint32_t again = 99;
  require_ok(api().device_profile(session.device, &again));
  CHECK(again == 0);
  api().cache_destroy(cache);
}
