#include "tensor_store.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

#include "rollback.hpp"

namespace kvant {
namespace {

PrefixKey entry_key(std::span<const std::int32_t> tokens, std::string_view salt) { return page_key(root_key({}, salt), tokens); }

}  // namespace

Result<std::unique_ptr<TensorStore>> TensorStore::create(Executor& executor, const StoreSpec& spec) {
  assert(spec.hot != nullptr);
  if (spec.cold != nullptr) {
    std::vector<LayerSpec> hot = spec.hot->spec().layers, cold = spec.cold->spec().layers;
    for (std::vector<LayerSpec>* layers : {&hot, &cold})
      for (LayerSpec& layer : *layers) layer.format_k = layer.format_v = FormatId::f32;
    if (spec.cold == spec.hot || hot != cold)
      return Status(StatusCode::invalid_argument, "the cold cache's layers differ from the hot cache's in more than formats");
  }
  PolicySpec policy = spec.policy;
  if (policy.capacity_entries == 0) policy.capacity_entries = spec.hot->memory_use().total_pages;
  KVANT_ASSIGN(std::unique_ptr<EvictionPolicy> hot_policy, EvictionPolicy::create(policy));
  KVANT_ASSIGN(std::unique_ptr<EvictionPolicy> cold_policy, EvictionPolicy::create(policy));
  return std::unique_ptr<TensorStore>(new TensorStore(executor, spec, std::move(hot_policy), std::move(cold_policy)));
}

TensorStore::TensorStore(Executor& executor, const StoreSpec& spec, std::unique_ptr<EvictionPolicy> hot_policy,
                         std::unique_ptr<EvictionPolicy> cold_policy)
    : executor_(executor), spec_(spec), hot_policy_(std::move(hot_policy)), cold_policy_(std::move(cold_policy)) {}

TensorStore::~TensorStore() { clear(); }

TensorStore::Entry* TensorStore::find(std::span<const std::int32_t> tokens, std::string_view salt) const {
  return find(entry_key(tokens, salt), tokens, salt);
}

TensorStore::Entry* TensorStore::find(const PrefixKey& key, std::span<const std::int32_t> tokens, std::string_view salt) const {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  Entry* const entry = found->second.get();
  return entry->salt == salt && std::equal(tokens.begin(), tokens.end(), entry->tokens.begin(), entry->tokens.end()) ? entry
                                                                                                                    : nullptr;
}

// A sequence of the entry's length: what the prefix cache holds of it is there, the rest is empty.
Result<SequenceStart> TensorStore::open(Cache& cache, const Entry& entry) {
  SequenceSpec sequence;
  sequence.tokens = entry.tokens;
  sequence.salt = entry.salt;
  sequence.whole = true;
  KVANT_ASSIGN(const SequenceStart start, cache.create_sequence(sequence));
  Rollback undo([&] { [[maybe_unused]] const Status gone = cache.destroy_sequence(start.sequence); });
  KVANT_TRY(cache.extend_sequence(start.sequence, entry.tokens.size()));
  undo.complete();
  return start;
}

// Lets other prefixes go until the entry fits.
Result<SequenceStart> TensorStore::open_with_room(bool cold, const Entry& entry) {
  Cache& cache = cold ? *spec_.cold : *spec_.hot;
  while (true) {
    Result<SequenceStart> start = open(cache, entry);
    if (start.ok() || start.status().code() != StatusCode::resource_exhausted) return start;
    if (!let_one_go(cold)) return start.status();
  }
}

// The next prefix of a full cache: a hot one moves to the cold cache, if there is one and it takes it; else it leaves.
bool TensorStore::let_one_go(bool cold) {
  const std::optional<EntryId> victim = policy_of(cold).evict(tick());
  if (!victim) return false;
  Entry& entry = *by_id_.at(static_cast<std::uint64_t>(*victim));
  if (!cold && spec_.cold != nullptr && entry.missing == 0 && move(entry, true).ok()) {
    ++counters_.demoted;
    return true;
  }
  ++counters_.evicted;
  drop(entry);
  return true;
}

// Out of the books; the policy has let it go already.
void TensorStore::drop(Entry& entry) {
  [[maybe_unused]] const Status status = cache_of(entry).destroy_sequence(entry.sequence);
  by_id_.erase(entry.id);
  entries_.erase(PrefixKey(entry.key));  // a copy: the entry dies with its place
}

Status TensorStore::copy_layers(Entry& entry, Cache& from, Cache& to, const SequenceStart& start) {
  const std::uint64_t begin = start.reused_tokens, count = entry.tokens.size() - begin;
  if (count == 0) return {};
  std::array<BufferId, 2> scratch{BufferId::none, BufferId::none};
  const auto copy = [&]() -> Status {
    for (std::uint32_t layer = 0; layer < entry.layers.size(); ++layer) {
      std::array<TensorView, 2> views;
      for (const Side side : {Side::k, Side::v}) {
        const LayerSpec& facts = to.spec().layers[layer];
        const std::uint64_t bytes =
            count * facts.kv_heads * (side == Side::k ? facts.head_dim_k : facts.head_dim_v) * sizeof(float);
        const auto s = static_cast<std::size_t>(side);
        executor_.destroy_buffer(std::exchange(scratch[s], BufferId::none));
        KVANT_ASSIGN(scratch[s], executor_.create_buffer(bytes, BufferKind::device));
        views[s].buffer = {scratch[s], 0, bytes};
        KVANT_TRY(from.read(entry.sequence, layer, side, begin, count, views[s]));
      }
      KVANT_TRY(to.write(start.sequence, layer, begin, count, views[0], views[1]));
    }
    return {};
  };
  const Status status = copy();
  for (const BufferId buffer : scratch) executor_.destroy_buffer(buffer);
  return status;
}

// On the device: dequantized from one cache, quantized into the other. The policy that held the entry has let it go already.
Status TensorStore::move(Entry& entry, bool cold) {
  Cache& from = cache_of(entry);
  Cache& to = cold ? *spec_.cold : *spec_.hot;
  KVANT_ASSIGN(const SequenceStart start, open_with_room(cold, entry));
  Status status = copy_layers(entry, from, to, start);
  if (status.ok()) status = to.identify(start.sequence, entry.tokens);
  if (!status.ok()) {
    [[maybe_unused]] const Status gone = to.destroy_sequence(start.sequence);
    return status;
  }
  KVANT_TRY(from.destroy_sequence(entry.sequence));
  entry.sequence = start.sequence;
  entry.cold = cold;
  entry.uses_since_move = 0;
  EntryFacts facts;
  facts.fingerprint = entry.id;
  policy_of(cold).insert(EntryId{entry.id}, facts, tick());
  return {};
}

Result<TensorStore::Entry*> TensorStore::make(std::span<const std::int32_t> tokens, std::string_view salt) {
  auto entry = std::make_unique<Entry>();
  entry->tokens.assign(tokens.begin(), tokens.end());
  entry->salt = salt;
  entry->layers.resize(spec_.hot->spec().layers.size(), false);
  entry->missing = static_cast<std::uint32_t>(entry->layers.size());
  Entry* const made = entry.get();
  const PrefixKey key = made->key = entry_key(tokens, salt);
  KVANT_ASSIGN(const SequenceStart start, open_with_room(false, *entry));
  entry->sequence = start.sequence;
  entry->shared = start.reused_tokens;
  entry->id = next_id_++;
  EntryFacts facts;
  facts.fingerprint = entry->id;
  Rollback undo([&, id = entry->id] {
    [[maybe_unused]] const Status status = spec_.hot->destroy_sequence(start.sequence);
    by_id_.erase(id);
    entries_.erase(key);
  });
  by_id_.emplace(made->id, made);
  entries_[key] = std::move(entry);
  hot_policy_->insert(EntryId{made->id}, facts, tick());
  undo.complete();
  return made;
}

void TensorStore::use(Entry& entry) {
  policy_of(entry.cold).touch(EntryId{entry.id}, tick());
  ++entry.uses_since_move;
}

Status TensorStore::put(std::span<const StorePut> rows, std::string_view salt, std::uint32_t layer) {
  if (layer >= spec_.hot->spec().layers.size())
    return {StatusCode::invalid_argument, "layer (" + std::to_string(layer) + ") is not below the cache's " +
                                              std::to_string(spec_.hot->spec().layers.size()) + " layers"};
  for (const StorePut& row : rows)
    if (row.tokens.empty()) return {StatusCode::invalid_argument, "the prefix has no tokens"};
  std::vector<Begun> begun;
  begun.reserve(rows.size());
  const Status status = within_memory([&]() -> Status {
    for (const StorePut& row : rows) KVANT_TRY(put_row(row, salt, layer, begun));
    // Room for the last rows may have been that of the first ones.
    for (const StorePut& row : rows) {
      const Entry* const entry = find(row.tokens, salt);
      if (entry == nullptr || !entry->layers[layer])
        return {StatusCode::resource_exhausted, "the " + std::to_string(rows.size()) + " prefixes of the batch do not fit at once"};
    }
    return {};
  });
  if (!status.ok()) {
    for (auto row = begun.rbegin(); row != begun.rend(); ++row) take_back(*row, salt, layer);
    return status;
  }
  // Named last, when none is taken back any more. What cannot be named for want of memory is not shared.
  for (const Begun& row : begun)
    (void)within_memory([&]() -> Status {
      const Entry* const entry = find(row.row->tokens, salt);
      if (entry == nullptr || entry->missing != 0) return {};
      return cache_of(*entry).identify(entry->sequence, entry->tokens);
    });
  return {};
}

Status TensorStore::put_row(const StorePut& row, std::string_view salt, std::uint32_t layer, std::vector<Begun>& begun) {
  Entry* entry = find(row.tokens, salt);
  const bool made = entry == nullptr;
  if (made) {
    KVANT_ASSIGN(entry, make(row.tokens, salt));
  }
  if (entry->layers[layer]) return {};
  begun.push_back({&row, made, false});
  const LayerSpec& facts = spec_.hot->spec().layers[layer];
  const auto rest = [&](TensorView view, std::uint32_t dim) {
    const std::uint64_t head_stride = view.head_stride != 0 ? view.head_stride : dim;
    const std::uint64_t token_stride = view.token_stride != 0 ? view.token_stride : head_stride * facts.kv_heads;
    const std::uint64_t bytes = entry->shared * token_stride * (view.type == IoType::f32 ? 4 : 2);
    if (view.host != nullptr) {
      view.host += bytes;
    } else {
      view.buffer.offset += bytes;
      view.buffer.size -= bytes;
    }
    return view;
  };
  if (const std::uint64_t count = row.tokens.size() - entry->shared; count != 0)
    KVANT_TRY(cache_of(*entry).write(entry->sequence, layer, entry->shared, count, rest(row.k, facts.head_dim_k),
                                     rest(row.v, facts.head_dim_v)));
  entry->layers[layer] = true;
  begun.back().written = true;
  ++counters_.puts;
  --entry->missing;
  return {};
}

// What the prefix cache has learnt of the row stays there: its content is right.
void TensorStore::take_back(const Begun& begun, std::string_view salt, std::uint32_t layer) {
  if (begun.written) --counters_.puts;
  Entry* const entry = find(begun.row->tokens, salt);
  if (entry == nullptr) return;  // it left for another row
  if (begun.made) {
    policy_of(entry->cold).erase(EntryId{entry->id});
    drop(*entry);
  } else if (entry->layers[layer]) {
    entry->layers[layer] = false;
    ++entry->missing;
  }
}

Result<bool> TensorStore::get(std::span<const std::int32_t> tokens, std::string_view salt, std::uint32_t layer,
                              const TensorView& k, const TensorView& v) {
  if (layer >= spec_.hot->spec().layers.size())
    return Status(StatusCode::invalid_argument, "layer (" + std::to_string(layer) + ") is not below the cache's " +
                                                    std::to_string(spec_.hot->spec().layers.size()) + " layers");
  ++counters_.lookups;
  Entry* const entry = find(tokens, salt);
  if (entry == nullptr || !entry->layers[layer]) return false;
  use(*entry);
  // A use is one pass over the layers.
  const std::uint64_t passes = entry->uses_since_move / entry->layers.size();
  if (entry->cold && entry->missing == 0 && passes >= spec_.promote_uses) {
    cold_policy_->erase(EntryId{entry->id});
    if (move(*entry, false).ok()) {
      ++counters_.promoted;
    } else {  // it stays where it is
      EntryFacts facts;
      facts.fingerprint = entry->id;
      cold_policy_->insert(EntryId{entry->id}, facts, tick());
      entry->uses_since_move = 0;
    }
  }
  Cache& cache = cache_of(*entry);
  if (k.present()) KVANT_TRY(cache.read(entry->sequence, layer, Side::k, 0, tokens.size(), k));
  if (v.present()) KVANT_TRY(cache.read(entry->sequence, layer, Side::v, 0, tokens.size(), v));
  ++counters_.hits;
  return true;
}

std::uint32_t TensorStore::layers_held(std::span<const std::int32_t> tokens, std::string_view salt) const {
  const Entry* const entry = find(tokens, salt);
  return entry == nullptr ? 0 : static_cast<std::uint32_t>(entry->layers.size()) - entry->missing;
}

bool TensorStore::erase(std::span<const std::int32_t> tokens, std::string_view salt) {
  return erase(entry_key(tokens, salt), tokens, salt);
}

void TensorStore::erase(std::span<const std::span<const std::int32_t>> batch, std::string_view salt) {
  std::vector<PrefixKey> keys;  // all of them first: from then on nothing can fail
  for (const auto& tokens : batch) keys.push_back(entry_key(tokens, salt));
  for (std::size_t i = 0; i < batch.size(); ++i) erase(keys[i], batch[i], salt);
}

bool TensorStore::erase(const PrefixKey& key, std::span<const std::int32_t> tokens, std::string_view salt) {
  Entry* const entry = find(key, tokens, salt);
  if (entry == nullptr) return false;
  policy_of(entry->cold).erase(EntryId{entry->id});
  drop(*entry);
  return true;
}

void TensorStore::clear() {
  while (!by_id_.empty()) {
    Entry& entry = *by_id_.begin()->second;
    policy_of(entry.cold).erase(EntryId{entry.id});
    drop(entry);
  }
}

StoreCounters TensorStore::counters() const {
  StoreCounters counters = counters_;
  counters.prefixes = by_id_.size();
  for (const auto& [id, entry] : by_id_) counters.cold_prefixes += entry->cold ? 1 : 0;
  return counters;
}

}  // namespace kvant
