// CacheImpl: memory under a limit. Carries out what the memory planner says: formats in place, pages of the prefix cache let go,
// pages moved together so that slabs become free.
#include <algorithm>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "rollback.hpp"

namespace kvant {

MemoryState CacheImpl::memory_state() const {
  MemoryState state;
  state.page_tokens = geometry_.page_tokens;
  state.region_alignment = geometry_.region_alignment;
  state.tiers = tiers_ != nullptr;
  state.other_bytes = cold_bytes() + means_.bytes();
  for (std::size_t i = 0; i < geometry_.layers.size(); ++i) {
    const LayerGeometry& layer = geometry_.layers[i];
    MemoryLayer facts;
    facts.group = layer.group;
    facts.kv_heads = geometry_.groups[layer.group].kv_heads;
    for (std::size_t s = 0; s < 2; ++s) {
      facts.head_dim[s] = layer.sides[s].head_dim;
      facts.format[s] = layer.sides[s].format;
      facts.weight[s] = sensitivity_[i][s];
    }
    state.layers.push_back(facts);
  }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const GroupGeometry& group = geometry_.groups[g];
    MemoryGroup facts;
    facts.pages_per_slab = group.pages_per_slab;
    facts.total_pages = group.total_pages;
    // What the policy never lets go is as good as held. Cooled pages have slabs of their own, which the planner leaves alone.
    facts.index_pages = spec_.policy.kind == PolicyKind::none ? 0 : pools_[g].index_only_pages_of(0);
    facts.held_pages = pools_[g].used_pages_of(0) - facts.index_pages;
    facts.published_pages = spec_.policy.kind == PolicyKind::none ? 0 : pools_[g].indexed_pages_of(0) - facts.index_pages;
    facts.window = group.window;
    facts.window_sinks = group.window_sinks;
    facts.mass_page_bytes = group.mass_page_bytes;
    for (std::uint32_t slab = 0; slab < group.slab_count; ++slab) facts.allocated_slabs += slabs_.allocated({g, slab}) ? 1 : 0;
    if (spec_.attention_mass) {
      facts.free_pages = pools_[g].free_pages();
      for (std::uint32_t page = 0; page < group.total_pages; ++page) {
        facts.references.push_back(pools_[g].references(page));
        facts.published.push_back(pools_[g].indexed(page));
      }
    }
    state.groups.push_back(facts);
  }
  state.mass = spec_.attention_mass;
  for (const auto& [id, sequence] : sequences_) {
    if (!state.mass) break;
    MemorySequence facts{.id = sequence.id, .length = sequence.length, .pages = {}, .whole = sequence.whole};
    for (std::uint32_t g = 0; g < sequence.tables.size(); ++g) {
      facts.pages.emplace_back();
      facts.cold_pages.push_back(0);
      for (const std::int32_t page : sequence.tables[g].pages()) {
        if (page == kNoPage) continue;
        if (cooled(g, page)) ++facts.cold_pages.back();
        else facts.pages.back().push_back(page);
      }
    }
    state.sequences.push_back(std::move(facts));
  }
  return state;
}

Status CacheImpl::set_sensitivity(std::uint32_t layer, Side side, double weight) {
  KVANT_TRY(check_layer(layer));
  sensitivity_[layer][static_cast<std::size_t>(side)] = weight;
  return {};
}

Result<MemoryPlan> CacheImpl::plan_limit(std::uint64_t limit_bytes, const MemoryOptions& options) const {
  if (spec_.external_pages)
    return Status(StatusCode::failed_precondition, "the engine keeps the pages of this cache: it alone knows which are free");
  return plan_memory(memory_state(), limit_bytes == 0 ? UINT64_MAX : limit_bytes - copies_share(limit_bytes), options);
}

Result<std::string> CacheImpl::plan_limit_text(std::uint64_t limit_bytes, const MemoryOptions& options) const {
  KVANT_ASSIGN(const MemoryPlan plan, plan_limit(limit_bytes, options));
  return memory_plan_text(plan, memory_state());
}

