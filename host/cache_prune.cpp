// CacheImpl: pruning. Which tokens of a sequence stay: its sinks, its newest, and of the others those that got most attention (as in
// H2O, Zhang et al. 2023, arXiv:2306.14048, with the sinks of StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).
#include <algorithm>
#include <numeric>

#include "cache_impl.hpp"

namespace kvant {

// Sliding windows must go on seeing what they saw: at least their sinks and their newest tokens stay.
PruneSpec CacheImpl::with_windows(PruneSpec spec) const {
  for (const GroupGeometry& group : geometry_.groups) {
    if (group.window == 0) continue;
    spec.recent = std::max<std::uint64_t>(spec.recent, group.window);
    spec.sinks = std::max<std::uint64_t>(spec.sinks, group.window_sinks);
  }
  return spec;
}

Result<std::vector<std::uint64_t>> CacheImpl::choose_kept(const Sequence& sequence, const PruneSpec& asked) {
  const PruneSpec spec = with_windows(asked);
  if (spec.sinks > spec.keep || spec.recent > spec.keep - spec.sinks)
    return Status(StatusCode::invalid_argument,
                  "keep (" + std::to_string(spec.keep) + ") is less than the " + std::to_string(spec.sinks) + " sinks and " +
                      std::to_string(spec.recent) + " recent tokens that stay in any case");
  std::vector<std::uint64_t> kept(static_cast<std::size_t>(std::min(spec.keep, sequence.length)));
  std::iota(kept.begin(), kept.end(), std::uint64_t{0});
  if (sequence.length <= spec.keep) return kept;
  const std::uint64_t middle_end = sequence.length - spec.recent;
  std::vector<float> mass(static_cast<std::size_t>(middle_end - spec.sinks));
  KVANT_TRY(attention_mass(sequence.id, std::nullopt, std::nullopt, spec.sinks, mass));
  std::vector<std::uint64_t> order(mass.size());
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  const auto chosen = static_cast<std::ptrdiff_t>(spec.keep - spec.sinks - spec.recent);
  // Of equal masses the newer token stays.
  std::nth_element(order.begin(), order.begin() + chosen, order.end(), [&](std::uint64_t a, std::uint64_t b) {
    return mass[a] != mass[b] ? mass[a] > mass[b] : a > b;
  });
  std::sort(order.begin(), order.begin() + chosen);
  for (std::ptrdiff_t i = 0; i < chosen; ++i)
    kept[static_cast<std::size_t>(spec.sinks) + static_cast<std::size_t>(i)] = spec.sinks + order[static_cast<std::size_t>(i)];
  for (std::uint64_t i = 0; i < spec.recent; ++i)
    kept[static_cast<std::size_t>(spec.keep - spec.recent + i)] = middle_end + i;
  return kept;
}

Result<std::vector<std::uint64_t>> CacheImpl::prune_sequence(SequenceId id, const PruneSpec& spec) {
  KVANT_TRY(need_mass());
  KVANT_TRY(check_no_step("prune a sequence"));
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  if (sequence->whole)
    return Status(StatusCode::failed_precondition, sequence_text(id) + " is to be read back whole and cannot be pruned");
  KVANT_ASSIGN(std::vector<std::uint64_t> kept, choose_kept(*sequence, spec));
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
