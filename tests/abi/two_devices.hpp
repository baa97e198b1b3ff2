// Two devices of one context, both in use at once, and short ways to fill and compare caches on them.
#pragma once

#include <array>

#include <kvant/kvant_ext_manager.h>

#include "library.hpp"

namespace abi_test {

// Opens the first two usable devices. Where there are not two, ready() is false; with KVANT_REQUIRE_TWO_DEVICES set that is a failure.
class TwoDevices {
 public:
  TwoDevices();
  ~TwoDevices();
  TwoDevices(const TwoDevices&) = delete;
  TwoDevices& operator=(const TwoDevices&) = delete;

  bool ready() const;
  kvant_device* device(std::size_t index) const { return devices_[index]; }
  kvant_device* reopen(std::size_t index);
  void close(std::size_t index);
  const std::string& name(std::size_t index) const { return names_[index]; }

  Session session{{.open_device = false}};
  const kvant_ext_manager* manager = nullptr;

 private:
  std::array<kvant_device*, 2> devices_{};
  std::array<std::uint32_t, 2> indices_{};
  std::array<std::string, 2> names_;
};

// For tests that leave both open: pipelines are compiled once. Closed at the end of the run.
TwoDevices& shared_devices();

struct FormatPair {
  const char *k, *v;
};
inline constexpr FormatPair kFormatPairs[] = {{"f32", "f16"}, {"q8_0", "q4_0"}, {"nf4_dq", "q5_1"}};

inline constexpr std::uint32_t kSplitHeads = 2, kSplitDim = 64, kSplitQueryHeads = 4;
inline constexpr std::size_t kSplitRow = kSplitHeads * kSplitDim, kSplitQueryRow = kSplitQueryHeads * kSplitDim;

struct SplitCacheOptions {
  std::uint32_t layers = 2;
  FormatPair formats{"q8_0", "q4_0"};
  std::uint32_t flags = 0;
  const char* model_id = nullptr;
  std::uint64_t capacity = 256;
};
kvant_cache* make_cache_on(const TwoDevices& two, kvant_device* device, const SplitCacheOptions& options);

// K, V and queries of a step: a function of layer, place and count alone.
StepData step_data(std::uint32_t layer, std::uint64_t begin, std::uint32_t append, std::uint32_t queries);

kvant_step* plan_step(kvant_cache* cache, kvant_sequence sequence, std::uint32_t append, std::uint32_t queries,
                      const std::int32_t* tokens = nullptr);

// Canonical bytes of all tokens, layers and sides of a sequence.
std::string exported(const TwoDevices& two, kvant_cache* cache, kvant_sequence sequence, std::uint32_t layers,
                     const FormatPair& formats);

double worst_of(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace abi_test
