// The engine's own Vulkan device: import, buffers as tensors, recording into the engine's command buffer, timeline, queue lock,
// refusals; and not one message of the validation layer.
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "library.hpp"
#include "vulkan_engine.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kTokens = 20, kHeads = 2, kDim = 64, kQueryHeads = 4, kLayers = 2;
constexpr std::size_t kRow = kHeads * kDim, kQueryRow = kQueryHeads * kDim;

// Places in the engine's buffer, bytes.
constexpr VkDeviceSize kBytes = 1u << 20;
constexpr VkDeviceSize kAtK = 4, kAtV = 65540, kAtQ = 131072, kAtOut = 200004, kAtLse = 262144;

kvant_tensor buffer_tensor(const VulkanEngine& engine, VkDeviceSize offset, std::size_t elements, std::uint32_t type = KVANT_TYPE_F32) {
  auto tensor = make<kvant_tensor>();
  tensor.buffer = engine.buffer();
  tensor.offset = offset;
  tensor.type = type;
  tensor.size = elements * (type == KVANT_TYPE_F32 ? 4 : 2);
  return tensor;
}

// Engine, context and imported device; destroyed in the order that an engine would use.
struct Borrowed {
  VulkanEngine engine;
  Session session{{.open_device = false}};
  const kvant_ext_vulkan* vulkan = nullptr;
  bool ready = false;

  Borrowed() {
    const std::string missing = engine.start(kBytes);
    if (!missing.empty()) {
      MESSAGE(missing);
      session.has_device();
      return;
    }
    vulkan = static_cast<const kvant_ext_vulkan*>(api().get_extension(session.context, KVANT_EXT_VULKAN));
    REQUIRE(vulkan != nullptr);
    const kvant_vulkan_device_args args = engine.import_args();
    require_ok(vulkan->device_import(session.context, &args, &session.device));
    ready = true;
  }
  void finish() {
    api().device_close(std::exchange(session.device, nullptr));
    if (!engine.validated()) MESSAGE("no validation layer: messages were not looked for");
    for (const std::string& message : engine.validation_messages()) FAIL_CHECK(message);
    CHECK(engine.locks == engine.unlocks);
    CHECK(session.take_blame().empty());
  }
};

struct Inputs {
  std::vector<float> k = random_floats(kTokens * kRow, 1), v = random_floats(kTokens * kRow, 2);
  std::vector<float> q = random_floats(kQueryRow, 3, 3.0F);
  void put(const VulkanEngine& engine) const {
    std::copy(k.begin(), k.end(), engine.floats(kAtK));
    std::copy(v.begin(), v.end(), engine.floats(kAtV));
    std::copy(q.begin(), q.end(), engine.floats(kAtQ));
  }
};

// What kvant's own device gives for the same data.
StepData own_result(const Inputs& inputs) {
  Session& session = shared_session();
  REQUIRE(session.has_device());
  kvant_cache* cache = make_cache(session, {.layers = kLayers, .format_k = "q8_0", .format_v = "q4_0"});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  StepData data;
  data.k = inputs.k;
  data.v = inputs.v;
  data.q = inputs.q;
  data.q_heads = kQueryHeads;
  data.out.assign(kQueryRow, 0.0F);
  data.lse.assign(kQueryHeads, 0.0F);
  run_step(cache, kLayers, sequence, kTokens, 1, data);
  api().cache_destroy(cache);
  return data;
}

double worst_difference(const float* a, const std::vector<float>& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    REQUIRE(std::isfinite(a[i]));
    worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

kvant_step* plan(kvant_cache* cache, kvant_sequence sequence, std::uint32_t append, std::uint32_t queries) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  return step;
}

struct Tensors {
  kvant_tensor k, v, q, out, lse;
  explicit Tensors(const VulkanEngine& engine, std::size_t tokens = kTokens)
      : k(buffer_tensor(engine, kAtK, tokens * kRow)),
        v(buffer_tensor(engine, kAtV, tokens * kRow)),
        q(buffer_tensor(engine, kAtQ, kQueryRow)),
        out(buffer_tensor(engine, kAtOut, kQueryRow)),
        lse(buffer_tensor(engine, kAtLse, kQueryHeads)) {}
  kvant_run_args args() const {
    auto run = make<kvant_run_args>();
    run.k = &k, run.v = &v, run.q = &q, run.out = &out, run.lse = &lse;
    run.q_heads = kQueryHeads;
    return run;
  }
};

}  // namespace

