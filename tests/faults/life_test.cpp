// From nothing to an answer and back: context, device, cache, sequence, steps, destroy. A device of its own in every run.
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

}  // namespace

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
