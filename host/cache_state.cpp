// CacheImpl: saving and loading. What is saved are pages, each once, and sequences as lists of them; a prefix of the prefix cache is
// saved as a sequence that nobody holds. Loading takes pages, fills them, and only when all has been read makes sequences of them.
#include <algorithm>
#include <cassert>
#include <map>
#include <set>
#include <string>

#include "cache_impl.hpp"
#include "cache_key.hpp"
#include "checked.hpp"
#include "rollback.hpp"
#include "state_plan.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kMostTokens = 0x7FFFFFFF;
constexpr std::uint64_t kUploadBytes = 32u << 20;  // blobs gathered before they go up

Status damaged(const std::string& what) { return {StatusCode::data_loss, "the saved state is wrong: " + what}; }

}  // namespace

StatePlan CacheImpl::plan_state(std::span<const Sequence* const> sequences, bool prefixes) const {
  StatePlan plan(geometry_.groups.size());
  const std::uint32_t page_tokens = geometry_.page_tokens;
  for (const Sequence* sequence : sequences) {
    SavedSequence saved;
    saved.id = static_cast<std::uint64_t>(sequence->id);
    saved.length = sequence->length;
    saved.tokens = sequence->tokens;
    if (sequence->node != nullptr) saved.salt = sequence->node->salt;
    saved.publish = sequence->publish;
    saved.pruned = sequence->pruned;
    saved.least_length = sequence->least_length;
    for (const PageTable& table : sequence->tables) saved.tables.emplace_back(table.pages().begin(), table.pages().end());
    plan.add(std::move(saved), page_tokens);
  }
  if (!prefixes || prefixes_ == nullptr) return plan;
  for (const PrefixNode* leaf : prefixes_->nodes()) {
    if (leaf->children != 0) continue;
    SavedSequence saved;
    saved.length = std::uint64_t{leaf->depth} * page_tokens;
    saved.salt = leaf->salt;
    saved.publish = {leaf->facts.priority, leaf->facts.ttl_ms};
    std::vector<const PrefixNode*> chain;
    for (const PrefixNode* node = leaf; node->parent != nullptr; node = node->parent) chain.push_back(node);
    std::reverse(chain.begin(), chain.end());
    saved.tables.resize(pools_.size());
    for (const PrefixNode* node : chain) {
      saved.tokens.insert(saved.tokens.end(), node->tokens.begin(), node->tokens.end());
      for (std::size_t g = 0; g < pools_.size(); ++g) saved.tables[g].push_back(node->pages[g]);
    }
    plan.add(std::move(saved), page_tokens);
  }
  return plan;
}

Status CacheImpl::save_state(const StateSelection& selection, const StateSink& sink) {
  if (spec_.external_pages)
    return {StatusCode::failed_precondition, "the engine keeps the pages of this cache: it saves them itself"};
  std::vector<const Sequence*> chosen;
  std::set<SequenceId> seen;
  if (selection.all_sequences) {
    for (const auto& [id, sequence] : sequences_) chosen.push_back(&sequence);
  } else {
    for (const SequenceId id : selection.sequences) {
      KVANT_ASSIGN(const Sequence* const sequence, static_cast<const CacheImpl*>(this)->find(id));
      if (seen.insert(id).second) chosen.push_back(sequence);
    }
  }
  const StatePlan plan = plan_state(chosen, selection.prefixes);

  std::uint64_t bytes = 0, tokens = 0;
  StateWriter writer([&](std::span<const std::byte> piece) {
    bytes += piece.size();
    return sink(piece);
  });
  KVANT_TRY(writer.begin());
  RecordFields fields;
  KVANT_ASSIGN(const std::vector<float> means, means_.download());
  write_state_header(spec_, cache_content_key(spec_), means, fields);
  KVANT_TRY(writer.record(StateRecord::header, fields.data()));
  std::vector<std::vector<std::byte>> blobs;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const std::span<const FilledPage> pages = plan.pages(g);
    const std::size_t most =
        std::max<std::uint64_t>(1, kUploadBytes / std::max<std::uint64_t>(1, token_blob_bytes(g) * geometry_.page_tokens));
    for (std::size_t first = 0; first < pages.size(); first += most) {
      const std::span<const FilledPage> some = pages.subspan(first, std::min(most, pages.size() - first));
      KVANT_TRY(download_pages(g, some, blobs));
      for (std::size_t i = 0; i < some.size(); ++i) {
        fields.clear();
        fields.u32(g);
        fields.u32(some[i].tokens);
        fields.bytes(blobs[i]);
        KVANT_TRY(writer.record(StateRecord::page, fields.data()));
      }
    }
  }
  for (const SavedSequence& sequence : plan.sequences()) {
    fields.clear();
    write_state_sequence(sequence, fields);
    KVANT_TRY(writer.record(StateRecord::sequence, fields.data()));
    tokens += sequence.length;
  }
  KVANT_TRY(writer.end());
  event(EventKind::save, bytes, tokens, chosen.size() == 1 && !selection.prefixes ? chosen.front()->id : SequenceId::none);
  return {};
}

