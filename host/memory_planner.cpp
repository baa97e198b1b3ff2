#include "memory_planner.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "checked.hpp"
#include "format_error.hpp"
#include "geometry.hpp"
#include "memory_prune.hpp"
#include "prune_choice.hpp"

namespace kvant {
namespace {

constexpr double kUnlimited = 1.0, kHalf = 0.5, kQuarter = 0.25;

// The planner's own copy of the state, on which actions are tried.
class Sketch {
 public:
  explicit Sketch(const MemoryState& state) : state_(state) {
    for (const MemoryGroup& group : state_.groups) slabs_.push_back(group.allocated_slabs);
  }

  // The largest there is: the last one may hold fewer pages.
  std::uint64_t slab_bytes(std::size_t group) const { return slab_bytes(group, state_.groups[group].pages_per_slab); }
  std::uint64_t slab_bytes(std::size_t group, std::uint32_t pages) const {
    std::uint64_t bytes = 0;
    for (const MemoryLayer& layer : state_.layers) {
      if (layer.group != group) continue;
      LayerGeometry facts;
      for (std::size_t s = 0; s < 2; ++s)
        facts.sides[s] = make_side(layer.format[s], layer.head_dim[s], layer.kv_heads, state_.page_tokens);
      bytes += slab_layout(facts, pages, state_.region_alignment).total_bytes;
    }
    return bytes + state_.groups[group].mass_page_bytes * pages;
  }
  // Of so many slabs, as if they were the first ones: the last one is among them if all are.
  std::uint64_t group_bytes(std::size_t group, std::uint64_t slabs) const {
    const MemoryGroup& facts = state_.groups[group];
    if (slabs == 0 || slabs < needed_slabs(group, facts.total_pages)) return slabs * slab_bytes(group);
    return (slabs - 1) * slab_bytes(group) + slab_bytes(group, facts.total_pages - static_cast<std::uint32_t>(slabs - 1) * facts.pages_per_slab);
  }
  std::uint64_t bytes() const {
    std::uint64_t all = state_.other_bytes;
    for (std::size_t g = 0; g < slabs_.size(); ++g) all += group_bytes(g, slabs_[g]);
    return all;
  }
  // With every page of the prefix cache gone and no slab without a page of a sequence.
  std::uint64_t least_bytes() const {
    std::uint64_t all = state_.other_bytes;
    for (std::size_t g = 0; g < slabs_.size(); ++g) all += group_bytes(g, needed_slabs(g, state_.groups[g].held_pages));
    return all;
  }
  std::uint64_t needed_slabs(std::size_t group, std::uint64_t pages) const {
    return divide_up(pages, state_.groups[group].pages_per_slab);
  }

  // Every sequence keeps at most this share of its tokens, and its sinks and newest. Pages of sequences count as if none were
  // shared: pruning gives each its own.
  std::uint64_t kept_of(const MemorySequence& sequence, std::uint32_t per_mille, const MemoryOptions& options) const {
    if (sequence.whole) return sequence.length;
    const PruneSpec least = widen_to_windows({.sinks = options.sinks, .recent = options.recent},
                                             std::span<const MemoryGroup>(state_.groups));
    const std::uint64_t share = sequence.length / 1000 * per_mille + sequence.length % 1000 * per_mille / 1000;
    return std::min(sequence.length, std::max(least.sinks + least.recent, share));
  }
  void prune(std::span<const std::uint64_t> kept) {
    for (MemoryGroup& group : state_.groups) {
      std::uint64_t pages = 0;
      // And a page each, so that they can go on.
      for (const std::uint64_t tokens : kept) pages += divide_up(tokens, state_.page_tokens) + 1;
      group.held_pages = static_cast<std::uint32_t>(std::min<std::uint64_t>(pages, group.total_pages));
      group.index_pages += group.published_pages;
    }
  }

  MemoryState state_;
  std::vector<std::uint64_t> slabs_;  // per group
};

class Planner {
 public:
  Planner(const MemoryState& state, std::uint64_t limit, const MemoryOptions& options)
      : sketch_(state), limit_(limit), options_(options) {
    plan_.limit_bytes = limit;
    plan_.bytes_before = sketch_.bytes();
  }

  Result<MemoryPlan> run() {
    const double ratio = plan_.bytes_before == 0 ? kUnlimited
                                                 : static_cast<double>(limit_) / static_cast<double>(plan_.bytes_before);
    if (ratio < kUnlimited) {
      if (ratio < kHalf) narrow_while([&](FormatId to) { return ratio < kQuarter || format_bits(to) >= 8; }, [&] {
        return sketch_.bytes() <= limit_;
      });
      // What sequences hold must fit, whatever the prefix cache gives.
      narrow_while([](FormatId) { return true; }, [&] { return sketch_.least_bytes() <= limit_; });
      if (sketch_.least_bytes() > limit_ && options_.prune && sketch_.state_.mass) prune();
      if (sketch_.least_bytes() > limit_) return impossible();
      give_back_room();
    }
    if (sketch_.bytes() > limit_) return impossible();
    set_limits();
    plan_.bytes_after = sketch_.bytes();
    return std::move(plan_);
  }

