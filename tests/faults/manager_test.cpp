// Configuration, statistics and the store of whole tensors.
#include "scene.hpp"

using namespace faults;

namespace {

constexpr Kind kDeviceKinds[] = {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation};

void configuration(Pass& pass) {
  Host& host = shared_host();
  Scene scene(pass, host, {.flags = KVANT_CACHE_PREFIXES});
  const kvant_ext_manager& manager = scene.manager();
  const Shape shape{};
  const std::vector<kvant_layer_args> layers = layers_of(host, shape);
  kvant_cache_args args = cache_args(layers, shape);
  auto config = make<kvant_config>();
  pass.call("config_default", [&] { return manager.config_default(host.context, nullptr, &config); });
  const char* json = nullptr;
  pass.call("config_write", [&] { return manager.config_write(host.context, &config, &json); });
  pass.call("config_parse", [&] { return manager.config_parse(host.context, json, &config); });
  for (const char* const wrong : {R"({"page_tokens": 16, "policy": {"kind": "lru", "ttl_ms": [1, {"a": "b"}]}})",
                                  R"({"page_tokens": 16, "policy": {"kind": "a policy of which nobody ever heard"}})",
                                  R"({"page_tokens": 16, "model": "a key that is none"})",
                                  R"({"page_tokens": 16, "page_tokens": 32})", R"({"page_tokens": "sixteen)",
                                  "{\"model_id\": \"\xC3(\"}", "[[[[[[[[[[[[16]]]]]]]]]]]]"}) {
    auto kept = make<kvant_config>();
    pass.call("config_parse", [&] { return expect_refusal(manager.config_parse(host.context, wrong, &kept)); });
  }
  kvant_cache* cache = nullptr;
  args.capacity_tokens = 128;
  pass.call("config_apply", [&] { return manager.config_apply(host.device, &args, &config, &cache); });
  pass.call("config_text", [&] { return manager.config_text(cache, &json); });
  scene.adopt(cache);
  const kvant_sequence sequence = scene.create();
  scene.step(sequence, 20, 1);
  scene.destroy();
}

void statistics(Pass& pass) {
  Scene scene(pass, shared_host());
  const kvant_ext_manager& manager = scene.manager();
  const kvant_sequence sequence = scene.create();
  pass.call("stats_sample_errors", [&] { return manager.stats_sample_errors(scene.cache(), 1); });
  scene.step(sequence, 20, 1);
  const char* text = nullptr;
  std::uint64_t size = 0;
  for (const std::uint32_t kind : {KVANT_STATS_JSON, KVANT_STATS_PROMETHEUS, KVANT_STATS_MONITOR}) {
    pass.call("stats_observe", [&] { return manager.stats_observe(scene.cache()); });
    pass.call("stats_text", [&] { return manager.stats_text(scene.cache(), kind, nullptr, &text, &size); });
    CHECK(size > 0);
  }
  kvant_event events[8];
  for (kvant_event& event : events) event = make<kvant_event>();
  std::uint32_t count = 0;
  pass.call("events_poll", [&] { return manager.events_poll(scene.cache(), 0, 8, events, &count, nullptr); });
  CHECK(count > 0);
}

void store(Pass& pass) {
  Scene scene(pass, shared_host(), {.flags = KVANT_CACHE_PREFIXES});
  scene.watched().prefixes = false;  // what is published of rows that are taken back may stay; it is right
  const kvant_ext_manager& manager = scene.manager();
  auto options = make<kvant_store_options>();
  pass.call("store_open", [&] { return manager.store_open(scene.cache(), &options); });
  const std::vector<std::int32_t> ids = token_ids(48);
  std::vector<float> k = abi_test::random_floats(48 * kRow, 3), v = abi_test::random_floats(48 * kRow, 4);
  const kvant_tensor k_view = abi_test::tensor_of(k), v_view = abi_test::tensor_of(v);
  auto args = make<kvant_store_args>();
  args.tokens = ids.data();
  args.token_count = 24;
  args.batch = 2;
  args.k = &k_view;
  args.v = &v_view;
  for (args.layer = 0; args.layer < 2; ++args.layer)
    pass.call("store_put", [&] { return manager.store_put(scene.cache(), &args); });
  args.layer = 1;
  std::vector<float> k_out(48 * kRow), v_out(48 * kRow);
  const kvant_tensor k_back = abi_test::tensor_of(k_out), v_back = abi_test::tensor_of(v_out);
  args.k = &k_back;
  args.v = &v_back;
  std::uint32_t found[2] = {0, 0};
  pass.call("store_get", [&] { return manager.store_get(scene.cache(), &args, found); });
  CHECK(found[0] == 1);
  CHECK(found[1] == 1);
  pass.result(k_out);
  pass.result(v_out);
  args.k = args.v = nullptr;
  pass.call("store_find", [&] { return manager.store_find(scene.cache(), &args, found); });
  pass.call("store_erase", [&] { return manager.store_erase(scene.cache(), &args); });
  pass.call("store_clear", [&] { return manager.store_clear(scene.cache()); });
}

}  // namespace

TEST_CASE("configuration: default, write, parse, apply") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("configure", kind, configuration, {.unreached = {Kind::map}});
}

TEST_CASE("statistics: texts, monitor, events") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("statistics", kind, statistics, {.unreached = {Kind::map}});
}

TEST_CASE("store: put, get, find, erase") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("store", kind, store, {.unreached = {Kind::map}});
}
