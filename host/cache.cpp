// CacheImpl: creation, books and sequences.
#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>
#include <limits>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "params/grids.h"
#include "params/pages.h"
#include "rollback.hpp"

namespace kvant {

namespace {

std::uint64_t steady_now_ms() {
  using std::chrono::duration_cast, std::chrono::milliseconds, std::chrono::steady_clock;
  return static_cast<std::uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
}

}  // namespace

Result<std::unique_ptr<Cache>> create_cache(Executor& executor, const CacheSpec& spec, const Log& log,
                                            const GeometryOptions& options) {
  GeometryOptions slabs = options;
  if (spec.slab_bytes != 0) slabs.target_slab_bytes = spec.slab_bytes;
  KVANT_ASSIGN(Geometry geometry, make_geometry(spec, executor.limits(), slabs));
  if (spec.external_pages && geometry.groups.size() != 1)
    return Status(StatusCode::invalid_argument,
                  "external pages need layers of one layer group (equal KV heads, head sizes and "
                  "window), these form " +
                      std::to_string(geometry.groups.size()));
  auto cache = std::make_unique<CacheImpl>(executor, spec, log, std::move(geometry));
  KVANT_TRY(cache->open_prefixes());
  KVANT_TRY(cache->create_means());
  KVANT_TRY(cache->open_protection());
  KVANT_TRY(cache->preallocate(spec.preallocate_bytes));
  return std::unique_ptr<Cache>(std::move(cache));
}

Result<std::unique_ptr<Cache>> Cache::create(Executor& executor, const CacheSpec& spec, const Log& log) {
  return create_cache(executor, spec, log, GeometryOptions{});
}

CacheImpl::CacheImpl(Executor& executor, CacheSpec spec, const Log& log, Geometry geometry)
    : executor_(executor),
      spec_(std::move(spec)),
      log_(log),
      geometry_(std::move(geometry)),
      journal_(geometry_.layers.size(), spec_.events),
      slabs_(executor, geometry_),
      means_(executor, geometry_),
      clock_(steady_now_ms),
      next_sequence_(spec_.first_sequence),
      meta_(executor),
      partial_(executor),
      lse_(executor),
      mass_group_(geometry_.layers.size(), 1.0),
      io_(executor) {
  for (const GroupGeometry& group : geometry_.groups) pools_.emplace_back(group.total_pages, group.pages_per_slab, group.grades);
  sensitivity_.assign(geometry_.layers.size(), MemoryLayer{}.weight);
  step_.groups.resize(geometry_.groups.size());
  step_.appended.resize(geometry_.layers.size());
  log_.write(LogLevel::debug, "cache of " + std::to_string(geometry_.layers.size()) + " layers in " +
                                  std::to_string(geometry_.groups.size()) + " layer groups");
}

CacheImpl::~CacheImpl() {
  if (open_step_ != nullptr) open_step_->cache_ = nullptr;
  for (BufferId buffer : retired_) executor_.destroy_buffer(buffer);
}

// Slab by slab in all groups in turn, from the lowest, which are used first.
Status CacheImpl::preallocate(std::uint64_t bytes) {
  for (std::uint32_t slab = 0; slabs_.allocated_bytes() < bytes; ++slab) {
    bool any = false;
    for (std::uint32_t g = 0; g < pools_.size() && slabs_.allocated_bytes() < bytes; ++g) {
      if (slab >= geometry_.groups[g].slab_count) continue;
      any = true;
      const SlabId id{g, slab};
      KVANT_TRY(slabs_.ensure({&id, 1}, nullptr));
    }
    if (!any) break;
  }
  return {};
}

MemoryUse CacheImpl::memory_use() const {
  MemoryUse use;
  use.pool_bytes = slabs_.allocated_bytes() + means_.bytes();
  if (wide_ != nullptr) {
    use.pool_bytes += wide_->allocated_bytes();
    use.used_bytes += wide_->used_bytes();
  }
  for (std::size_t g = 0; g < pools_.size(); ++g) {
    for (std::uint32_t grade = 0; grade < geometry_.groups[g].grades; ++grade)
      use.used_bytes += page_bytes(static_cast<std::uint32_t>(g), grade) * pools_[g].used_pages_of(grade);
    use.used_pages += pools_[g].used_pages();
    use.total_pages += pools_[g].usable_pages();
  }
  for (const auto& [id, sequence] : sequences_) use.sequence_tokens += sequence.length;
  return use;
}

Result<Sequence*> CacheImpl::find(SequenceId id) {
  const auto found = sequences_.find(static_cast<std::uint64_t>(id));
  if (found == sequences_.end())
    return Status(StatusCode::not_found, sequence_text(id) + " does not exist");
  return &found->second;
}

Result<const Sequence*> CacheImpl::find(SequenceId id) const {
  KVANT_ASSIGN(Sequence* const sequence, const_cast<CacheImpl*>(this)->find(id));
  return const_cast<const Sequence*>(sequence);
}

Status CacheImpl::check_not_in_step(SequenceId id, const char* verb) const {
  if (open_step_ == nullptr) return {};
  for (const StepSequence& entry : step_.sequences)
    if (entry.sequence->id == id)
      return {StatusCode::failed_precondition, sequence_text(id) +
                                                   " is part of the open step; commit or abort it before you " + verb +
                                                   " the sequence"};
  return {};
}

Status CacheImpl::check_layer(std::uint32_t layer) const {
  if (layer < geometry_.layers.size()) return {};
  return {StatusCode::invalid_argument, "layer (" + std::to_string(layer) + ") is not below the cache's " +
                                            std::to_string(geometry_.layers.size()) + " layers"};
}

std::string CacheImpl::under_limit(std::uint32_t group) const {
  if (pools_[group].usable_pages() == pools_[group].total_pages()) return "";
  return ", under a memory limit of " + std::to_string(limit_bytes_) + " bytes";
}

Status CacheImpl::no_pages(std::uint32_t group, std::uint64_t needed) const {
  return {StatusCode::resource_exhausted,
          std::to_string(needed) + " pages are needed in layer group " + std::to_string(group) + ", " +
              std::to_string(pools_[group].free_pages()) + " of the " + std::to_string(pools_[group].usable_pages()) +
              " pages of capacity_tokens (" + std::to_string(spec_.capacity_tokens) + ") are free" + under_limit(group)};
}

std::uint64_t CacheImpl::free_pages() const {
  std::uint64_t pages = 0;
  for (const PagePool& pool : pools_) pages += pool.free_pages();
  return pages;
}

std::uint64_t CacheImpl::page_bytes(std::uint32_t group, std::uint32_t grade) const {
  std::uint64_t bytes = 0;
  for (std::uint32_t layer : geometry_.groups[group].layers) bytes += geometry_.layers[layer].page_bytes(grade);
  return bytes + geometry_.groups[group].mass_page_bytes;
}

Result<SequenceId> CacheImpl::create_sequence() {
  KVANT_ASSIGN(const SequenceStart start, create_sequence(SequenceSpec{}));
  return start.sequence;
}

std::vector<SequenceId> CacheImpl::sequences() const {
  std::vector<SequenceId> ids;
  for (const auto& [id, sequence] : sequences_) ids.push_back(SequenceId{id});
  return ids;
}

Status CacheImpl::destroy_sequence(SequenceId id) {
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  KVANT_TRY(check_not_in_step(id, "destroy"));
  if (sequence->node != nullptr) prefixes_->unpin(sequence->node, now_ms());
  const std::uint64_t tokens = sequence->length, before = free_pages();
  shrink_sequence(*sequence, pools_, 0, geometry_.page_tokens);
  drop_copies(*sequence, 0);
  event(EventKind::sequence_destroyed, tokens, free_pages() - before, id);
  sequences_.erase(static_cast<std::uint64_t>(id));
  return {};
}

Status CacheImpl::truncate_sequence(SequenceId id, std::uint64_t tokens) {
  KVANT_ASSIGN(Sequence* const sequence, find(id));
  KVANT_TRY(check_not_in_step(id, "truncate"));
  if (tokens > sequence->length)
    return {StatusCode::invalid_argument, "tokens (" + std::to_string(tokens) + ") exceed the sequence's length, " +
                                              std::to_string(sequence->length)};
  KVANT_TRY(check_history(*sequence, geometry_.groups, tokens, geometry_.page_tokens));
  shrink_sequence(*sequence, pools_, tokens, geometry_.page_tokens);
  drop_copies(*sequence, tokens + geometry_.page_tokens - 1);
  forget_tokens(*sequence, tokens);
  sequence->reused = std::min(sequence->reused, tokens);
  if (tokens == 0) {
    sequence->pruned = false;
    sequence->least_length = 0;
  }
  return {};
}

Result<std::uint64_t> CacheImpl::sequence_length(SequenceId id) const {
  KVANT_ASSIGN(const Sequence* const sequence, find(id));
  return sequence->length;
}

Result<SequenceId> CacheImpl::fork_sequence(SequenceId parent_id, std::uint64_t tokens) {
  KVANT_ASSIGN(const Sequence* const parent, find(parent_id));
  if (tokens > parent->length)
    return Status(StatusCode::invalid_argument, "tokens (" + std::to_string(tokens) + ") exceed the parent's length, " +
                                                    std::to_string(parent->length));
  KVANT_TRY(check_history(*parent, geometry_.groups, tokens, geometry_.page_tokens));
  const auto full = static_cast<std::uint32_t>(tokens / geometry_.page_tokens);
  const bool open_page = tokens % geometry_.page_tokens != 0;

  Sequence child;
  child.id = SequenceId{next_sequence_};
  child.length = tokens;
  child.tables.resize(geometry_.groups.size());
  std::vector<PagePair> copies;
  std::vector<TakenPage> taken;
  if (open_page)
    for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(make_room(g, 1));
  Rollback undo([&] { shrink_sequence(child, pools_, 0, geometry_.page_tokens); });
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const PageTable& source = parent->tables[g];
    child.tables[g].reserve(full + 1);
    child.tables[g].share(source, full, pools_[g]);
    if (!open_page) continue;
    const std::int32_t page = pools_[g].take(source.at(full));
    child.tables[g].push(page);
    copies.push_back({g, static_cast<std::uint32_t>(source.at(full)), static_cast<std::uint32_t>(page)});
    taken.push_back({0, g, full, page, kNoPage});
  }
  KVANT_TRY(ready_pages(taken));
  KVANT_TRY(device_copy_pages(copies));
  child.tokens.assign(parent->tokens.begin(),
                      parent->tokens.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(
                                                   tokens, parent->tokens.size())));
  child.publish = parent->publish;
  child.pruned = tokens != 0 && parent->pruned;
  child.least_length = tokens != 0 ? parent->least_length : 0;
  child.reused = tokens;
  Rollback forget_copies([&] { drop_copies(child, 0); });
  if (wide_ != nullptr) wide_->share(*parent, child, full);
  Sequence& kept = sequences_[next_sequence_];  // an empty one; the rest cannot fail
  kept = std::move(child);
  undo.complete();
  forget_copies.complete();
  if (parent->node != nullptr) {
    kept.node = parent->node;
    while (kept.node->depth > full) kept.node = kept.node->parent;
    prefixes_->pin(kept.node);
  }
  event(EventKind::sequence_created, tokens, tokens, kept.id);
  return SequenceId{next_sequence_++};
}

}  // namespace kvant