 private:
  Status impossible() const {
    return {StatusCode::resource_exhausted,
            "a limit of " + std::to_string(limit_) + " bytes cannot be met: what sequences hold takes " +
                std::to_string(sketch_.least_bytes()) + " bytes in the narrowest formats that are allowed" + excuse_ + "; a slab takes up to " +
                std::to_string(largest_slab()) + " bytes"};
  }

  std::uint64_t largest_slab() const {
    std::uint64_t bytes = 0;
    for (std::size_t g = 0; g < sketch_.slabs_.size(); ++g) bytes = std::max(bytes, sketch_.slab_bytes(g));
    return bytes;
  }

  // The next format of the ladder that is narrower than `format`.
  std::optional<FormatId> narrower(FormatId format) const {
    for (const FormatId step : options_.ladder)
      if (format_bits(step) < format_bits(format)) return step;
    return std::nullopt;
  }

  // Narrows the side that costs least for what it gives, until `enough`.
  template <typename Allowed, typename Enough>
  void narrow_while(Allowed allowed, Enough enough) {
    while (!enough()) {
      double best = 0;
      std::size_t best_layer = 0, best_side = 2;
      for (std::size_t l = 0; l < sketch_.state_.layers.size(); ++l)
        for (std::size_t s = 0; s < 2; ++s) {
          const MemoryLayer& layer = sketch_.state_.layers[l];
          const std::optional<FormatId> to = narrower(layer.format[s]);
          if (layer.weight[s] < 0 || !to || !allowed(*to)) continue;
          const double cost = layer.weight[s] * (format_error(*to) - format_error(layer.format[s]));
          const double saved = (format_bits(layer.format[s]) - format_bits(*to)) * layer.head_dim[s] * layer.kv_heads;
          const double merit = saved / std::max(cost, 1e-300);
          if (best_side == 2 || merit > best) {
            best = merit;
            best_layer = l;
            best_side = s;
          }
        }
      if (best_side == 2) return;
      MemoryAction action;
      action.kind = MemoryActionKind::convert;
      action.layer = static_cast<std::uint32_t>(best_layer);
      action.side = static_cast<Side>(best_side);
      FormatId& format = sketch_.state_.layers[best_layer].format[best_side];
      action.from = format;
      action.to = *narrower(format);
      apply(action, [&] { format = action.to; });
    }
  }

  // The largest share of all sequences' tokens that fits. Tokens go before anything is converted: what does not succeed has
  // changed nothing then.
  void prune() {
    constexpr std::uint32_t kAll = 1000;
    const MemoryState whole = sketch_.state_;
    std::vector<std::uint64_t> kept;
    const auto fits = [&](std::uint32_t per_mille) {
      sketch_.state_ = whole;
      kept.clear();
      for (const MemorySequence& sequence : whole.sequences) kept.push_back(sketch_.kept_of(sequence, per_mille, options_));
      sketch_.prune(kept);
      return sketch_.least_bytes() <= limit_ && prune_has_room(whole, kept);
    };
    std::uint32_t least = 0, most = kAll;  // least fits, or nothing does
    while (most - least > 1) {
      const std::uint32_t middle = (least + most) / 2;
      (fits(middle) ? least : most) = middle;
    }
    if (!fits(least)) {
      const bool no_room = sketch_.least_bytes() <= limit_;
      excuse_ = no_room ? "; sequences share pages, and there are no free ones to prune them into" : ", pruned as far as may be";
      if (no_room) sketch_.state_ = whole;
      return;
    }
    std::vector<MemoryAction> actions;
    for (std::size_t s = 0; s < kept.size(); ++s) {
      if (kept[s] == whole.sequences[s].length) continue;
      MemoryAction action;
      action.kind = MemoryActionKind::prune;
      action.sequence = whole.sequences[s].id;
      action.tokens = whole.sequences[s].length;
      action.kept = kept[s];
      action.bytes_before = action.bytes_after = plan_.bytes_before;  // its slabs go when the room is given back
      actions.push_back(action);
    }
    plan_.actions.insert(plan_.actions.begin(), actions.begin(), actions.end());
  }

