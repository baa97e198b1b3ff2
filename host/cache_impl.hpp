// CacheImpl: the members behind Cache. Its functions are spread over cache.cpp (life, sequences), cache_plan.cpp and
// cache_paged.cpp (planning), cache_run.cpp and cache_attend.cpp (device work of a step), cache_io.cpp (read),
// cache_import.cpp, cache_write.cpp, cache_gather.cpp, cache_shift.cpp, cache_mass.cpp and cache_prune.cpp (attention mass), cache_cool.cpp (cooled pages), cache_copy.cpp, cache_memory.cpp (limits),
// cache_convert.cpp, cache_protect.cpp (protected tokens), cache_prefix.cpp and cache_tiers.cpp (prefix cache), cache_pages.cpp and cache_state.cpp (saving and loading),
// cache_stats.cpp and cache_debug.cpp.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache.hpp"
#include "cache_debug.hpp"
#include "cache_journal.hpp"
#include "cool_choice.hpp"
#include "device_table.hpp"
#include "geometry.hpp"
#include "layer_means.hpp"
#include "params/attend.h"
#include "params/pages.h"
#include "page_pool.hpp"
#include "memory_planner.hpp"
#include "planner.hpp"
#include "sequence.hpp"
#include "slab_store.hpp"
#include "state_plan.hpp"
#include "step.hpp"
#include "tensor_io.hpp"
#include "tier_blob.hpp"
#include "wide_pages.hpp"

namespace kvant {

// Where a layer's masses lie in MASS, in words: from the slab's beginning, and from page to page.
struct MassPlace {
  std::uint32_t offset = 0, page_stride = 0;
};

class CacheImpl final : public Cache, public CacheDebug {
 public:
  CacheImpl(Executor& executor, CacheSpec spec, const Log& log, Geometry geometry);
  Status open_prefixes();  // after construction. Errors: those of the eviction policy
  ~CacheImpl() override;