std::uint64_t CacheImpl::cold_bytes() const {
  std::uint64_t bytes = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g)
    for (std::uint32_t grade = 1; grade < geometry_.groups[g].grades; ++grade) {
      const GroupGeometry& group = geometry_.groups[g];
      const std::uint64_t slabs = divide_up(pools_[g].used_pages_of(grade), group.pages_per_slab);
      for (std::uint32_t slab = 0; slab < slabs; ++slab) bytes += slabs_.slab_bytes({g, grade * group.slab_count + slab});
    }
  return bytes;
}

// Of one group and grade, pages that stand in slabs behind the first `slabs`, to free places of those, which have room for all.
std::vector<CacheImpl::PagePair> CacheImpl::closing_moves(std::uint32_t g, std::uint32_t slabs, std::uint32_t grade) const {
  const GroupGeometry& group = geometry_.groups[g];
  const std::uint32_t first = grade * group.slab_count * group.pages_per_slab;
  std::vector<PagePair> moves;
  std::uint32_t target = first;
  for (std::uint32_t page = first + slabs * group.pages_per_slab; page < first + group.total_pages; ++page) {
    if (pools_[g].references(page) == 0) continue;
    while (pools_[g].references(target) != 0) ++target;
    moves.push_back({g, page, target++});
  }
  return moves;
}

// Then the others' memory goes.
Status CacheImpl::compact(std::uint32_t g, std::uint32_t slabs, std::uint32_t grade) {
  const GroupGeometry& group = geometry_.groups[g];
  const std::uint32_t room = std::min(group.total_pages, slabs * group.pages_per_slab);
  if (pools_[g].used_pages_of(grade) > room)
    return {StatusCode::resource_exhausted, std::to_string(pools_[g].used_pages_of(grade)) + " pages of layer group " + std::to_string(g) +
                                                " are held, " + std::to_string(slabs) + " slabs have room for " + std::to_string(room)};
  KVANT_TRY(move_pages(g, closing_moves(g, slabs, grade)));
  slabs_.release(g, slabs, grade);
  return {};
}

// Pages take other ids, which are free, with all that is in them and in the books. On error nothing has moved.
Status CacheImpl::move_pages(std::uint32_t g, std::span<const PagePair> moves) {
  if (moves.empty()) return {};
  const GroupGeometry& group = geometry_.groups[g];
  std::vector<SlabId> slab_ids, created;
  for (const PagePair& move : moves) {
    const SlabId id{g, group.slab_of(move.destination)};
    if (slab_ids.empty() || !(slab_ids.back() == id)) slab_ids.push_back(id);
  }
  std::vector<std::int32_t> renamed(group.page_ids(), kNoPage);
  const std::vector<PrefixNode*> nodes = prefixes_ != nullptr ? prefixes_->nodes() : std::vector<PrefixNode*>{};
  KVANT_TRY(slabs_.ensure(slab_ids, &created));
  Rollback undo([&] { slabs_.give_back(created); });
  KVANT_TRY(poison_pages(created, {}));
  KVANT_TRY(device_copy_pages(moves));
  undo.complete();
  for (const PagePair& move : moves) {
    pools_[g].move(move.source, move.destination);
    renamed[move.source] = static_cast<std::int32_t>(move.destination);
  }
  const auto rename = [&](std::int32_t page) { return page != kNoPage && renamed[static_cast<std::size_t>(page)] != kNoPage; };
  for (auto& [id, sequence] : sequences_) {
    PageTable& table = sequence.tables[g];
    for (std::uint32_t i = 0; i < table.size(); ++i)
      if (rename(table.at(i))) table.set(i, renamed[static_cast<std::size_t>(table.at(i))]);
  }
  for (PrefixNode* node : nodes)
    if (rename(node->pages[g])) node->pages[g] = renamed[static_cast<std::size_t>(node->pages[g])];
  return {};
}

// `pages` that the prefix cache alone holds leave the group.
Status CacheImpl::evict_pages(std::uint32_t group, std::uint32_t pages) {
  const PagePool& pool = pools_[group];
  const auto idle = [&pool] { return pool.index_only_pages_of(0); };
  // Pages that are being spilled are held twice, so that the pool's own count has let them go already.
  const std::uint32_t wanted = idle() - std::min(idle(), pages);
  std::vector<SpilledPage> spilled;
  while (idle() > wanted) {
    PrefixNode* const victim = prefixes_->choose_victim(now_ms());
    if (victim == nullptr) break;
    let_go(victim, EvictionCause::limit, spilled);
  }
  finish_spill(spilled);
  if (idle() > wanted && geometry_.groups[group].window != 0) prefixes_->shed_group(group, idle() - wanted);
  if (idle() <= wanted) return {};
  return {StatusCode::resource_exhausted, "the eviction policy \"" + std::string(policy_name(spec_.policy.kind)) +
                                              "\" lets no page of the prefix cache go"};
}

