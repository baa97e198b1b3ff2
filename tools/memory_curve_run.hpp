// One cache of kvant memory-curve: filled with a chunk of text, limited, and read on over what the limit has left.
#pragma once

#include <memory>
#include <vector>

#include "engine/cache_attention.hpp"
#include "eval.hpp"
#include "memory_curve.hpp"

namespace kvant::tools {

// Which pages cool first: those of least attention mass, or, if no mass is known of any, those of lowest id, which are the oldest.
enum class CoolOrder { kMass, kAge };

struct Cooled {
  bool met = false;
  uint64_t bytes_before = 0, bytes_after = 0, pages = 0;
};

class LimitRun {
 public:
  LimitRun(EvalModel& model, const TextEval& text, const CurveReport& report)
      : model_(model), text_(text), report_(report) {}

  // The sequence in use gets the whole chunk without token ids, so that the prefix cache never holds it as well.
  Outcome<void> fill(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t chunk);
  // Only the first half, in a cache that counts mass.
  Outcome<void> fill_half(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t chunk);
  // Pages cool to a share of the bytes.
  Outcome<Cooled> cool(uint32_t percent, const std::vector<uint32_t>& formats, CoolOrder order);
  // One side of a layer alone becomes another format.
  Outcome<void> convert(uint32_t layer, uint32_t side, uint32_t format);
  Outcome<void> weigh(const Sensitivity& sensitivity);
  // Plans and sets the limit; the point is only begun if it cannot be met.
  Outcome<void> limit(CurvePoint& point);
  // The second half of the chunk once more, over what is left of the first, where nothing was pruned: `rows` get the
  // log-probabilities of the token after each, [report.scored][vocabulary].
  Outcome<void> read_second_half(std::vector<float>& rows);
  // The same under a limit, which is watched.
  Outcome<void> read_on(CurvePoint& point, std::vector<float>& rows);
  // For points that did, where the second half has no room beside the first: the whole chunk once more, from its
  // beginning, under the limit. Before each step that would make the sequence longer than the limit left it, it is
  // pruned: by attention mass, or to its sinks and newest tokens alone.
  enum class Keep { kHeaviest, kNewest };
  Outcome<void> read_again(CurvePoint& point, Keep keep, double& sum);
  // Of the tokens that follow those from `first` on, summed; log-probabilities, a row for each.
  double negative_log(uint32_t first, const std::vector<float>& rows) const;
  // Of rows of the same tokens, summed.
  double divergence(const std::vector<float>& truth, const std::vector<float>& rows) const;

 private:
  Outcome<void> feed(uint32_t begin, uint32_t count, std::vector<float>& rows, uint32_t first_scored);
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