// Pages of a state that is being loaded: taken, filled, and given back unless everything came well.
struct CacheImpl::StateLoad {
  CacheImpl& cache;
  std::vector<std::vector<FilledPage>> pages;        // per group, by number in the state
  std::vector<std::vector<std::byte>> blobs;         // not up yet, of group `group`, the last ones of pages[group]
  std::uint32_t group = 0;
  std::uint64_t blob_bytes = 0;
  std::vector<SavedSequence> sequences;
  std::map<std::pair<std::size_t, std::int32_t>, PrefixKey> named;  // (group, page): what its known tokens are

  explicit StateLoad(CacheImpl& owner) : cache(owner), pages(owner.pools_.size()) {}
  ~StateLoad() {
    for (std::size_t g = 0; g < pages.size(); ++g)
      for (const FilledPage& page : pages[g]) cache.pools_[g].release(page.page);
  }
  StateLoad(const StateLoad&) = delete;
  StateLoad& operator=(const StateLoad&) = delete;

  Status upload() {
    if (blobs.empty()) return {};
    const std::span<const FilledPage> fresh = std::span(pages[group]).last(blobs.size());
    std::vector<std::span<const std::byte>> views(blobs.begin(), blobs.end());
    KVANT_TRY(cache.fill_pages(group, fresh, views));
    blobs.clear();
    blob_bytes = 0;
    return {};
  }

  Status page(FieldReader fields) {
    const std::uint32_t of_group = fields.u32(), tokens = fields.u32();
    if (!fields.ok() || of_group >= pages.size()) return damaged("a page names layer group " + std::to_string(of_group));
    if (tokens == 0 || tokens > cache.geometry_.page_tokens) return damaged("a page holds " + std::to_string(tokens) + " tokens");
    const std::uint64_t bytes = cache.token_blob_bytes(of_group) * tokens;
    if (fields.left() != bytes)
      return damaged("a page of " + std::to_string(tokens) + " tokens has " + std::to_string(fields.left()) + " bytes; expected " +
                     std::to_string(bytes));
    if (of_group != group) {
      KVANT_TRY(upload());
      group = of_group;
    }
    KVANT_TRY(cache.make_room(group, 1));
    const std::span<const std::byte> blob = fields.bytes(bytes);
    blobs.emplace_back(blob.begin(), blob.end());
    if (pages[group].size() == pages[group].capacity()) pages[group].reserve(pages[group].size() * 2 + 16);
    const std::int32_t neighbour = pages[group].empty() ? kNoPage : static_cast<std::int32_t>(pages[group].back().page);
    pages[group].push_back({static_cast<std::uint32_t>(cache.pools_[group].take(neighbour)), tokens});
    blob_bytes += bytes;
    return blob_bytes >= kUploadBytes ? upload() : Status();
  }

  // A page stands for one beginning of tokens: the prefix cache holds it once.
  Status check_named(const SavedSequence& saved) {
    if (cache.prefixes_ == nullptr) return {};
    const std::uint32_t page_tokens = cache.geometry_.page_tokens;
    const std::uint64_t known = std::min<std::uint64_t>(saved.tokens.size(), saved.length) / page_tokens;
    PrefixKey key = root_key(cache.prefixes_->content(), saved.salt);
    for (std::uint64_t i = 0; i < known; ++i) {
      key = page_key(key, std::span(saved.tokens).subspan(i * page_tokens, page_tokens));
      for (std::size_t g = 0; g < pages.size(); ++g)
        if (saved.tables[g][i] != kNoPage && named.try_emplace({g, saved.tables[g][i]}, key).first->second != key)
          return damaged("a page of layer group " + std::to_string(g) + " is named for different tokens");
    }
    return {};
  }

  // A sequence's page numbers must be of pages that hold enough.
  Status sequence(FieldReader fields) {
    SavedSequence saved;
    if (!read_state_sequence(fields, pages.size(), saved)) return damaged("a sequence's fields are not whole");
    const std::uint64_t page_tokens = cache.geometry_.page_tokens;
    if (saved.length > kMostTokens) return damaged("a sequence has " + std::to_string(saved.length) + " tokens");
    if (saved.publish.priority > 100) return damaged("a sequence has priority " + std::to_string(saved.publish.priority));
    for (std::size_t g = 0; g < pages.size(); ++g) {
      std::vector<std::int32_t>& table = saved.tables[g];
      if (table.size() != divide_up(saved.length, page_tokens))
        return damaged("a sequence of " + std::to_string(saved.length) + " tokens has " + std::to_string(table.size()) + " pages");
      for (std::size_t i = 0; i < table.size(); ++i) {
        if (table[i] == kNoPage) continue;
        const std::uint64_t needed = std::min(page_tokens, saved.length - i * page_tokens);
        if (table[i] < 0 || static_cast<std::size_t>(table[i]) >= pages[g].size() ||
            pages[g][static_cast<std::size_t>(table[i])].tokens < needed)
          return damaged("a sequence names page " + std::to_string(table[i]) + " of layer group " + std::to_string(g));
        table[i] = static_cast<std::int32_t>(pages[g][static_cast<std::size_t>(table[i])].page);
      }
      // What a continuation sees must be there.
      const PageSpan past = pages_past_window(cache.geometry_.groups[g], saved.length, cache.geometry_.page_tokens);
      for (std::uint32_t i = 0; i < table.size(); ++i)
        if (table[i] == kNoPage && (i < past.begin || i >= past.end))
          return damaged("page " + std::to_string(i) + " of a sequence is missing");
    }
    KVANT_TRY(check_named(saved));
    sequences.push_back(std::move(saved));
    return {};
  }
};

