// CacheImpl: pages of the prefix cache in colder tiers. They go there when their room on the device is needed, or when asked; they
// come back when a sequence begins with them.
#include <algorithm>
#include <cassert>

#include "cache_impl.hpp"
#include "rollback.hpp"

namespace kvant {

Status CacheImpl::need_tiers() const {
  KVANT_TRY(need_prefixes());
  if (tiers_ != nullptr) return {};
  return {StatusCode::failed_precondition, "this cache has no tiers"};
}

Status CacheImpl::set_tiers(std::vector<std::unique_ptr<Tier>> tiers, const TierOptions& options) {
  KVANT_TRY(need_prefixes());
  if (!tiers.empty() && means_.any_measured())
    return {StatusCode::failed_precondition,
            "this cache measures the means of its centred layers, and what tiers hold must not depend on them: give the means with the layers"};
  TierOptions kept = options;
  std::unique_ptr<TierStack> made;
  if (!tiers.empty()) made = std::make_unique<TierStack>(std::move(tiers), options.queue_bytes);
  tiers_ = std::move(made);  // what waits for the old ones is stored first
  tier_options_ = std::move(kept);
  return {};
}

// Reads the nodes' pages and hands them to the tiers. The pages must be held. A page that cannot be read is not stored: the cache
// can do without.
void CacheImpl::spill(std::span<const SpilledPage> spilled) {
  const CacheJournal::Timer timer(journal_, Operation::store);
  std::vector<GroupBlobs> entries(spilled.size(), GroupBlobs(pools_.size()));
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::vector<FilledPage> pages;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < spilled.size(); ++i)
      if (spilled[i].pages[g] != kNoPage) {
        pages.push_back({static_cast<std::uint32_t>(spilled[i].pages[g]), geometry_.page_tokens});
        places.push_back(i);
      }
    std::vector<std::vector<std::byte>> blobs;
    if (const Status status = download_pages(g, pages, blobs); !status.ok()) {
      log_.write(LogLevel::warning, "pages that leave the device are not stored: " + status.message());
      return;
    }
    for (std::size_t i = 0; i < places.size(); ++i) entries[places[i]][g] = std::move(blobs[i]);
  }
  for (std::size_t i = 0; i < spilled.size(); ++i) {
    event(EventKind::tier_store, CacheJournal::short_key(spilled[i].key));
    tiers_->store(tier_key(spilled[i].key, tier_options_.formats),
                  pack_tier_blob(geometry_, tier_options_.formats, entries[i]));
  }
}

Status CacheImpl::store_prefixes() {
  KVANT_TRY(need_tiers());
  constexpr std::size_t kBatch = 64;
  std::vector<SpilledPage> batch;
  for (const PrefixNode* node : prefixes_->nodes()) {
    if (any_recoded(node->pages)) continue;
    batch.push_back({node->key, node->pages});
    if (batch.size() < kBatch) continue;
    spill(batch);
    batch.clear();
  }
  if (!batch.empty()) spill(batch);
  return {};
}

Status CacheImpl::drain_tiers() {
  KVANT_TRY(need_tiers());
  tiers_->drain();
  return {};
}

Status CacheImpl::clear_tiers(std::optional<std::size_t> tier) {
  KVANT_TRY(need_tiers());
  if (tier && *tier >= tiers_->size())
    return {StatusCode::invalid_argument,
            "tier (" + std::to_string(*tier) + ") is not less than the cache's " + std::to_string(tiers_->size()) + " tiers"};
  tiers_->clear(tier);
  return {};
}

Result<TierStackStats> CacheImpl::tier_stats() const {
  KVANT_TRY(need_tiers());
  return tiers_->stats();
}

// Keys of the full pages behind the first `pages` ones, as far as they may be taken from the cache.
std::vector<PrefixKey> CacheImpl::keys_behind(const SequenceSpec& spec, std::size_t pages) const {
  std::vector<PrefixKey> keys;
  if (spec.tokens.size() <= spec.leave_tokens) return keys;
  const std::uint32_t page_tokens = geometry_.page_tokens;
  const std::uint64_t wanted = spec.tokens.size() - spec.leave_tokens;
  PrefixKey key = root_key(prefixes_->content(), spec.salt);
  for (std::uint64_t begin = 0; begin + page_tokens <= spec.tokens.size() && begin < wanted; begin += page_tokens) {
    key = page_key(key, spec.tokens.subspan(begin, page_tokens));
    if (begin / page_tokens >= pages) keys.push_back(key);
  }
  return keys;
}

Status CacheImpl::prefetch_prefix(const SequenceSpec& spec) {
  KVANT_TRY(need_tiers());
  std::vector<TierKey> keys;
  for (const PrefixKey& key : keys_behind(spec, match_prefix(spec).chain.size()))
    keys.push_back(tier_key(key, tier_options_.formats));
  tiers_->prefetch(std::move(keys));
  return {};
}