  // Cache
  const CacheSpec& spec() const override { return spec_; }
  MemoryUse memory_use() const override;
  CacheStats stats() const override;
  EventBatch events(std::uint64_t since, std::size_t most) const override;
  void sample_errors(std::uint64_t every_tokens) override;
  Result<SequenceId> create_sequence() override;
  Result<SequenceStart> create_sequence(const SequenceSpec& spec) override;
  Result<std::uint64_t> find_prefix(const SequenceSpec& spec) override;
  std::vector<SequenceId> sequences() const override;
  Status destroy_sequence(SequenceId sequence) override;
  Result<SequenceId> fork_sequence(SequenceId parent, std::uint64_t tokens) override;
  Status truncate_sequence(SequenceId sequence, std::uint64_t tokens) override;
  Result<std::uint64_t> sequence_length(SequenceId sequence) const override;
  Result<std::vector<float>> means(std::uint32_t layer, Side side) override;
  Status set_policy(const PolicySpec& policy) override;
  Result<std::uint64_t> clear_prefixes() override;
  Result<PrefixCounters> prefix_counters() const override;
  Status set_tiers(std::vector<std::unique_ptr<Tier>> tiers, const TierOptions& options) override;
  Status store_prefixes() override;
  Status prefetch_prefix(const SequenceSpec& spec) override;
  Status drain_tiers() override;
  Status clear_tiers(std::optional<std::size_t> tier) override;
  Result<TierStackStats> tier_stats() const override;
  Result<std::unique_ptr<Step>> plan(std::span<const StepEntry> entries) override;
  Result<std::unique_ptr<Step>> plan_paged(const PagedBatch& batch) override;
  Status run(Step& step, std::uint32_t layer, const RunArgs& args) override;
  Status import_layer(Step& step, std::uint32_t layer, std::span<const std::byte> k,
                      std::span<const std::byte> v) override;
  Status commit(std::unique_ptr<Step>&& step) override;
  void abort(std::unique_ptr<Step> step) override;
  Result<MemoryPlan> plan_limit(std::uint64_t limit_bytes, const MemoryOptions& options) const override;
  Result<std::string> plan_limit_text(std::uint64_t limit_bytes, const MemoryOptions& options) const override;
  Status set_memory_limit(std::uint64_t limit_bytes, const MemoryOptions& options) override;
  Status set_sensitivity(std::uint32_t layer, Side side, double weight) override;
  Status quantize_all(FormatId format_k, FormatId format_v) override;
  Status keep_tokens(SequenceId sequence, std::span<const std::uint64_t> kept) override;
  Status attention_mass(SequenceId sequence, std::optional<std::uint32_t> layer, std::optional<std::uint32_t> kv_head,
                        std::uint64_t begin, std::span<float> out) override;
  Status clear_mass(SequenceId sequence) override;
  Result<std::vector<std::uint64_t>> prune_sequence(SequenceId sequence, const PruneSpec& spec) override;
  Result<CoolReport> cool(const CoolSpec& spec) override;
  Status shift_keys(SequenceId sequence, std::uint64_t begin, std::uint64_t count, const Rotation& rotation,
                    std::int64_t positions) override;
  Status extend_sequence(SequenceId sequence, std::uint64_t tokens) override;
  Status write(SequenceId sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count, const TensorView& k,
               const TensorView& v) override;
  Status identify(SequenceId sequence, std::span<const std::int32_t> tokens) override;
  Status read(SequenceId sequence, std::uint32_t layer, Side side, std::uint64_t begin, std::uint64_t count,
              const TensorView& out) override;
  Status read_canonical(SequenceId sequence, std::uint32_t layer, Side side, std::uint64_t begin, std::uint64_t count,
                        std::span<std::byte> out) override;
  Status save_state(const StateSelection& selection, const StateSink& sink) override;
  Result<std::vector<LoadedSequence>> load_state(const StateSource& source) override;
  Status read_slots(std::uint32_t layer, Side side, std::span<const std::int64_t> slots,
                    const TensorView& out) override;
  Status copy_pages(std::span<const std::int32_t> source, std::span<const std::int32_t> destination) override;
  Status convert(std::uint32_t layer, Side side, FormatId format) override;

  // CacheDebug
  const Geometry& geometry() const override { return geometry_; }
  void set_poison(std::optional<std::uint32_t> word) override { poison_ = word; }
  Status poison_free_pages(std::uint32_t word) override;
  void shuffle_free_pages(std::uint64_t seed, bool across_slabs) override;
  Result<std::vector<std::int32_t>> sequence_pages(SequenceId sequence, std::uint32_t layer) const override;
  void set_clock(std::function<std::uint64_t()> now_ms) override { clock_ = std::move(now_ms); }
  void set_seconds_per_token(double seconds) override { seconds_per_token_ = seconds; }
  const PrefixIndex* prefix_index() const override { return prefixes_.get(); }
  std::uint32_t page_references(std::uint32_t layer, std::uint32_t page) const override;
  BufferRange page_range(std::uint32_t layer, Side side, std::uint32_t page) const override;
  void set_attend_override(std::function<AttendConfig(const AttendShape&, const AttendConfig&)> config) override {
    attend_override_ = std::move(config);
  }

  Status preallocate(std::uint64_t bytes);  // after construction
  Status create_means() { return means_.create(spec_); }  // after construction
  Status open_protection();  // after construction
  void end_step();  // aborts the open step; called by ~Step

 private:
  friend class Step;
  struct PagePair {
    std::uint32_t group, source, destination;
  };

