// CacheImpl: pruning of a sequence by its attention masses.
#include <algorithm>
#include <numeric>

#include "cache_impl.hpp"
#include "prune_choice.hpp"

namespace kvant {

Result<std::vector<std::uint64_t>> CacheImpl::choose_places(const Sequence& sequence, const PruneSpec& asked) {
  const PruneSpec spec = widen_to_windows(asked, std::span<const GroupGeometry>(geometry_.groups));
  KVANT_TRY(check_prune(spec));
  if (sequence.length <= spec.keep) {
    std::vector<std::uint64_t> all(static_cast<std::size_t>(sequence.length));
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    return all;
  }
  std::vector<float> mass(static_cast<std::size_t>(sequence.length - spec.sinks - spec.recent));
  KVANT_TRY(attention_mass(sequence.id, std::nullopt, std::nullopt, spec.sinks, mass));
  return choose_kept(sequence.length, spec, mass);
}

Result<std::vector<std::uint64_t>> CacheImpl::prune_sequence(SequenceId id, const PruneSpec& spec) {
  KVANT_TRY(need_mass());
  KVANT_TRY(check_no_step("prune a sequence"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  if (sequence->whole)
    return Status(StatusCode::failed_precondition, sequence_text(id) + " is to be read back whole and cannot be pruned");
  KVANT_ASSIGN(std::vector<std::uint64_t> kept, choose_places(*sequence, spec));
  if (kept.size() == sequence->length) return kept;
  std::uint64_t same = 0;
  while (same < kept.size() && kept[same] == same) ++same;
  const std::uint64_t before = sequence->length;
  if (same == kept.size()) {
    KVANT_TRY(truncate_sequence(id, same));  // the newest tokens were not to stay
  } else {
    KVANT_TRY(check_kept(*sequence, kept, true));
    KVANT_TRY(move_tokens(*sequence, kept, same));
    sequence->pruned = true;
    // Tokens that a sliding window had left have no keys in the places they moved to.
    const bool windows = std::any_of(geometry_.groups.begin(), geometry_.groups.end(), [](const auto& g) { return g.window != 0; });
    if (windows) sequence->least_length = sequence->length;
  }
  event(EventKind::pruned, before, sequence->length, id);
  return kept;
}

}  // namespace kvant
