#include "pipeline_warmer.hpp"

#include <new>
#include <system_error>

#include "pipeline_cache.hpp"

namespace kvant {

PipelineWarmer::PipelineWarmer(PipelineCache& cache, std::vector<PipelineKey> keys) : cache_(cache), keys_(std::move(keys)) {
  if (keys_.empty()) return;
  try {
    worker_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
}

PipelineWarmer::~PipelineWarmer() {
  stop_.store(true, std::memory_order_relaxed);
  if (worker_.joinable()) worker_.join();
}

void PipelineWarmer::work() {
  for (const PipelineKey& key : keys_) {
    if (stop_.load(std::memory_order_relaxed)) return;
    try {
      cache_.warm(key);
    } catch (const std::bad_alloc&) {
      return;
    }
  }
}

}  // namespace kvant
