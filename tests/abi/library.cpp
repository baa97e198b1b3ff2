#include "library.hpp"

#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace abi_test {

const std::string& library_path() {
  static const std::string path = std::getenv("KVANT_LIBRARY") != nullptr ? std::getenv("KVANT_LIBRARY") : KVANT_LIBRARY;
  return path;
}

const kvant_api& api() {
  static const kvant_api* const table = [] {
    void* library = dlopen(library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE_MESSAGE(library != nullptr, dlerror());
    const auto get_api = reinterpret_cast<kvant_get_api_fn>(dlsym(library, "kvant_get_api"));
    REQUIRE((get_api != nullptr));
    const kvant_api* found = get_api(KVANT_VERSION, nullptr);
    REQUIRE(found != nullptr);
    return found;
  }();
  return *table;
}

Outcome take(kvant_error* error, const kvant_api& table) {
  Outcome outcome{table.error_code(error), table.error_message(error), table.error_source(error)};
  table.error_free(error);
  return outcome;
}

void check_ok(kvant_error* error) {
  const Outcome outcome = take(error);
  CHECK_MESSAGE(outcome.code == 0, outcome.source, ": ", outcome.message);
}

void require_ok(kvant_error* error) {
  const Outcome outcome = take(error);
  REQUIRE_MESSAGE(outcome.code == 0, outcome.source, ": ", outcome.message);
}

void check_error(kvant_error* error, std::uint32_t code, const std::string& source, const std::string& part) {
  const Outcome outcome = take(error);
  CAPTURE(source);
  CAPTURE(part);
  CAPTURE(outcome.message);
  CHECK(outcome.code == code);
  CHECK(outcome.source == source);
  CHECK(outcome.message.find(part) != std::string::npos);
}

namespace {

bool run_has_ended = false;

// With KVANT_VALIDATION set the validation layer speaks through this log too: any message fails the test at hand.
void keep_log(void* user_data, std::uint32_t level, const char* message, std::size_t size) {
  const std::string text(message, size);
  if (level == KVANT_LOG_PLUGIN_MISBEHAVING) {
    if (run_has_ended) {
      std::fprintf(stderr, "after the last test: %s\n", text.c_str());
      std::_Exit(1);
    }
    FAIL_CHECK(text);
  }
  static_cast<Session*>(user_data)->log.push_back({level, text});
}

}  // namespace

Session::Session(Options options) {
  auto args = make<kvant_context_args>();
  args.user_data = this;
  args.log = keep_log;
  args.log_level = KVANT_LOG_WARNING;
  args.enable_validation = options.validation || std::getenv("KVANT_VALIDATION") != nullptr ? 1 : 0;
  require_ok(api().context_create(&args, &context));
  std::uint32_t count = 0;
  require_ok(api().device_count(context, &count));
  if (count == 0 || !options.open_device) return;
  auto device_args = make<kvant_device_args>();
  device_args.device_index = KVANT_DEVICE_BEST;
  device_args.enable_profiling = options.profiling ? 1 : 0;
  device_args.memory_limit = options.memory_limit;
  require_ok(api().device_open(context, &device_args, &device));
}

Session::~Session() {
  api().device_close(device);
  api().context_destroy(context);
}

bool Session::has_device() const {
  if (device != nullptr) return true;
  const char* required = std::getenv("KVANT_REQUIRE_DEVICE");
  CHECK_MESSAGE((required == nullptr || *required == '\0' || *required == '0'), "KVANT_REQUIRE_DEVICE is set");
  MESSAGE("no Vulkan device: this test needs one and was left out");
  return false;
}

std::uint32_t Session::format(const char* name) const {
  std::uint32_t id = 0;
  require_ok(api().format_find(context, name, &id));
  return id;
}

std::vector<std::string> Session::take_blame() {
  std::vector<std::string> blame;
  for (const LogLine& line : log)
    if (line.level == KVANT_LOG_HOST_MISBEHAVING) blame.push_back(line.text);
  log.clear();
  return blame;
}

namespace {

std::unique_ptr<Session>& shared_place() {
  static auto& place = *new std::unique_ptr<Session>;  // not destroyed at exit: the driver may be gone by then
  return place;
}

struct CloseAtEnd : doctest::IReporter {
  explicit CloseAtEnd(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {
    run_has_ended = true;
    shared_place().reset();
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
REGISTER_LISTENER("close_shared_session", 1, CloseAtEnd);

}  // namespace

Session& shared_session() {
  if (shared_place() == nullptr) shared_place() = std::make_unique<Session>();
  return *shared_place();
}

kvant_cache* make_cache(const Session& session, const CacheShape& shape) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = shape.kv_heads;
  layer.head_dim_k = shape.head_dim_k;
  layer.head_dim_v = shape.head_dim_v;
  layer.format_k = session.format(shape.format_k);
  layer.format_v = session.format(shape.format_v);
  const std::vector<kvant_layer_args> layers(shape.layers, layer);
  auto args = make<kvant_cache_args>();
  args.layer_count = shape.layers;
  args.layers = layers.data();
  args.capacity_tokens = shape.capacity;
  args.page_tokens = shape.page_tokens;
  args.flags = shape.external ? KVANT_CACHE_EXTERNAL_PAGES : 0;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

kvant_tensor tensor_of(std::vector<float>& data) {
  auto tensor = make<kvant_tensor>();
  tensor.data = data.data();
  tensor.size = data.size() * sizeof(float);
  return tensor;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) break;
  }
  return largest;
}

std::vector<float> random_floats(std::size_t count, std::uint32_t seed, float amplitude) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = amplitude * (static_cast<float>(seed >> 8) / 8388608.0F - 1.0F);
  }
  return values;
}

kvant_cache_stats stats_of(kvant_cache* cache) {
  auto stats = make<kvant_cache_stats>();
  require_ok(api().cache_stats(cache, &stats));
  return stats;
}

kvant_run_args run_args_of(StepData& data, std::vector<kvant_tensor>& tensors) {
  tensors.clear();
  tensors.reserve(5);
  auto args = make<kvant_run_args>();
  const auto add = [&](std::vector<float>& values) -> const kvant_tensor* {
    if (values.empty()) return nullptr;
    tensors.push_back(tensor_of(values));
    return &tensors.back();
  };
  args.k = add(data.k);
  args.v = add(data.v);
  args.q = add(data.q);
  args.out = add(data.out);
  args.lse = add(data.lse);
  args.q_heads = data.q_heads;
  args.flags = data.flags;
  args.scale = data.scale;
  args.soft_cap = data.soft_cap;
  args.sinks = data.sinks.empty() ? nullptr : data.sinks.data();
  args.alibi_slopes = data.slopes.empty() ? nullptr : data.slopes.data();
  return args;
}

void run_step(kvant_cache* cache, std::uint32_t layers, kvant_sequence sequence, std::uint32_t append, std::uint32_t queries,
              StepData& data) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  std::vector<kvant_tensor> tensors;
  const kvant_run_args run = run_args_of(data, tensors);
  for (std::uint32_t layer = 0; layer < layers; ++layer) require_ok(api().step_run(step, layer, &run));
  require_ok(api().step_commit(step));
}

}  // namespace abi_test
