// PipelineWarmer: a thread that compiles listed pipelines ahead of their first use, while the engine loads its weights. It calls back
// nobody and fails in silence: whoever needs a pipeline compiles it then, and gets the error.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "pipeline_key.hpp"

namespace kvant {

class PipelineCache;

class PipelineWarmer {
 public:
  // `cache` outlives the warmer. Without memory or a thread to be had nothing is warmed.
  PipelineWarmer(PipelineCache& cache, std::vector<PipelineKey> keys);
  ~PipelineWarmer();  // waits for the pipeline at hand, leaves the others out
  PipelineWarmer(const PipelineWarmer&) = delete;
  PipelineWarmer& operator=(const PipelineWarmer&) = delete;

 private:
  void work();

  PipelineCache& cache_;
  const std::vector<PipelineKey> keys_;
  std::atomic<bool> stop_{false};
  std::thread worker_;  // last: it uses all of the above
};

}  // namespace kvant