  // cache.cpp
  Result<Sequence*> find(SequenceId id);
  Result<const Sequence*> find(SequenceId id) const;
  Status check_not_in_step(SequenceId id, const char* verb) const;
  Status check_layer(std::uint32_t layer) const;
  std::string under_limit(std::uint32_t group) const;
  Status no_pages(std::uint32_t group, std::uint64_t needed) const;
  std::uint64_t free_pages() const;  // of all groups
  std::uint64_t page_bytes(std::uint32_t group, std::uint32_t grade) const;  // of all its layers
  bool cooled(std::uint32_t group, std::int32_t page) const { return page >= static_cast<std::int32_t>(geometry_.groups[group].total_pages); }
  // Its values have been narrowed: cooled, or a copy of what was.
  bool recoded(std::uint32_t group, std::int32_t page) const { return page != kNoPage && pools_[group].recoded(static_cast<std::uint32_t>(page)); }
  // Of one page in all groups. Tiers get none such: their keys stand for what the layers' formats hold.
  bool any_recoded(std::span<const std::int32_t> pages) const {
    for (std::uint32_t g = 0; g < pages.size(); ++g)
      if (recoded(g, pages[g])) return true;
    return false;
  }

  // cache_copy.cpp
  void record_copy(const params::CopyParams& copy, const BufferRange& source, const BufferRange& destination,
                   const BufferRange& pairs);
  void record_convert(const params::ConvertParams& convert, const SideGeometry& from, FormatId to, const BufferRange& source,
                      const BufferRange& destination, const BufferRange& triples, bool barrier);
  Status device_copy_pages(std::span<const PagePair> pairs);

  // cache.cpp, cache_debug.cpp
  Status ensure_slabs(std::span<const SlabId> slabs);
  Status poison_copies(std::span<const SlabId> new_slabs);
  Status poison_pages(std::span<const SlabId> new_slabs, std::span<const TakenPage> pages);

  // cache_prefix.cpp
  struct SpilledPage {
    PrefixKey key;
    std::vector<std::int32_t> pages;  // per layer group
  };
  struct PrefixMatch {
    std::vector<PrefixNode*> chain;  // one a page
    std::uint64_t tokens = 0;        // usable: at most what is asked for, at most chain.size() pages
  };
  Status need_prefixes() const;
  Result<std::unique_ptr<EvictionPolicy>> make_policy(PolicySpec spec) const;
  PrefixMatch match_prefix(const SequenceSpec& spec);
  bool holds_window(const PrefixMatch& match, std::uint64_t tokens) const;
  void share_prefix(const PrefixMatch& match, Sequence& sequence);
  void measure_prompt();
  void learn_tokens(const StepSequence& entry);  // of a committed step
  void publish(Sequence& sequence);
  void publish_pages(Sequence& sequence);
  void publish_page(Sequence& sequence);
  void move_to_node(Sequence& sequence, PrefixNode* node);
  void forget_tokens(Sequence& sequence, std::uint64_t tokens);  // after it was cut to `tokens`
  void evicted(const PrefixNode& node, EvictionCause cause);
  void expire_prefixes();
  bool let_go(PrefixNode* victim, EvictionCause cause, std::vector<SpilledPage>& spilled);  // whether its pages are held
  void finish_spill(std::span<const SpilledPage> spilled);
  void evict_for(std::uint32_t group, std::uint64_t needed);
  void unpublish(Sequence& sequence, std::uint64_t tokens);
  bool can_write_pages(const Sequence& sequence, std::uint32_t group, std::uint32_t first, std::uint64_t wanted) const;
  Status make_room(std::uint32_t group, std::uint64_t needed);
  std::uint64_t now_ms() const { return clock_(); }

  // cache_tiers.cpp
  Status need_tiers() const;
  void spill(std::span<const SpilledPage> spilled);
  std::vector<PrefixKey> keys_behind(const SequenceSpec& spec, std::size_t pages) const;
  bool worth_loading(std::size_t entries);
  PrefixNode* place_loaded(PrefixNode* node, std::span<const std::int32_t> tokens, std::span<const std::int32_t> pages,
                           const PublishFacts& facts);
  void load_from_tiers(const SequenceSpec& spec, const PrefixMatch& match);
  Status upload_entries(std::span<const GroupBlobs> entries, std::span<const std::vector<std::int32_t>> pages);

