// Sequences and steps: prefill, decode, fork, truncate, abort, conversion, the engine's own pages.
#include "scene.hpp"

using namespace faults;

namespace {

constexpr Kind kDeviceKinds[] = {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation};

void sequences(Pass& pass) {
  Scene scene(pass, shared_host(), {.two_groups = true});
  const kvant_sequence parent = scene.create();
  scene.step(parent, 24, 2);
  kvant_sequence child = 0;
  pass.call("sequence_fork", [&] { return api().sequence_fork(scene.cache(), parent, 20, &child); });
  scene.hold(child);
  scene.step(child, 1, 1);
  pass.call("sequence_truncate", [&] { return api().sequence_truncate(scene.cache(), parent, 17); });
  scene.step(parent, 2, 1, nullptr, 0, false);
  scene.step(parent, 18, 1);
  scene.results(parent);
  scene.results(child);
  scene.drop(child);
  pass.call("sequence_destroy", [&] { return api().sequence_destroy(scene.cache(), child); });
  scene.destroy();
}

void conversion(Pass& pass) {
  Host& host = shared_host();
  Scene scene(pass, host);
  const kvant_sequence sequence = scene.create();
  scene.step(sequence, 40, 1);
  const std::uint32_t narrow = host.format("q4_0");
  pass.call("cache_convert", [&] { return api().cache_convert(scene.cache(), 0, KVANT_SIDE_V, narrow); });
  scene.step(sequence, 1, 1);
  scene.results(sequence);
  pass.call("cache_quantize", [&] { return scene.manager().cache_quantize(scene.cache(), narrow, narrow); }, Promise::midway);
  scene.results(sequence);
  const std::vector<float> rows = abi_test::random_floats(4 * kDim, 7);
  std::uint64_t row_bytes = 0;
  pass.call("row_bytes", [&] { return api().row_bytes(host.context, narrow, kDim, &row_bytes); });
  std::vector<unsigned char> codes(4 * row_bytes);
  std::vector<float> back(rows.size());
  pass.call("quantize", [&] {
    return api().quantize(host.device, narrow, kDim, 4, rows.data(), rows.size() * sizeof(float), codes.data(), codes.size());
  });
  pass.call("dequantize", [&] {
    return api().dequantize(host.device, narrow, kDim, 4, codes.data(), codes.size(), back.data(), back.size() * sizeof(float));
  });
  pass.result(back);
}

void own_pages(Pass& pass) {
  Scene scene(pass, shared_host(), {.flags = KVANT_CACHE_EXTERNAL_PAGES});
  std::vector<std::int64_t> slots(20);
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int64_t>(2 * kPage + i);
  const std::int32_t queries[] = {0, 1}, pages[] = {0, 2}, indices[] = {2, 3}, last[] = {4};
  auto args = make<kvant_paged_args>();
  args.batch = 1;
  args.token_count = 20;
  args.slot_mapping = slots.data();
  args.qo_indptr = queries;
  args.kv_indptr = pages;
  args.kv_indices = indices;
  args.kv_last_page_len = last;
  kvant_step* step = nullptr;
  pass.call("paged_plan", [&] { return api().paged_plan(scene.cache(), &args, &step); });
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    abi_test::StepData data;
    data.k = abi_test::random_floats(20 * kRow, 11 + layer);
    data.v = abi_test::random_floats(20 * kRow, 21 + layer);
    data.q = abi_test::random_floats(kQueryRow, 31 + layer);
    data.out.assign(kQueryRow, 0.0F);
    data.q_heads = kQueryHeads;
    std::vector<kvant_tensor> tensors;
    const kvant_run_args run = abi_test::run_args_of(data, tensors);
    pass.call("step_run", [&] { return api().step_run(step, layer, &run); });
    pass.result(data.out);
  }
  pass.call("step_commit", [&] { return api().step_commit(step); });
  const std::int32_t from[] = {2}, to[] = {5};
  pass.call("paged_copy", [&] { return api().paged_copy(scene.cache(), 1, from, to); });
  const std::int64_t read[] = {5 * kPage, 5 * kPage + 3, -1};
  std::vector<float> rows(3 * kRow);
  kvant_tensor out = abi_test::tensor_of(rows);
  pass.call("paged_read", [&] { return api().paged_read(scene.cache(), 1, KVANT_SIDE_V, 3, read, &out); });
  pass.result(rows);
}

}  // namespace

TEST_CASE("steps: prefill, fork, truncate, abort") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("steps", kind, sequences, {.unreached = {Kind::map}});
}

TEST_CASE("convert: a layer's side, all layers, stand-alone rows") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("convert", kind, conversion, {.unreached = {Kind::map}});
}

TEST_CASE("paged: the engine's own pages") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kDeviceKinds) sweep("paged", kind, own_pages, {.unreached = {Kind::map}});
}