TEST_CASE("borrowed: recorded into the engine's command buffer, then submitted by kvant") {
  Borrowed borrowed;
  if (!borrowed.ready) return;
  VulkanEngine& engine = borrowed.engine;
  const Inputs inputs;
  const StepData expected = own_result(inputs);
  inputs.put(engine);
  kvant_cache* cache =
      make_cache(borrowed.session, {.layers = kLayers, .format_k = "q8_0", .format_v = "q4_0"});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));

  // Both layers into one command buffer of the engine.
  const Tensors tensors(engine);
  kvant_run_args run = tensors.args();
  kvant_step* step = plan(cache, sequence, kTokens, 1);
  auto record = make<kvant_vulkan_record>();
  record.type = KVANT_NEXT_VULKAN_RECORD;
  const VkCommandBuffer commands = engine.begin();
  record.command_buffer = commands;
  run.next = reinterpret_cast<const kvant_next*>(&record);
  // Sinks of minus infinity change nothing but the tables: the second layer needs its own.
  const std::vector<float> no_sinks(kQueryHeads, -std::numeric_limits<float>::infinity());
  require_ok(api().step_run(step, 0, &run));
  run.sinks = no_sinks.data();
  require_ok(api().step_run(step, 1, &run));
  run.sinks = nullptr;
  CHECK(engine.locks == 0);  // recording submits nothing
  CHECK(engine.floats(kAtOut)[0] == 0.0F);
  REQUIRE(engine.submit_and_wait(commands));
  // What was recorded counts as a submit of the device; its timeline then says so.
  require_ok(borrowed.vulkan->device_wait(borrowed.session.device));
  std::uint64_t semaphore = 0, value = 0;
  require_ok(borrowed.vulkan->device_timeline(borrowed.session.device, &semaphore, &value));
  CHECK(value > 0);
  if (semaphore != 0) CHECK(engine.wait_timeline(semaphore, value));
  require_ok(api().step_commit(step));
  CHECK(worst_difference(engine.floats(kAtOut), expected.out) < 1e-5);
  CHECK(worst_difference(engine.floats(kAtLse), expected.lse) < 1e-4);

  // The same question again, submitted by kvant; the engine waits on kvant's timeline.
  std::fill_n(engine.floats(kAtOut), kQueryRow, 0.0F);
  run.next = nullptr;
  run.k = run.v = nullptr;
  step = plan(cache, sequence, 0, 1);
  require_ok(api().step_run(step, 1, &run));
  const std::uint64_t value_before = value;
  require_ok(borrowed.vulkan->device_timeline(borrowed.session.device, &semaphore, &value));
  CHECK(engine.locks > 0);
  CHECK(value > value_before);
  if (semaphore != 0) {
    CHECK(engine.wait_timeline(semaphore, value));
  }
  require_ok(borrowed.vulkan->device_wait(borrowed.session.device));
  require_ok(api().step_commit(step));
  CHECK(worst_difference(engine.floats(kAtOut), expected.out) < 1e-5);

  // Dequantized tokens straight into a buffer.
  std::vector<float> host(kTokens * kRow);
  kvant_tensor to_host = tensor_of(host), to_buffer = buffer_tensor(engine, kAtK, kTokens * kRow);
  require_ok(api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, &to_host));
  require_ok(api().sequence_read(cache, sequence, 0, KVANT_SIDE_K, 0, kTokens, &to_buffer));
  require_ok(borrowed.vulkan->device_wait(borrowed.session.device));
  CHECK(worst_difference(engine.floats(kAtK), host) == 0.0);
  api().cache_destroy(cache);
  borrowed.finish();
}

