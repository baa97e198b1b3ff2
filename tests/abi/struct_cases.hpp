// Every struct that crosses the boundary, with a good one of it and a call that takes it: what struct_every_test.cpp goes through.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <kvant/kvant_ext_manager.h>

#include "vulkan_engine.hpp"

#include "library.hpp"

namespace abi_test {

struct StructCase {
  std::string type;
  std::vector<unsigned char> good;     // bytes of a struct with which the call succeeds
  bool output = false;                 // the library fills it
  std::size_t least = 16;              // smaller ones are refused
  std::function<Outcome(void*)> call;  // may be called again and again
};

// Objects that the calls need, and the cases; destroyed together.
class StructCases {
 public:
  StructCases();
  ~StructCases();
  StructCases(const StructCases&) = delete;
  StructCases& operator=(const StructCases&) = delete;

  const std::vector<StructCase>& cases() const { return cases_; }
  bool has_device() const { return session_.device != nullptr; }

 private:
  template <typename T>
  void add(const T& good, std::function<Outcome(T*)> call, bool output = false);
  template <typename T>
  void add_output(std::function<Outcome(T*)> call) { add<T>(make<T>(), std::move(call), true); }
  void add_without_device();
  void add_caches();
  void add_steps();
  void add_paged();
  void add_manager();
  void add_tiers();
  void add_borrowed();
  kvant_cache* prefix_cache() const;

  std::vector<StructCase> cases_;
  Session& session_ = shared_session();
  const kvant_ext_manager* manager_ = nullptr;
  std::vector<kvant_cache*> caches_;
  std::vector<kvant_step*> steps_;
  // What the good structs point at.
  kvant_layer_args layer_ = make<kvant_layer_args>();
  kvant_policy_args policy_ = make<kvant_policy_args>();
  kvant_step_entry entry_ = make<kvant_step_entry>();
  kvant_paged_args paged_ = make<kvant_paged_args>();
  kvant_tier_functions functions_ = make<kvant_tier_functions>();
  kvant_tier_args tier_ = make<kvant_tier_args>();
  StepData data_;
  std::vector<kvant_tensor> tensors_;
  kvant_run_args run_ = make<kvant_run_args>();
  std::vector<std::int32_t> tokens_ = std::vector<std::int32_t>(16, 5);
  std::vector<double> frequencies_ = std::vector<double>(4, 0.5);
  std::vector<std::int64_t> slots_ = {5, -1};
  std::vector<std::uint32_t> formats_;
  std::uint64_t number_ = 0;
  // A device that is imported again and again, and one that is imported once; the context goes before both.
  VulkanEngine often_, engine_;
  std::unique_ptr<Session> borrowed_;
};

}  // namespace abi_test
