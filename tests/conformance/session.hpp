// Session: the device under test, opened, with the validation layer's messages counted. "cpu" opens the CPU reference instead,
// which tests the suite where there is no device.
#pragma once

#include <memory>
#include <string>

#include "backend.hpp"
#include "cases.hpp"
#include "result.hpp"

namespace kvant::conformance {

struct SessionOptions {
  std::string device;               // empty: the best; a number: its index; "cpu": the reference itself
  std::string capability_override;  // as DeviceOptions
  std::string quirks;
  bool validation = false;
};

class Session {
 public:
  static Result<std::unique_ptr<Session>> open(const SessionOptions& options);
  ~Session();
  // Closes the device; returns the validation layer's messages of the whole session. Nothing else may be called afterwards.
  std::uint64_t close();

  Executor& executor() { return *executor_; }
  const DevicePlan* plan() const;     // null for "cpu"
  std::string device_name() const;
  std::string driver_name() const;    // "" for "cpu"
  std::string driver_info() const;
  std::uint64_t validation_messages() const { return validation_count_; }
  const std::string& last_validation_message() const { return validation_text_; }

  // Support first, then the case itself; validation messages turn a pass into validation_error.
  CaseResult run(const Case& c, std::uint64_t seed);
  // First line of a report: plugin, shader set, device, list.
  std::string header_json(std::uint64_t seed, const std::string& shard, std::size_t case_count) const;

 private:
  Session() = default;

  std::uint32_t device_index_ = 0;
  DeviceOptions device_options_;
  std::unique_ptr<Instance> instance_;
  std::unique_ptr<DeviceContext> context_;
  std::unique_ptr<Executor> own_executor_;
  Executor* executor_ = nullptr;
  bool validation_ = false;
  std::string overrides_;
  std::uint64_t validation_count_ = 0;
  std::string validation_text_;
};

}  // namespace kvant::conformance