  // cache_plan.cpp
  Status check_entries(std::span<const StepEntry> entries);
  Status check_mask(const StepEntry& entry, std::uint64_t kv_len) const;
  Status take_pages();
  Status ready_pages(std::span<const TakenPage> pages);
  Status prepare_pages();
  void release_taken();
  void build_tables(std::span<const StepEntry> entries);
  std::unique_ptr<Step> open_step();
  void reserve_commit();

  // cache_paged.cpp
  Status check_paged(const PagedBatch& batch) const;
  Status check_slots(std::span<const std::int64_t> slots) const;
  Status check_page(std::int64_t page) const;
  void build_paged_tables(const PagedBatch& batch);

  // cache_run.cpp
  struct LayerRun;  // one layer's bound tensors and what is asked of it
  Status check_run(const Step& step, std::uint32_t layer, const RunArgs& args, LayerRun& run) const;
  Status record_run(LayerRun& run);
  // Of one store's pages: the cache's own, or the copies.
  void record_append(const LayerRun& run, const GroupTables& tables, const Geometry& geometry, const SlabStore& slabs, bool barrier);
  void record_means(const LayerRun& run);
  Status bind_heads(LayerRun& run);

  // cache_protect.cpp
  void take_copies(std::span<const StepEntry> entries);
  Status prepare_copies();
  void release_copies();
  void build_wide_tables(std::span<const StepEntry> entries);
  void find_stale_copies();
  void commit_copies(const StepSequence& entry, std::uint32_t index);
  void drop_copies(Sequence& sequence, std::uint64_t first_token);
  std::span<const TakenPage> taken_copies(std::uint32_t entry, std::uint32_t group) const;
  bool drop_idle_copies(std::uint32_t group);
  void drop_prefix_copies();
  void drop_all_copies();
  void convert_copies(std::uint32_t layer);
  void limit_copies(std::uint64_t limit_bytes);
  bool give_up_copies();
  std::uint64_t copies_share(std::uint64_t limit_bytes) const;  // of a memory limit
  const GroupTables& tables_of(const LayerRun& run) const;

  // cache_attend.cpp
  struct QueryClass {
    std::uint32_t least, most;
  };
  Status prepare_attention(LayerRun& run);
  AttendVariant& find_variant(std::uint32_t group, bool wide, const AttendRequest& request);
  AttendConfig attend_config(const AttendShape& shape) const;
  Result<std::size_t> partial_variant(const LayerRun& run, AttendRequest request, std::uint64_t row_bytes);
  std::optional<AttendConfig> shared_config(const LayerRun& run, AttendShape shape, const AttendRequest& request);
  void record_attention(const LayerRun& run);

  // cache_io.cpp
  Status read_by_slots(std::uint32_t layer, Side side, std::span<const std::int32_t> slots, const TensorView& out);
  Status check_readable(const Sequence& sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count) const;

  // cache_pages.cpp
  // A row of a page's head as canonical bytes of `format`: as it is stored, or, of a cooled page, encoded again.
  static void repack_row(const SideGeometry& stored, const std::byte* head, std::uint32_t token, const FormatInfo& format, std::span<std::byte> out);
  std::uint64_t token_blob_bytes(std::uint32_t group) const;
  Status download_pages(std::uint32_t group, std::span<const FilledPage> pages, std::vector<std::vector<std::byte>>& blobs);
  Status upload_pages(std::uint32_t group, std::span<const FilledPage> pages,
                      std::span<const std::span<const std::byte>> blobs);
  // upload_pages into pages just taken, whose memory may not be there yet.
  Status fill_pages(std::uint32_t group, std::span<const FilledPage> pages, std::span<const std::span<const std::byte>> blobs);
  template <typename F>
  Status for_page_parts(std::uint32_t group, std::span<const FilledPage> pages, F&& move);

  // cache_state.cpp
  struct StateLoad;
  StatePlan plan_state(std::span<const Sequence* const> sequences, bool prefixes) const;
  Sequence revive(SavedSequence&& saved);

