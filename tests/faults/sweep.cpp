#include "sweep.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>

namespace faults {
namespace {

using abi_test::check_ok;
using abi_test::Outcome;
using abi_test::require_ok;
using abi_test::take;

// Messages of the validation layer and of states that should not be; the injector must not see what happens here.
void keep_log(void*, std::uint32_t level, const char* message, std::size_t size) {
  enter_driver();
  if (level >= KVANT_LOG_HOST_MISBEHAVING) FAIL_CHECK(std::string(message, size));
  leave_driver();
}

std::string listed(const std::vector<std::uint64_t>& numbers) {
  std::string text;
  for (const std::uint64_t number : numbers) text += std::to_string(number) + " ";
  return text;
}

bool is_documented(std::uint32_t code, Kind kind) {
  switch (kind) {
    case Kind::lost:
      return code == KVANT_ERROR_DATA_LOSS;
    case Kind::file_write:
    case Kind::file_read:
      return code == KVANT_ERROR_UNAVAILABLE;
    default:
      return code == KVANT_ERROR_RESOURCE_EXHAUSTED || (kind == Kind::object && code == KVANT_ERROR_UNAVAILABLE);
  }
}

}  // namespace

kvant_context_args context_args() {
  auto args = make<kvant_context_args>();
  args.log = keep_log;
  args.log_level = KVANT_LOG_WARNING;
  args.enable_validation = std::getenv("KVANT_VALIDATION") != nullptr ? 1 : 0;
  return args;
}

Host::Host(const char* pipeline_folder) {
  const kvant_context_args args = context_args();
  require_ok(api().context_create(&args, &context));
  std::uint32_t count = 0;
  require_ok(api().device_count(context, &count));
  if (count == 0) return;
  auto device_args = make<kvant_device_args>();
  device_args.device_index = KVANT_DEVICE_BEST;
  device_args.pipeline_cache_folder = pipeline_folder;
  require_ok(api().device_open(context, &device_args, &device));
}

Host::~Host() {
  api().device_close(device);
  api().context_destroy(context);
}

const kvant_ext_manager* Host::manager() const {
  return static_cast<const kvant_ext_manager*>(api().get_extension(context, KVANT_EXT_MANAGER));
}

bool Host::has_device() const {
  if (device != nullptr) return true;
  CHECK_MESSAGE(std::getenv("KVANT_REQUIRE_DEVICE") == nullptr, "KVANT_REQUIRE_DEVICE is set");
  MESSAGE("no Vulkan device: this test needs one and was left out");
  return false;
}

std::uint32_t Host::format(const char* name) const {
  std::uint32_t id = 0;
  require_ok(api().format_find(context, name, &id));
  return id;
}

Bits bits_of(const std::vector<float>& values) {
  Bits bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), [](float x) { return std::bit_cast<std::uint32_t>(x); });
  return bits;
}

State state_of(const Watched& watched) {
  State state;
  auto stats = make<kvant_cache_stats>();
  require_ok(api().cache_stats(watched.cache, &stats));
  // Not the slabs themselves: memory that was taken for pages stays for the next use of them.
  state.numbers = {stats.used_bytes, stats.used_pages, stats.total_pages, stats.sequence_tokens,
                   stats.sequence_count};
  if (watched.prefixes) {
    auto prefix = make<kvant_prefix_stats>();
    require_ok(api().prefix_stats(watched.cache, &prefix));
    state.numbers.insert(state.numbers.end(), {prefix.published_pages, prefix.pages});
  }
  for (const kvant_sequence sequence : watched.sequences) {
    std::uint64_t length = 0;
    require_ok(api().sequence_length(watched.cache, sequence, &length));
    state.numbers.push_back(length);
    for (std::uint32_t layer = 0; layer < watched.layers.size(); ++layer)
      for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
        std::vector<float> data(length * watched.layers[layer].first * watched.layers[layer].second);
        kvant_tensor out = abi_test::tensor_of(data);
        if (length != 0) require_ok(api().sequence_read(watched.cache, sequence, layer, side, 0, length, &out));
        state.contents.push_back(bits_of(data));
      }
  }
  return state;
}

kvant_error* expect_refusal(kvant_error* error) {
  if (error == nullptr) {
    enter_driver();
    FAIL_CHECK("accepted what was to be refused");
    leave_driver();
    return nullptr;
  }
  if (api().error_code(error) != KVANT_ERROR_INVALID_ARGUMENT) return error;
  api().error_free(error);
  return nullptr;
}

const char* kind_name(Kind kind) {
  static const char* const names[] = {"none", "host allocation", "worker allocation", "device allocation", "submit", "map",
                                      "object", "wait", "lost", "file write", "file read"};
  return names[static_cast<std::size_t>(kind)];
}