TEST_CASE("borrowed: 16-bit tensors in buffers") {
  Borrowed borrowed;
  if (!borrowed.ready) return;
  VulkanEngine& engine = borrowed.engine;
  kvant_cache* cache = make_cache(borrowed.session, {.kv_heads = 1, .head_dim_k = 32, .head_dim_v = 32});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  // Three equal keys: the output is the mean of the values 1, 2, 3, exact in f16. Rows lie 40 elements apart.
  constexpr std::uint16_t kOne = 0x3C00, kTwo = 0x4000, kThree = 0x4200, kMark = 0x7777;
  const std::uint16_t values[3] = {kOne, kTwo, kThree};
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 32; ++i) {
      engine.halves(kAtK)[t * 40 + i] = kOne;
      engine.halves(kAtV)[t * 32 + i] = values[t];
    }
  std::fill_n(engine.halves(kAtQ), 64, kOne);
  std::fill_n(engine.halves(kAtOut), 80, kMark);
  kvant_tensor k = buffer_tensor(engine, kAtK, 2 * 40 + 32, KVANT_TYPE_F16), v = buffer_tensor(engine, kAtV, 96, KVANT_TYPE_F16);
  kvant_tensor q = buffer_tensor(engine, kAtQ, 64, KVANT_TYPE_F16), out = buffer_tensor(engine, kAtOut, 80, KVANT_TYPE_F16);
  k.token_stride = 40;
  out.head_stride = 40;
  out.token_stride = 80;
  auto run = make<kvant_run_args>();
  run.k = &k, run.v = &v, run.q = &q, run.out = &out, run.q_heads = 2;
  kvant_step* step = plan(cache, sequence, 3, 1);
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
  require_ok(borrowed.vulkan->device_wait(borrowed.session.device));
  for (std::size_t h = 0; h < 2; ++h) {
    for (std::size_t i = 0; i < 32; ++i) CHECK(engine.halves(kAtOut)[h * 40 + i] == kTwo);
    for (std::size_t i = 32; i < 40; ++i) CHECK(engine.halves(kAtOut)[h * 40 + i] == kMark);
  }
  api().cache_destroy(cache);
  borrowed.finish();
}

