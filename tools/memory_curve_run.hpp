// One cache of kvant memory-curve: filled with a chunk of text, limited, and read on over what the limit has left.
#pragma once

#include <memory>
#include <vector>

#include "engine/cache_attention.hpp"
#include "eval.hpp"
#include "memory_curve.hpp"

namespace kvant::tools {

class LimitRun {
 public:
  LimitRun(EvalModel& model, const TextEval& text, const CurveReport& report)
      : model_(model), text_(text), report_(report) {}

  // The sequence in use gets the whole chunk without token ids, so that the prefix cache never holds it as well.
  Outcome<void> fill(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t chunk);
  // Plans and sets the limit; the point is only begun if it cannot be met.
  Outcome<void> limit(CurvePoint& point);
  // The second half of the chunk once more, over what the limit has left of the first: adds to `sum`. For points that
  // pruned nothing.
  Outcome<void> read_on(CurvePoint& point, double& sum);
  // For points that did, where the second half has no room beside the first: the whole chunk once more, from its
  // beginning, under the limit. Before each step that would make the sequence longer than the limit left it, it is
  // pruned: by attention mass, or to its sinks and newest tokens alone.
  enum class Keep { kHeaviest, kNewest };
  Outcome<void> read_again(CurvePoint& point, Keep keep, double& sum);

 private:
  Outcome<void> feed(uint32_t begin, uint32_t count, std::vector<float>& logits, uint32_t first_scored);
  double negative_log(uint32_t first, const std::vector<float>& logits) const;
  Outcome<uint64_t> pool_bytes();
  Outcome<void> watch(CurvePoint& point, uint64_t& bytes);
  MemoryRules rules() const;

  EvalModel& model_;
  const TextEval& text_;
  const CurveReport& report_;
  const std::vector<uint32_t>* chunk_ = nullptr;
  std::unique_ptr<engine::CacheAttention> cache_;
};

}  // namespace kvant::tools