  // Slabs without pages first; then pages of the prefix cache, where a slab gives most.
  void give_back_room() {
    for (std::uint32_t g = 0; g < sketch_.slabs_.size() && sketch_.bytes() > limit_; ++g) {
      const MemoryGroup& group = sketch_.state_.groups[g];
      shrink(g, sketch_.needed_slabs(g, std::uint64_t{group.held_pages} + group.index_pages));
    }
    while (sketch_.bytes() > limit_) {
      std::size_t chosen = sketch_.slabs_.size();
      for (std::size_t g = 0; g < sketch_.slabs_.size(); ++g) {
        const bool can = sketch_.slabs_[g] > sketch_.needed_slabs(g, sketch_.state_.groups[g].held_pages);
        if (can && (chosen == sketch_.slabs_.size() || sketch_.slab_bytes(g) > sketch_.slab_bytes(chosen))) chosen = g;
      }
      if (chosen == sketch_.slabs_.size()) return;
      MemoryGroup& group = sketch_.state_.groups[chosen];
      const std::uint64_t over = sketch_.bytes() - limit_;
      const std::uint64_t slabs = std::max(sketch_.needed_slabs(chosen, group.held_pages),
                                           sketch_.slabs_[chosen] - std::min(sketch_.slabs_[chosen],
                                                                             divide_up(over, sketch_.slab_bytes(chosen))));
      const std::uint64_t room = slabs * group.pages_per_slab;
      const std::uint64_t pages = std::uint64_t{group.held_pages} + group.index_pages;
      if (pages > room) {
        MemoryAction action;
        action.kind = MemoryActionKind::evict;
        action.group = static_cast<std::uint32_t>(chosen);
        action.pages = static_cast<std::uint32_t>(pages - room);
        apply(action, [&] { group.index_pages -= action.pages; });
      }
      shrink(static_cast<std::uint32_t>(chosen), slabs);
    }
  }

  void shrink(std::uint32_t group, std::uint64_t slabs) {
    if (slabs >= sketch_.slabs_[group]) return;
    MemoryAction action;
    action.kind = MemoryActionKind::resize;
    action.group = group;
    action.slabs = static_cast<std::uint32_t>(slabs);
    apply(action, [&] { sketch_.slabs_[group] = slabs; });
  }

  template <typename F>
  void apply(MemoryAction& action, F&& change) {
    action.bytes_before = sketch_.bytes();
    change();
    action.bytes_after = sketch_.bytes();
    plan_.actions.push_back(action);
  }

  // What is left of the limit may be allocated later, in equal shares of the groups' sizes.
  void set_limits() {
    std::vector<std::uint64_t> slabs = sketch_.slabs_;
    std::uint64_t left = limit_ - sketch_.bytes();
    for (bool grown = true; grown;) {
      grown = false;
      for (std::size_t g = 0; g < slabs.size(); ++g) {
        if (slabs[g] >= sketch_.needed_slabs(g, sketch_.state_.groups[g].total_pages)) continue;
        const std::uint64_t more = sketch_.group_bytes(g, slabs[g] + 1) - sketch_.group_bytes(g, slabs[g]);
        if (more > left) continue;
        left -= more;
        ++slabs[g];
        grown = true;
      }
    }
    for (const std::uint64_t count : slabs) plan_.slab_limit.push_back(static_cast<std::uint32_t>(count));
  }

  Sketch sketch_;
  std::uint64_t limit_;
  const MemoryOptions& options_;
  std::string excuse_;  // why pruning does not help
  MemoryPlan plan_;
};

}  // namespace

std::uint64_t allocated_bytes(const MemoryState& state) { return Sketch(state).bytes(); }

Result<MemoryPlan> plan_memory(const MemoryState& state, std::uint64_t limit_bytes, const MemoryOptions& options) {
  return Planner(state, limit_bytes, options).run();
}

std::string memory_plan_text(const MemoryPlan& plan, const MemoryState& state) {
  const std::string limit = plan.limit_bytes == UINT64_MAX ? "no limit" : "limit " + std::to_string(plan.limit_bytes) + " bytes";
  std::string out = limit + ": from " + std::to_string(plan.bytes_before) + " to " +
                    std::to_string(plan.bytes_after) + " bytes in " + std::to_string(plan.actions.size()) + " actions\n";
  for (const MemoryAction& action : plan.actions) {
    out += std::to_string(action.bytes_before) + " -> " + std::to_string(action.bytes_after) + ": ";
    if (action.kind == MemoryActionKind::convert) {
      out += "convert " + std::string(action.side == Side::k ? "K" : "V") + " of layer " + std::to_string(action.layer) +
             " from " + std::string(format_info(action.from).name) + " to " + std::string(format_info(action.to).name);
    } else if (action.kind == MemoryActionKind::prune) {
      out += "prune " + sequence_text(action.sequence) + " from " + std::to_string(action.tokens) + " to " +
             std::to_string(action.kept) + " tokens, those of the most attention";
    } else if (action.kind == MemoryActionKind::evict) {
      out += std::string(state.tiers ? "spill " : "evict ") + std::to_string(action.pages) +
             " pages of the prefix cache from layer group " + std::to_string(action.group);
    } else {
      out += "resize layer group " + std::to_string(action.group) + " to " + std::to_string(action.slabs) + " slabs";
    }
    out += "\n";
  }
  return out;
}

}  // namespace kvant
