// A backend of one device that is no device: what plugin/ finds here instead of backend/instance.cpp is the reference
// executor of tests/reference, so that calls reach kernels that a sanitizer sees, quickly and without a driver.
#include <fstream>
#include <sstream>
#include <string>

#include "backend.hpp"
#include "cpu_executor.hpp"
#include "fuzz_input.hpp"

namespace kvant {
namespace {

DeviceSnapshot recorded_snapshot() {
  std::ifstream file(std::string(KVANT_SOURCE_DIR) + "/tests/snapshots/swiftshader.json");
  std::stringstream text;
  text << file.rdbuf();
  auto snapshot = snapshot_from_json(text.str());
  KVANT_FUZZ_CHECK(snapshot.ok(), snapshot.status().message());
  return std::move(snapshot).value();
}

class CpuDevice final : public DeviceContext {
 public:
  CpuDevice(DevicePlan plan, std::uint64_t memory_limit) : plan_(std::move(plan)) {
    ExecutorLimits limits = executor_.limits();
    limits.max_device_bytes = memory_limit;
    limits.max_staging_bytes = 1u << 20;
    executor_.set_limits(limits);
  }
  const DeviceSnapshot& snapshot() const override { return plan_.snapshot; }
  const DevicePlan& plan() const override { return plan_; }
  std::span<const std::string_view> active_quirks() const override { return {}; }
  Executor& executor() override { return executor_; }
  std::vector<ProfileEntry> take_profile() override { return {}; }
  std::uint64_t device_bytes() const override { return 0; }
  bool lost() const override { return false; }
  TimelinePoint timeline() const override { return {}; }
  Status wait_all() override { return {}; }

 private:
  DevicePlan plan_;
  reference::CpuExecutor executor_;
};

class CpuInstance final : public Instance {
 public:
  CpuInstance() : snapshot_(recorded_snapshot()) {}
  std::span<const DeviceSnapshot> devices() const override { return {&snapshot_, 1}; }
  Result<std::uint32_t> best_device() const override { return std::uint32_t{0}; }
  Result<std::unique_ptr<DeviceContext>> open(std::uint32_t, const DeviceOptions& options) override {
    KVANT_ASSIGN(DevicePlan plan, make_device_plan(snapshot_, options.quirks));
    return std::unique_ptr<DeviceContext>(std::make_unique<CpuDevice>(std::move(plan), options.memory_limit));
  }

 private:
  DeviceSnapshot snapshot_;
};

}  // namespace

Result<std::unique_ptr<Instance>> Instance::create(const InstanceOptions&) {
  return std::unique_ptr<Instance>(std::make_unique<CpuInstance>());
}

Result<std::unique_ptr<DeviceContext>> borrow_device(const BorrowedDevice&, const DeviceOptions&,
                                                     const InstanceOptions&) {
  return Status(StatusCode::unimplemented, "the reference executor borrows no device");
}

}  // namespace kvant