TEST_CASE("borrowed: refusals") {
  Borrowed borrowed;
  if (!borrowed.ready) return;
  VulkanEngine& engine = borrowed.engine;
  kvant_context* context = borrowed.session.context;
  const auto refuse_import = [&](const char* part, auto&& change) {
    kvant_vulkan_device_args args = engine.import_args();
    change(args);
    kvant_device* device = nullptr;
    check_error(borrowed.vulkan->device_import(context, &args, &device), KVANT_ERROR_INVALID_ARGUMENT, "device_import", part);
    CHECK(device == nullptr);
  };
  const char* names[] = {nullptr};
  auto options = make<kvant_device_args>();
  options.enable_profiling = 7;
  refuse_import("get_instance_proc_addr is NULL", [](auto& a) { a.get_instance_proc_addr = nullptr; });
  refuse_import("instance is NULL", [](auto& a) { a.instance = nullptr; });
  refuse_import("physical_device is NULL", [](auto& a) { a.physical_device = nullptr; });
  refuse_import("device is NULL", [](auto& a) { a.device = nullptr; });
  refuse_import("queue family (77)", [](auto& a) { a.queue_family = 77; });
  refuse_import("reserved (3)", [](auto& a) { a.reserved = 3; });
  refuse_import("enabled_extensions is NULL", [](auto& a) { a.enabled_extension_count = 1; });
  refuse_import("enabled_extensions[0] is NULL", [&](auto& a) { a.enabled_extension_count = 1, a.enabled_extensions = names; });
  refuse_import("enabled_extension_count (4294967295)", [](auto& a) { a.enabled_extension_count = ~0u; });
  refuse_import("unlock_queue is NULL", [](auto& a) { a.unlock_queue = nullptr; });
  refuse_import("enable_profiling (7)", [&](auto& a) { a.options = &options; });
  refuse_import("struct_size (8)", [](auto& a) { a.struct_size = 8; });
  kvant_device* device = nullptr;
  const kvant_vulkan_device_args good = engine.import_args();
  check_error(borrowed.vulkan->device_import(context, nullptr, &device), KVANT_ERROR_INVALID_ARGUMENT, "device_import", "args");
  check_error(borrowed.vulkan->device_import(context, &good, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "device_import", "out_device");
  std::uint64_t number = 5;
  check_error(borrowed.vulkan->device_timeline(borrowed.session.device, nullptr, &number), KVANT_ERROR_INVALID_ARGUMENT,
              "device_timeline", "out_semaphore");
  check_error(borrowed.vulkan->device_timeline(borrowed.session.device, &number, nullptr), KVANT_ERROR_INVALID_ARGUMENT,
              "device_timeline", "out_value");
  CHECK(number == 5);
  const auto json = nlohmann::json::parse(borrowed.vulkan->recommended(context));
  CHECK(json.at("extensions").is_array());
  CHECK(json.at("features").is_array());

  kvant_cache* cache = make_cache(borrowed.session, {});
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  kvant_step* step = plan(cache, sequence, kTokens, 1);
  const auto refuse_run = [&](const char* part, auto&& change) {
    Tensors tensors(engine);
    kvant_run_args run = tensors.args();
    auto record = make<kvant_vulkan_record>();
    record.type = KVANT_NEXT_VULKAN_RECORD;
    change(tensors, run, record);
    check_error(api().step_run(step, 0, &run), KVANT_ERROR_INVALID_ARGUMENT, "step_run", part);
  };
  refuse_run("args.k.offset (6)", [](auto& t, auto&, auto&) { t.k.offset = 6; });
  refuse_run(".head_stride (65)", [](auto& t, auto&, auto&) {
    t.out.type = KVANT_TYPE_F16, t.out.head_stride = 65, t.out.token_stride = 260;
  });
  refuse_run("args.q.size (4)", [](auto& t, auto&, auto&) { t.q.size = 4; });
  refuse_run("overlap", [](auto& t, auto&, auto&) { t.out.offset = kAtQ + 4; });
  refuse_run("64-bit", [](auto& t, auto&, auto&) { t.k.offset = ~3ull; });
  refuse_run("both given", [](auto& t, auto&, auto&) { t.k.data = &t; });
  refuse_run("command_buffer is NULL",
             [](auto&, auto& run, auto& record) { run.next = reinterpret_cast<const kvant_next*>(&record); });
  refuse_run("occurs twice", [](auto&, auto& run, auto& record) {
    static kvant_vulkan_record second;
    second = record;
    record.next = reinterpret_cast<const kvant_next*>(&second);
    run.next = reinterpret_cast<const kvant_next*>(&record);
  });
  std::vector<float> host(kTokens * kRow);
  refuse_run("buffers only", [&](auto& t, auto& run, auto& record) {
    t.k.buffer = 0, t.k.offset = 0, t.k.data = host.data();
    record.command_buffer = reinterpret_cast<VkCommandBuffer>(std::uintptr_t{8});
    run.next = reinterpret_cast<const kvant_next*>(&record);
  });
  api().step_abort(step);
  api().cache_destroy(cache);

  // A device of kvant's own takes neither buffers nor recording.
  Session& own = shared_session();
  kvant_cache* own_cache = make_cache(own, {});
  require_ok(api().sequence_create(own_cache, &sequence));
  step = plan(own_cache, sequence, 1, 0);
  StepData data;
  data.k = data.v = random_floats(kRow, 1);
  std::vector<kvant_tensor> tensors;
  kvant_run_args run = run_args_of(data, tensors);
  auto record = make<kvant_vulkan_record>();
  record.type = KVANT_NEXT_VULKAN_RECORD;
  record.command_buffer = reinterpret_cast<VkCommandBuffer>(std::uintptr_t{8});
  run.next = reinterpret_cast<const kvant_next*>(&record);
  check_error(api().step_run(step, 0, &run), KVANT_ERROR_FAILED_PRECONDITION, "step_run", "not imported");
  api().step_abort(step);
  api().cache_destroy(own_cache);
  borrowed.finish();
}

TEST_CASE("borrowed: a callback that calls back is refused, not locked up") {
  Borrowed borrowed;
  if (!borrowed.ready) return;
  VulkanEngine& engine = borrowed.engine;
  struct Probe {
    kvant_device* device;
    Outcome outcome;
  } probe{borrowed.session.device, {}};
  engine.inside_lock_data = &probe;
  engine.inside_lock = [](void* data) {
    auto& p = *static_cast<Probe*>(data);
    auto info = make<kvant_device_info>();
    p.outcome = take(api().device_describe(p.device, &info));
  };
  const std::vector<float> x(32, 1.0F);
  std::vector<float> y(32, 0.0F);
  check_ok(api().quantize(borrowed.session.device, 0, 32, 1, x.data(), 128, y.data(), 128));
  engine.inside_lock = nullptr;
  CHECK(probe.outcome.code == KVANT_ERROR_FAILED_PRECONDITION);
  CHECK(probe.outcome.message.find("callback") != std::string::npos);
  CHECK(x == y);
  borrowed.finish();
}
