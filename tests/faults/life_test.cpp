// From nothing to an answer and back: context, device, cache, sequence, steps, destroy. A device of its own in every run.
#include <cstring>

#include "scene.hpp"

using namespace faults;

namespace {

void life(Pass& pass) {
  Host none_yet{Host::Empty{}};
  const kvant_context_args args = context_args();
  pass.call("context_create", [&] { return api().context_create(&args, &none_yet.context); });
  auto device_args = make<kvant_device_args>();
  device_args.device_index = KVANT_DEVICE_BEST;
  pass.call("device_open", [&] { return api().device_open(none_yet.context, &device_args, &none_yet.device); });
  auto info = make<kvant_device_info>();
  pass.call("device_describe", [&] { return api().device_describe(none_yet.device, &info); });
  Scene scene(pass, none_yet, {.layers = 1});
  const kvant_sequence sequence = scene.create();
  scene.step(sequence, 20, 2);
  scene.step(sequence, 1, 1);
  scene.results(sequence);
  scene.drop(sequence);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), sequence); });
  scene.destroy();
  kvant_device* device = std::exchange(none_yet.device, nullptr);
  pass.call_void("device_close", [&] { api().device_close(std::exchange(device, nullptr)); });
  kvant_context* context = std::exchange(none_yet.context, nullptr);
  pass.call_void("context_destroy", [&] { api().context_destroy(std::exchange(context, nullptr)); });
}

// A device that an override narrows, with a profile: by timestamps or by wall times, and with fences for want of a
// timeline.
void profiled(Pass& pass, const char* quirks) {
  Host host{Host::Empty{}};
  const kvant_context_args args = context_args();
  abi_test::require_ok(api().context_create(&args, &host.context));
  auto device_args = make<kvant_device_args>();
  device_args.device_index = KVANT_DEVICE_BEST;
  device_args.enable_profiling = 1;
  device_args.quirks = quirks;
  device_args.capability_override = R"({"memory_budget": false, "coopmat_shapes": [], "memory_budget": false})";
  pass.call("device_open", [&] { return api().device_open(host.context, &device_args, &host.device); });
  auto wide_args = device_args;
  wide_args.capability_override =
      R"({"heaps": [{"size": 18446744073709551615, "device_local": true}], "max_groups": [1, 1, 1]})";
  pass.call("device_open", [&] {
    kvant_device* none = nullptr;
    return expect_refusal(api().device_open(host.context, &wide_args, &none));
  });
  Scene scene(pass, host, {.layers = 1});
  const kvant_sequence sequence = scene.create();
  scene.step(sequence, 20, 2);
  std::uint32_t labels = 0;
  pass.call("device_profile", [&] { return api().device_profile(host.device, &labels); });
  scene.step(sequence, 1, 1);
  scene.results(sequence);
  scene.destroy();
  kvant_device* device = std::exchange(host.device, nullptr);
  pass.call_void("device_close", [&] { api().device_close(std::exchange(device, nullptr)); });
}

}  // namespace

TEST_CASE("profiled: a narrowed device without a timeline") {
  {
    Host host;
    if (!host.has_device()) return;
  }
  for (const char* const quirks : {"+no_timeline", "+no_timeline,+no_timestamps"})
    for (const Kind kind : {Kind::device_allocation, Kind::submit, Kind::wait, Kind::object, Kind::host_allocation}) {
      CAPTURE(quirks);
      const std::int64_t objects = live_vulkan_objects();
      const auto name = std::strstr(quirks, "timestamps") == nullptr ? "fences" : "wall times";
      sweep(name, kind, [quirks](Pass& pass) { profiled(pass, quirks); }, {.stride = 7});
      CHECK(live_vulkan_objects() == objects);
    }
}

TEST_CASE("life: context, device, cache, steps") {
  {
    Host host;
    if (!host.has_device()) return;
  }
  for (const Kind kind : {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation}) {
    const std::int64_t objects = live_vulkan_objects();
    sweep("life", kind, life, {.stride = 7});
    CHECK(live_vulkan_objects() == objects);
  }
}