  // cache_stats.cpp
  LayerStats layer_stats(std::uint32_t layer) const;
  void add_sequences(CacheStats& stats) const;
  void sample_error(std::uint32_t layer, const RunArgs& args);
  void event(EventKind kind, std::uint64_t a, std::uint64_t b = 0, SequenceId sequence = SequenceId::none) {
    journal_.event(kind, now_ms(), a, b, static_cast<std::uint64_t>(sequence));
  }

  // cache_write.cpp
  Status check_no_step(const char* verb) const;
  Status make_private(Sequence& sequence, std::uint32_t group, std::uint32_t first, std::uint32_t end, bool thaw = true);
  Status replace_pages(Sequence& sequence, std::uint32_t group, std::span<const std::uint32_t> indices);
  Status write_in_place(Sequence& sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count,
                        const TensorView& k, const TensorView& v);

  // cache_memory.cpp
  MemoryState memory_state() const;
  Status check_limit(std::uint32_t layer, Side side, FormatId format) const;
  void refresh_slab_limits();
  Status compact(std::uint32_t group, std::uint32_t slabs, std::uint32_t grade = 0);
  std::vector<PagePair> closing_moves(std::uint32_t group, std::uint32_t slabs, std::uint32_t grade) const;
  Status move_pages(std::uint32_t group, std::span<const PagePair> moves);
  std::uint64_t cold_bytes() const;  // of the slabs that cooled pages need
  LayerGeometry converted_layer(std::uint32_t layer, Side side, FormatId format) const;
  Status evict_pages(std::uint32_t group, std::uint32_t pages);

  // cache_gather.cpp
  struct GatherJob {
    std::uint32_t source_slab, destination_slab;
    std::vector<std::int32_t> map;  // as the kernel reads it
  };
  struct PagePlace {
    std::uint32_t slab = kNoSlab, local = 0;
  };
  struct TokenMove {
    Sequence* sequence = nullptr;
    std::span<const std::uint64_t> kept;
    std::uint32_t first_page = 0;                  // pages before it stay as they are
    std::vector<std::vector<std::int32_t>> pages;  // per layer group, from first_page on: kNoPage where the window has passed
    std::vector<std::pair<std::uint32_t, std::uint32_t>> taken;  // (group, page), each with a reference
    bool no_memory = false;                        // for the slabs of new pages
    bool spoiled = false;                          // the sequence's own pages have been written
  };
  Status check_windows_kept(const Sequence& sequence, std::uint64_t length, std::uint32_t first_moved) const;
  Status check_kept(const Sequence& sequence, std::span<const std::uint64_t> kept, bool may_miss) const;
  std::vector<GatherJob> gather_jobs(const TokenMove& move, std::uint32_t group, std::span<const PagePlace> to) const;
  void record_gather(std::uint32_t layer, Side side, std::uint32_t source_slab, const BufferRange& destination,
                     const BufferRange& map, std::size_t pages, bool barrier);
  template <typename F>
  Status for_gather_parts(std::span<const GatherJob> jobs, F&& record);
  Status gather_to_new_pages(TokenMove& move);
  Status gather_in_place(TokenMove& move);
  Status move_tokens(Sequence& sequence, std::span<const std::uint64_t> kept, std::uint64_t same);

  // cache_mass.cpp
  Status need_mass() const;
  BufferRange mass_range(std::uint32_t group, std::uint32_t page) const;
  MassPlace mass_place(std::uint32_t layer) const;
  void record_scores(const LayerRun& run, params::AttendParams attend);
  Status clear_mass_pages(std::uint32_t group, std::span<const std::uint32_t> pages);
  void record_clear_mass(std::uint32_t layer, std::uint32_t page, std::uint32_t offset, std::uint64_t count);
  Status clear_fresh_mass();  // of the open step
  Status download_mass(std::uint32_t group, std::span<const std::int32_t> pages, std::vector<std::uint64_t>& out);
  Status upload_mass(std::uint32_t group, std::span<const std::int32_t> pages, std::span<const std::uint64_t> masses);
  Status gather_mass(const TokenMove& move, std::uint32_t group, std::vector<std::uint64_t>& out);