Status CacheImpl::set_memory_limit(std::uint64_t limit_bytes, const MemoryOptions& options) {
  KVANT_TRY(check_no_step("change the memory limit"));
  for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(compact_cold(g));
  KVANT_ASSIGN(const MemoryPlan plan, plan_limit(limit_bytes, options));
  for (const MemoryAction& action : plan.actions) {
    switch (action.kind) {
      case MemoryActionKind::convert: KVANT_TRY(convert(action.layer, action.side, action.to)); break;
      case MemoryActionKind::prune: {
        const PruneSpec spec{.keep = action.kept, .sinks = options.sinks, .recent = options.recent};
        KVANT_TRY(prune_sequence(action.sequence, spec).status());
        break;
      }
      case MemoryActionKind::evict: KVANT_TRY(evict_pages(action.group, action.pages)); break;
      case MemoryActionKind::resize: KVANT_TRY(compact(action.group, action.slabs)); break;
    }
  }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    // Pages must not stand where nothing may be allocated any more, even if their slabs were counted as they are.
    if (plan.slab_limit[g] < pools_[g].slabs()) KVANT_TRY(compact(g, plan.slab_limit[g]));
    pools_[g].set_slab_limit(plan.slab_limit[g]);
  }
  if (wide_ != nullptr) limit_copies(limit_bytes);
  event(EventKind::limit_changed, limit_bytes_, limit_bytes);
  limit_bytes_ = limit_bytes;
  return {};
}

// Whether a layer's side may become `format` under the limit.
Status CacheImpl::check_limit(std::uint32_t layer, Side side, FormatId format) const {
  if (limit_bytes_ == 0) return {};
  const LayerGeometry converted = converted_layer(layer, side, format);
  const GroupGeometry& group = geometry_.group_of(layer);
  const std::uint64_t before = slabs_.allocated_bytes();
  std::uint64_t after = before;
  for (std::uint32_t slab = 0; slab < group.slab_ids(); ++slab)
    if (slabs_.buffer(layer, slab) != BufferId::none)
      after += slab_layout(converted, group.pages_in(slab), geometry_.region_alignment, group.grade_of(slab)).total_bytes - slabs_.layout(layer, slab).total_bytes;
  if (after + means_.bytes() <= limit_bytes_ - copies_share(limit_bytes_) || after <= before) return {};
  return {StatusCode::resource_exhausted, "layer " + std::to_string(layer) + " in " + std::string(format_info(format).name) +
                                              " would take the slabs to " + std::to_string(after) +
                                              " bytes, beyond the memory limit of " + std::to_string(limit_bytes_)};
}

// After formats have changed: how many slabs the limit has room for.
void CacheImpl::refresh_slab_limits() {
  if (limit_bytes_ == 0) return;
  const Result<MemoryPlan> plan = plan_limit(limit_bytes_, {});
  if (!plan.ok() || !plan.value().actions.empty()) return;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const std::uint32_t slabs = plan.value().slab_limit[g];
    std::uint32_t taken = 0;  // what is there stays
    for (std::uint32_t slab = 0; slab < geometry_.groups[g].slab_count; ++slab)
      if (slabs_.allocated({g, slab})) taken = slab + 1;
    pools_[g].set_slab_limit(std::max(slabs, taken));
  }
}

Status CacheImpl::quantize_all(FormatId format_k, FormatId format_v) {
  KVANT_TRY(check_no_step("convert the cache"));
  for (std::uint32_t layer = 0; layer < geometry_.layers.size(); ++layer) {
    KVANT_TRY(convert(layer, Side::k, format_k));
    KVANT_TRY(convert(layer, Side::v, format_v));
  }
  return {};
}

}  // namespace kvant
