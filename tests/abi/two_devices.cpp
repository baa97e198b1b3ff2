#include "two_devices.hpp"

#include <cmath>
#include <cstdlib>

namespace abi_test {

TwoDevices::TwoDevices() {
  manager = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(manager != nullptr);
  std::uint32_t count = 0, found = 0;
  require_ok(api().device_count(session.context, &count));
  for (std::uint32_t i = 0; i < count && found < 2; ++i) {
    auto info = make<kvant_device_info>();
    require_ok(api().device_info(session.context, i, &info));
    if (info.usable == 0) continue;
    indices_[found] = i;
    names_[found++] = std::string(info.name) + ", " + info.driver;
  }
  if (found < 2) return;
  for (std::size_t i = 0; i < 2; ++i) reopen(i);
}

TwoDevices::~TwoDevices() {
  for (std::size_t i = 0; i < 2; ++i) close(i);
}

bool TwoDevices::ready() const {
  if (devices_[1] != nullptr) return true;
  const char* required = std::getenv("KVANT_REQUIRE_TWO_DEVICES");
  CHECK_MESSAGE((required == nullptr || *required == '\0' || *required == '0'), "KVANT_REQUIRE_TWO_DEVICES is set");
  MESSAGE("there are not two usable Vulkan devices: this test needs them and was left out");
  return false;
}

kvant_device* TwoDevices::reopen(std::size_t index) {
  auto args = make<kvant_device_args>();
  args.device_index = indices_[index];
  require_ok(api().device_open(session.context, &args, &devices_[index]));
  return devices_[index];
}

namespace {

std::unique_ptr<TwoDevices>& shared_place() {
  static auto& place = *new std::unique_ptr<TwoDevices>;  // not destroyed at exit: the drivers may be gone by then
  return place;
}

struct CloseAtEnd : doctest::IReporter {
  explicit CloseAtEnd(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override { shared_place().reset(); }
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
REGISTER_LISTENER("close_shared_devices", 1, CloseAtEnd);

}  // namespace

TwoDevices& shared_devices() {
  if (shared_place() == nullptr) shared_place() = std::make_unique<TwoDevices>();
  return *shared_place();
}

void TwoDevices::close(std::size_t index) { api().device_close(std::exchange(devices_[index], nullptr)); }

kvant_cache* make_cache_on(const TwoDevices& two, kvant_device* device, const SplitCacheOptions& options) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kSplitHeads;
  layer.head_dim_k = kSplitDim;
  layer.format_k = two.session.format(options.formats.k);
  layer.format_v = two.session.format(options.formats.v);
  const std::vector<kvant_layer_args> layers(options.layers, layer);
  auto args = make<kvant_cache_args>();
  args.layer_count = options.layers;
  args.layers = layers.data();
  args.capacity_tokens = options.capacity;
  args.flags = options.flags;
  args.model_id = options.model_id;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(device, &args, &cache));
  return cache;
}

StepData step_data(std::uint32_t layer, std::uint64_t begin, std::uint32_t append, std::uint32_t queries) {
  const auto seed = static_cast<std::uint32_t>(begin * 16 + layer + 1);
  StepData data;
  data.k = random_floats(append * kSplitRow, seed * 3);
  data.v = random_floats(append * kSplitRow, seed * 3 + 1);
  data.q = random_floats(queries * kSplitQueryRow, seed * 3 + 2);
  data.out.assign(queries * kSplitQueryRow, 0.0F);
  data.q_heads = queries == 0 ? 0 : kSplitQueryHeads;
  return data;
}

kvant_step* plan_step(kvant_cache* cache, kvant_sequence sequence, std::uint32_t append, std::uint32_t queries,
                      const std::int32_t* tokens) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = append;
  entry.queries = queries;
  entry.tokens = tokens;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  return step;
}

std::string exported(const TwoDevices& two, kvant_cache* cache, kvant_sequence sequence, std::uint32_t layers,
                     const FormatPair& formats) {
  std::uint64_t tokens = 0;
  require_ok(api().sequence_length(cache, sequence, &tokens));
  REQUIRE(tokens != 0);
  std::string all;
  for (std::uint32_t layer = 0; layer < layers; ++layer)
    for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
      std::uint64_t row = 0;
      const std::uint32_t format = two.session.format(side == KVANT_SIDE_K ? formats.k : formats.v);
      require_ok(api().row_bytes(two.session.context, format, kSplitDim, &row));
      std::string bytes(tokens * kSplitHeads * row, '\x5A');
      require_ok(api().sequence_export(cache, sequence, layer, side, 0, tokens, bytes.data(), bytes.size()));
      all += bytes;
    }
  return all;
}

double worst_of(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(std::isfinite(a[i]));
    worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

}  // namespace abi_test