  // cache_prune.cpp
  Result<std::vector<std::uint64_t>> choose_places(const Sequence& sequence, const PruneSpec& spec);

  // cache_cool.cpp
  Status set_cold_formats(const std::vector<FormatId>& formats);
  std::vector<std::int32_t> coolable_pages(std::uint32_t group, const CoolSpec& spec) const;
  std::vector<SideGeometry> cold_sides(std::uint32_t layer, const SideGeometry& v, const std::vector<FormatId>& formats) const;
  void add_page_steps(std::uint32_t group, std::uint32_t page, std::uint32_t grades, std::span<const double> masses, std::vector<CoolStep>& steps) const;
  bool reclaim_cold();
  Status add_cool_steps(std::uint32_t group, std::uint32_t grades, std::span<const std::int32_t> pages, std::vector<CoolStep>& steps);
  Status cool_group(std::uint32_t group, std::vector<CoolStep> moves);
  Status compact_cold(std::uint32_t group);

  // cache_shift.cpp
  Status check_shift(const Rotation& rotation) const;
  Status shift_layer(const Sequence& sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count,
                     const Rotation& rotation, std::span<const float> angles);
  Status record_rotation(std::uint32_t group, std::uint64_t tokens, std::uint32_t head_dim, const Rotation& rotation,
                         std::span<const float> angles);
  Status append_keys(std::uint32_t layer, std::span<const std::int32_t> slots, const BufferRange& rows);

  // cache_import.cpp
  Status check_import(const Step& step, std::uint32_t layer, std::span<const std::byte> k,
                      std::span<const std::byte> v) const;
  Status import_side(std::uint32_t layer, Side side, std::span<const std::byte> bytes);

  // cache_convert.cpp
  std::vector<std::uint32_t> page_fill(std::uint32_t group) const;

  Executor& executor_;
  CacheSpec spec_;
  Log log_;
  Geometry geometry_;
  CacheJournal journal_;
  std::vector<PagePool> pools_;  // per layer group
  SlabStore slabs_;
  std::unique_ptr<WidePages> wide_;  // null: no token is protected
  bool copies_refused_ = false;      // for want of memory, and the log has it
  LayerMeans means_;
  std::function<std::uint64_t()> clock_;
  std::unique_ptr<PrefixIndex> prefixes_;  // null: no prefix cache
  PrefixCounters prefix_counters_;
  std::unique_ptr<TierStack> tiers_;  // null: none
  TierOptions tier_options_;
  std::vector<std::array<double, 2>> sensitivity_;  // per layer, by Side
  std::vector<FormatId> cold_formats_;  // of grade 1 on, as last asked for
  std::uint64_t limit_bytes_ = 0;     // 0: none
  double seconds_per_token_ = 0;      // of computing prompts, smoothed; 0: not known
  std::chrono::steady_clock::time_point planned_at_;
  std::map<std::uint64_t, Sequence> sequences_;  // node-based: steps keep pointers
  std::uint64_t next_sequence_;

  StepState step_;
  Step* open_step_ = nullptr;
  std::unique_ptr<Step> spare_step_;  // the last one that was committed, for the next plan
  AttendPlanner planner_;
  std::vector<std::uint32_t> common_tokens_;  // scratch
  MetaTable meta_;
  ScratchBuffer partial_;
  ScratchBuffer lse_;               // of a run that counts mass and whose engine asks for none
  std::vector<double> mass_group_;  // per layer: query heads of a KV head, as last counted
  TensorIo io_;
  CommandList list_;
  std::vector<BufferId> retired_;  // outgrown while recorded commands may name them; destroyed at the next plan
  std::vector<SlabId> slab_scratch_;
  std::vector<std::int64_t> slot_scratch_;

  std::optional<std::uint32_t> poison_;
  std::function<AttendConfig(const AttendShape&, const AttendConfig&)> attend_override_;
};

}  // namespace kvant