Sweep::Call& Sweep::call_at(std::size_t index, const std::string& name) {
  if (index == calls_.size()) calls_.push_back({name});
  REQUIRE_MESSAGE(calls_[index].name == name, "the scenario makes other calls than before");
  return calls_[index];
}

void Sweep::advance(Call& call) const {
  static const bool full = std::getenv("KVANT_FAULTS_FULL") != nullptr;
  call.next += !full && call.next > options_.dense ? options_.stride : 1;
}

void Pass::call(const std::string& name, const std::function<kvant_error*()>& function, Promise promise) {
  const auto perform = [&] {
    begin_call();
    kvant_error* error = function();
    end_call();
    return take(error);
  };
  if (!sweep_.injecting_) {
    const Outcome outcome = perform();
    REQUIRE_MESSAGE(outcome.code == 0, name, ": ", outcome.message);
    return;
  }
  Sweep::Call& call = sweep_.call_at(index_++, name);
  std::vector<State> before;
  if (!call.done)
    for (const Watched* cache : watched) before.push_back(state_of(*cache));
  while (!call.done) {
    arm(sweep_.kind_, call.next);
    const Outcome outcome = perform();
    const bool was_fired = fired();
    const std::uint64_t n = call.next;
    arm(Kind::none, 0);
    CAPTURE(std::string(sweep_.name_));
    CAPTURE(name);
    CAPTURE(n);
    CAPTURE(outcome.message);
    if (was_fired)
      sweep_.advance(call);
    else
      call.done = true;
    if (outcome.code == 0) {
      if (was_fired) {
        ++sweep_.tolerated_;
        sweep_.tolerated_in_pass_ = true;
      }
      return;
    }
    REQUIRE_MESSAGE(was_fired, "nothing was made to fail, and the call failed");
    ++sweep_.refused_;
    CHECK_MESSAGE(is_documented(outcome.code, sweep_.kind_), "code ", outcome.code, " of n ", n);
    CHECK(!outcome.message.empty());
    CHECK(!outcome.source.empty());
    if (promise == Promise::midway) {
      sweep_.tolerated_in_pass_ = true;
      throw EndOfPass{};
    }
    for (std::size_t i = 0; i < watched.size(); ++i) {
      const State after = state_of(*watched[i]);
      CHECK_MESSAGE((after.numbers == before[i].numbers), "event ", n, ": statistics or lengths were ", listed(before[i].numbers),
                    ", now ", listed(after.numbers));
      CHECK_MESSAGE((after.contents == before[i].contents), "event ", n, ": contents have changed");
      if (after == before[i]) continue;
      sweep_.tolerated_in_pass_ = true;
      throw EndOfPass{};
    }
  }
  const Outcome outcome = perform();
  REQUIRE_MESSAGE(outcome.code == 0, name, ": ", outcome.message);
}

bool Pass::undisturbed() const { return !sweep_.injecting_; }

void Pass::call_void(const std::string& name, const std::function<void()>& function) {
  call(name, [&]() -> kvant_error* {
    function();
    return nullptr;
  });
}

void Sweep::run(const Scenario& scenario) {
  arm(Kind::none, 0);
  {
    Pass warm(*this);  // pipelines and buffers of the device
    scenario(warm);
  }
  Pass clean(*this);
  scenario(clean);
  injecting_ = true;
  do {
    REQUIRE(++passes_ <= options_.most_passes);
    tolerated_in_pass_ = false;
    Pass pass(*this);
    bool ended = false;
    try {
      scenario(pass);
    } catch (const EndOfPass&) {
      ended = true;
    }
    if (!ended && !options_.results_may_vary) CHECK((pass.results == clean.results));
  } while (tolerated_in_pass_);
  const bool unreached =
      std::find(options_.unreached.begin(), options_.unreached.end(), kind_) != options_.unreached.end();
  const bool nothing = refused_ + tolerated_ == 0;
  CHECK_MESSAGE((nothing == unreached), "refused ", refused_, ", borne ", tolerated_);
  std::printf("faults: %-12s %-18s %3zu calls %5llu refused %5llu tolerated %4llu runs\n", name_, kind_name(kind_),
              calls_.size(), static_cast<unsigned long long>(refused_), static_cast<unsigned long long>(tolerated_),
              static_cast<unsigned long long>(passes_));
  std::fflush(stdout);
}

void sweep(const char* name, Kind kind, const Scenario& scenario, const Options& options) {
  CAPTURE(std::string(kind_name(kind)));
  Sweep(name, kind, options).run(scenario);
}

}  // namespace faults