Sequence CacheImpl::revive(SavedSequence&& saved) {
  Sequence sequence;
  Rollback undo([&] { shrink_sequence(sequence, pools_, 0, geometry_.page_tokens); });
  sequence.tables.resize(pools_.size());
  sequence.length = saved.length;
  sequence.publish = saved.publish;
  sequence.pruned = saved.pruned;
  sequence.least_length = std::min(saved.least_length, saved.length);
  for (std::size_t g = 0; g < pools_.size(); ++g) {
    PageTable& table = sequence.tables[g];
    table.reserve(static_cast<std::uint32_t>(saved.tables[g].size()));
    for (const std::int32_t page : saved.tables[g]) {
      if (page != kNoPage) pools_[g].add_reference(static_cast<std::uint32_t>(page));
      table.push(page);
    }
  }
  if (prefixes_ != nullptr) {
    sequence.tokens = std::move(saved.tokens);
    sequence.node = prefixes_->root(saved.salt);
    prefixes_->pin(sequence.node);
  }
  undo.complete();
  return sequence;
}

Result<std::vector<LoadedSequence>> CacheImpl::load_state(const StateSource& source) {
  if (spec_.external_pages)
    return Status(StatusCode::failed_precondition, "the engine keeps the pages of this cache: it loads them itself");
  std::uint64_t bytes = 0, tokens = 0;
  StateReader reader([&](std::span<std::byte> out) -> Result<std::size_t> {
    KVANT_ASSIGN(const std::size_t got, source(out));
    bytes += got;
    return got;
  });
  KVANT_TRY(reader.begin());
  KVANT_ASSIGN(const StateRecord first, reader.next());
  if (first != StateRecord::header) return damaged("its first record is not the header");
  std::vector<float> means(means_.measured_floats());
  KVANT_TRY(check_state_header(spec_, cache_content_key(spec_), FieldReader(reader.payload()), means));
  KVANT_TRY(means_.check(means));
  StateLoad load(*this);
  while (true) {
    KVANT_ASSIGN(const StateRecord type, reader.next());
    if (type == StateRecord::end) break;
    if (type == StateRecord::page) {
      KVANT_TRY(load.page(FieldReader(reader.payload())));
    } else if (type == StateRecord::sequence) {
      KVANT_TRY(load.sequence(FieldReader(reader.payload())));
    } else {
      return damaged("a record has type " + std::to_string(static_cast<std::uint32_t>(type)));
    }
  }
  KVANT_TRY(load.upload());

  // First all that may fail, then all that shows.
  std::vector<LoadedSequence> loaded;
  std::vector<Sequence> revived;
  loaded.reserve(load.sequences.size());
  revived.reserve(load.sequences.size());
  const auto let_go = [&](Sequence& sequence) {
    if (sequence.node != nullptr) prefixes_->unpin(sequence.node, now_ms());
    shrink_sequence(sequence, pools_, 0, geometry_.page_tokens);
  };
  Rollback undo([&] {
    for (const LoadedSequence& entry : loaded) sequences_.erase(static_cast<std::uint64_t>(entry.sequence));
    for (Sequence& sequence : revived) let_go(sequence);
  });
  for (SavedSequence& saved : load.sequences) {
    revived.push_back(revive(std::move(saved)));
    if (saved.id == 0) continue;
    const std::uint64_t id = next_sequence_ + loaded.size();
    sequences_.try_emplace(id);
    loaded.push_back({SequenceId{saved.id}, SequenceId{id}});
  }
  KVANT_TRY(means_.adopt(means));
  undo.complete();
  for (std::size_t i = 0; i < revived.size(); ++i) {
    Sequence& sequence = revived[i];
    tokens += sequence.length;
    if (load.sequences[i].id != 0) sequence.id = SequenceId{next_sequence_};
    publish(sequence);
    if (load.sequences[i].id == 0) {  // of the prefix cache: what was published stays, nobody holds it
      let_go(sequence);
      continue;
    }
    event(EventKind::sequence_created, sequence.length, sequence.length, sequence.id);
    sequences_.at(next_sequence_++) = std::move(sequence);
  }
  event(EventKind::load, bytes, tokens,
        load.sequences.size() == 1 && loaded.size() == 1 ? loaded.front().sequence : SequenceId::none);
  return loaded;
}

}  // namespace kvant