bool CacheImpl::worth_loading(std::size_t entries) {
  const std::uint64_t tokens = std::uint64_t{entries} * geometry_.page_tokens;
  if (entries == 0 || tokens < tier_options_.min_tokens) return false;
  std::uint64_t bytes = 0;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) bytes += token_blob_bytes(g) * tokens;
  const double load = tiers_->load_seconds(bytes), compute = seconds_per_token_ * static_cast<double>(tokens);
  if (!tier_options_.compare_recompute || load == 0 || compute == 0 || load <= compute) return true;
  tiers_->count_declined(entries);
  return false;
}

// The node behind `node` with a page of a tier: a new one, or one that is there already, its gaps filled. Null: another content has
// its key.
PrefixNode* CacheImpl::place_loaded(PrefixNode* node, std::span<const std::int32_t> tokens, std::span<const std::int32_t> pages,
                                    const PublishFacts& facts) {
  PrefixNode* placed = prefixes_->child(node, tokens);
  bool used = placed == nullptr;
  if (placed == nullptr) {
    placed = prefixes_->insert(node, tokens, pages, facts, now_ms());
    if (placed == nullptr) return nullptr;
  } else {
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      if (placed->pages[g] != kNoPage || pages[g] == kNoPage) continue;
      prefixes_->complete(*placed, g, pages[g]);
      used = true;
    }
  }
  prefix_counters_.loaded += used ? 1 : 0;
  return placed;
}

// Brings the pages behind `match` from the tiers to the device and into the index; what does not fit or is wrong ends it.
void CacheImpl::load_from_tiers(const SequenceSpec& spec, const PrefixMatch& match) {
  const std::vector<PrefixKey> pages_behind = keys_behind(spec, match.chain.size());
  std::vector<TierKey> keys;
  for (const PrefixKey& key : pages_behind) keys.push_back(tier_key(key, tier_options_.formats));
  keys.resize(tiers_->find(keys, spec.near_tiers_only));
  if (keys.size() < pages_behind.size()) event(EventKind::tier_miss, CacheJournal::short_key(pages_behind[keys.size()]));
  if (!worth_loading(keys.size())) return;
  const CacheJournal::Timer timer(journal_, Operation::load);

  PrefixNode* node = match.chain.empty() ? prefixes_->root(spec.salt) : match.chain.back();
  prefixes_->pin(node);  // making room must not take what is being continued
  std::vector<GroupBlobs> entries;
  std::vector<std::vector<std::int32_t>> pages;  // [entry][group]
  std::vector<std::size_t> places;
  const auto fetch = [&]() -> Status {
    for (const std::vector<std::byte>& value : tiers_->load(keys, spec.near_tiers_only, &places)) {
      event(EventKind::tier_hit, CacheJournal::short_key(pages_behind[entries.size()]), places[entries.size()]);
      std::optional<GroupBlobs> blobs = unpack_tier_blob(geometry_, tier_options_.formats, value);
      if (!blobs) break;
      bool room = true;
      for (std::uint32_t g = 0; g < pools_.size() && room; ++g) room = (*blobs)[g].empty() || make_room(g, 1).ok();
      if (!room) break;
      std::vector<std::int32_t>& taken = pages.emplace_back();
      taken.reserve(pools_.size());
      for (std::uint32_t g = 0; g < pools_.size(); ++g) taken.push_back((*blobs)[g].empty() ? kNoPage : pools_[g].take(kNoPage));
      entries.push_back(std::move(*blobs));
    }
    const Status uploaded = upload_entries(entries, pages);
    if (!uploaded.ok()) log_.write(LogLevel::warning, "pages of a tier are not used: " + uploaded.message());
    return uploaded;
  };
  bool placing = within_memory(fetch).ok();
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (placing) {
      const std::size_t begin = (match.chain.size() + i) * geometry_.page_tokens;
      PrefixNode* placed = nullptr;
      const Status status = within_memory([&]() -> Status {
        placed = place_loaded(node, spec.tokens.subspan(begin, geometry_.page_tokens), pages[i], {spec.priority, spec.ttl_ms});
        return {};
      });
      placing = status.ok() && placed != nullptr;  // what follows belongs behind it, nowhere else
      if (placing) {
        prefixes_->pin(placed);
        prefixes_->unpin(node, now_ms());
        node = placed;
      }
    }
    for (std::uint32_t g = 0; g < pages[i].size(); ++g)  // none are taken where memory ran out
      if (pages[i][g] != kNoPage) pools_[g].release(static_cast<std::uint32_t>(pages[i][g]));
  }
  prefixes_->unpin(node, now_ms());
}

Status CacheImpl::upload_entries(std::span<const GroupBlobs> entries, std::span<const std::vector<std::int32_t>> pages) {
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    std::vector<FilledPage> filled;
    std::vector<std::span<const std::byte>> blobs;
    for (std::size_t i = 0; i < entries.size(); ++i)
      if (pages[i][g] != kNoPage) {
        filled.push_back({static_cast<std::uint32_t>(pages[i][g]), geometry_.page_tokens});
        blobs.emplace_back(entries[i][g]);
      }
    KVANT_TRY(fill_pages(g, filled, blobs));
  }
  return {};
}

}  // namespace kvant
