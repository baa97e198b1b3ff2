#include "session.hpp"

#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "build_facts.hpp"
#include "cpu_executor.hpp"
#include "run_case.hpp"
#include "support.hpp"
#include "tuning_table.hpp"

namespace kvant::conformance {

namespace {

std::string system_text() {
  utsname names{};
  const std::string machine = ::uname(&names) == 0 ? names.machine : "unknown";
  std::ifstream file("/etc/os-release");
  constexpr std::string_view kKey = "PRETTY_NAME=";
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(kKey)) {
      std::erase(line, '"');
      return line.substr(kKey.size()) + ", " + machine;
    }
  return "unknown, " + machine;
}

std::string processor_text() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown";
}

std::string hex_text(std::span<const std::uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

// What narrowed the device, found as the backend finds it: the option or the environment, a text or the path of a file.
nlohmann::ordered_json overrides_json(std::string text) {
  const char* environment = std::getenv("KVANT_CAPABILITIES");
  if (text.empty() && environment != nullptr) text = environment;
  if (text.empty()) return nlohmann::ordered_json::object();
  auto given = nlohmann::ordered_json::parse(text, nullptr, false);
  if (given.is_object()) return given;
  std::ifstream file(text);
  return nlohmann::ordered_json::parse(file, nullptr, false);
}

}  // namespace

Session::~Session() { close(); }

std::uint64_t Session::close() {
  own_executor_.reset();
  context_.reset();
  instance_.reset();
  return validation_count_;
}

Result<std::unique_ptr<Session>> Session::open(const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session());
  session->validation_ = options.validation;
  session->overrides_ = options.capability_override;
  if (options.device == "cpu") {
    session->own_executor_ = std::make_unique<reference::CpuExecutor>();
    session->executor_ = session->own_executor_.get();
    return session;
  }
  InstanceOptions instance;
  instance.validation = options.validation;
  instance.validation_user_data = session.get();
  instance.validation_message = [](void* user_data, const char* message) {
    auto* self = static_cast<Session*>(user_data);
    ++self->validation_count_;
    self->validation_text_ = message;
  };
  KVANT_ASSIGN(session->instance_, Instance::create(instance));
  std::uint32_t index = 0;
  if (options.device.empty()) {
    KVANT_ASSIGN(index, session->instance_->best_device());
  } else {
    const char* end = options.device.data() + options.device.size();
    const auto parsed = std::from_chars(options.device.data(), end, index);
    if (parsed.ec != std::errc() || parsed.ptr != end || index >= session->instance_->devices().size())
      return Status(StatusCode::invalid_argument, "device '" + options.device +
                                                      "' is neither 'cpu' nor an index below " +
                                                      std::to_string(session->instance_->devices().size()));
  }
  session->device_index_ = index;
  session->device_options_.capability_override = options.capability_override;
  session->device_options_.quirks = options.quirks;
  KVANT_ASSIGN(session->context_, session->instance_->open(index, session->device_options_));
  session->executor_ = &session->context_->executor();
  return session;
}

const DevicePlan* Session::plan() const { return context_ ? &context_->plan() : nullptr; }
std::string Session::device_name() const { return context_ ? context_->snapshot().name : "CPU reference"; }
std::string Session::driver_name() const { return context_ ? context_->snapshot().driver_name : ""; }
std::string Session::driver_info() const { return context_ ? context_->snapshot().driver_info : ""; }

CaseResult Session::run(const Case& c, std::uint64_t seed) {
  using Runner = CaseResult (*)(const RunContext&, const Case&);
  static constexpr Runner kRunners[] = {run_append_case,   run_read_case,   run_copy_case,   run_convert_case,
                                        run_quantize_case, run_attend_case, run_merge_case,  run_sequence_case,
                                        run_relation_case, run_gather_case, run_rotate_case, run_score_case,
                                        run_transfer_case, run_import_case, run_extract_case, run_rope_case, run_hadamard_case, run_means_case};
  static_assert(std::size(kRunners) == static_cast<std::size_t>(Op::count));
  CaseResult result;
  if (plan() != nullptr) {
    if (const std::string missing = missing_for(c, *plan()); !missing.empty()) {
      result.name = c.name;
      result.status = CaseStatus::not_supported;
      result.message = missing;
      return result;
    }
  }
  if (!instance_ && c.op == Op::relation && c.relation == Relation::pipelines) {
    result.name = c.name;
    result.status = CaseStatus::not_supported;
    result.message = "pipelines";
    return result;
  }
  const std::uint64_t messages = validation_count_;
  const auto start = std::chrono::steady_clock::now();
  RunContext context{*executor_, seed};
  if (instance_)
    context.reopen = [this](const std::string& folder) {
      DeviceOptions options = device_options_;
      options.pipeline_cache_folder = folder;
      return instance_->open(device_index_, options);
    };
  result = kRunners[static_cast<std::size_t>(c.op)](context, c);
  result.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (validation_count_ != messages && !is_bad(result.status)) {
    result.status = CaseStatus::validation_error;
    result.message =
        std::to_string(validation_count_ - messages) + " validation messages, the last: " + validation_text_;
  }
  if (context_ && context_->lost()) result.status = CaseStatus::device_lost;
  return result;
}

std::string Session::header_json(std::uint64_t seed, const std::string& shard, std::size_t case_count) const {
  nlohmann::ordered_json j{{"type", "header"},
                           {"schema", 1},
                           {"kvant", std::string(build_facts::kVersion)},
                           {"commit", std::string(build_facts::kCommit)},
                           {"compiler", std::string(build_facts::kCompiler)},
                           {"sanitizers", std::string(build_facts::kSanitizers)},
                           {"shader_compiler", std::string(build_facts::kShaderCompiler)},
                           {"shader_set", std::string(shader_set_hash())}};
  nlohmann::ordered_json device{{"name", device_name()}};
  if (context_) {
    const DeviceSnapshot& s = context_->snapshot();
    device["type"] = std::string(device_type_name(s.type));
    device["vendor_id"] = s.vendor_id;
    device["device_id"] = s.device_id;
    device["driver_id"] = s.driver_id;
    device["driver_name"] = s.driver_name;
    device["driver_version"] = s.driver_version;
    device["device_uuid"] = hex_text(s.device_uuid);
    device["driver_info"] = s.driver_info;
    device["api"] = version_text(s.api_version);
    device["subgroup_size"] = context_->plan().subgroup_size;
    device["tier"] = context_->plan().tier;
    auto quirks = nlohmann::ordered_json::array();
    for (const std::string_view quirk : context_->active_quirks()) quirks.push_back(std::string(quirk));
    j["quirks"] = quirks;
    j["overrides"] = overrides_json(overrides_);
    auto tuning = nlohmann::ordered_json::array();
    for (const TuningChoice& choice : tuning_table(context_->plan()))
      tuning.push_back({{"shape", choice.shape},
                        {"module", choice.module},
                        {"config", choice.config},
                        {"subgroup_size", choice.subgroup_size}});
    j["tuning"] = tuning;
  }
  j["os"] = system_text();
  j["processor"] = processor_text();
  j["device"] = device;
  j["validation_layers"] = validation_;
  j["case_list"] = case_list_hash();
  j["case_count"] = case_count;
  j["seed"] = seed;
  j["shard"] = shard;
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace kvant::conformance
