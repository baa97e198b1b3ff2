// Cache: the manager that plugin/ calls. Owns the pool's slabs on an executor, page tables and sequences; plans steps,
// runs them layer by layer, commits or aborts. Arguments have been validated by plugin/; what depends on the cache's
// own state (unknown sequence, no page left, layer out of range) is checked here. Thread rule: one thread per cache at
// a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache_spec.hpp"
#include "event_ring.hpp"
#include "log.hpp"
#include "state_stream.hpp"
#include "stats.hpp"
#include "status.hpp"
#include "tier_stack.hpp"

namespace kvant {

// How a sequence begins. `tokens` are the ids of what is going to be appended, as far as they are known: those that the cache
// holds already are there at once, the others need no ids in their steps.
struct SequenceSpec {
  std::span<const std::int32_t> tokens;
  std::string_view salt;            // sequences share with those of equal salt only
  std::uint64_t leave_tokens = 0;   // so many of the last tokens are not taken from the cache: 1 to get the last one's logits
  std::uint32_t priority = 0;       // 0..100 of the pages that it publishes
  std::uint64_t ttl_ms = 0;         // of the same; 0 = the policy's
  bool near_tiers_only = false;     // does not wait for tiers farther than the nearest one
  bool whole = false;               // never loses tokens to a memory limit: what it holds is read back, not attended to
};
struct SequenceStart {
  SequenceId sequence{};
  std::uint64_t reused_tokens = 0;  // its length
};

// Counts since creation. Rates have their denominators beside them.
struct PrefixCounters {
  std::uint64_t lookups = 0, lookup_tokens = 0;        // sequences created with tokens, and those tokens
  std::uint64_t hits = 0, hit_tokens = 0;              // of these: that found some, and how many tokens
  std::uint64_t published = 0, merged = 0;             // pages; merged: content that was there already
  std::uint64_t evicted_capacity = 0, evicted_expired = 0, evicted_cleared = 0, evicted_limit = 0;  // pages
  std::uint64_t pages = 0, unshared_pages = 0;         // now: in the index, and held by nothing else
  std::uint64_t spilled = 0, loaded = 0;               // pages handed to the tiers, and that came back
};

struct TierOptions {
  TierFormats formats;
  std::uint32_t store_after_uses = 0;          // a page goes to the tiers only if so many sequences began with it
  std::uint64_t min_tokens = 0;                // fewer tokens in a row are not worth a load
  bool compare_recompute = true;               // loads nothing that would be computed quicker, by measured rates
  std::uint64_t queue_bytes = 256ull << 20;    // what may wait to be stored
};

// One sequence in a step: `append` fresh tokens are written at its end, then `queries` queries attend to all of its
// tokens. Positions of the queries end at the sequence's last token (self-attention), or start at q_pos_begin if
// `explicit_positions`.
struct StepEntry {
  SequenceId sequence{};
  std::uint32_t append = 0;
  std::uint32_t queries = 0;
  bool explicit_positions = false;
  std::int32_t q_pos_begin = 0;
  // Tree or custom mask: `queries` rows of mask_row_words words, bit (kv - mask_kv_begin) = may attend. Null = causal
  // rule.
  const std::uint32_t* mask = nullptr;
  std::uint32_t mask_row_words = 0;
  std::uint64_t mask_kv_begin = 0;
  const std::int32_t* tokens = nullptr;  // ids of the `append` fresh tokens, or null: not known, or told at creation
};

// The engine's own page tables, as in FlashInfer and vLLM. All layers of the cache must form one layer group.
struct PagedBatch {
  std::span<const std::int64_t> slot_mapping;      // one per fresh token; page * page_tokens + offset, negative = skip
  std::span<const std::int32_t> qo_indptr;         // batch + 1; empty = append only
  std::span<const std::int32_t> kv_indptr;         // batch + 1
  std::span<const std::int32_t> kv_indices;        // page ids; -1 = unmapped, its keys are masked out
  std::span<const std::int32_t> kv_last_page_len;  // batch; 1..page_tokens
  const std::uint32_t* mask = nullptr;             // rows of all queries, mask_row_words words each, over all keys
  std::uint32_t mask_row_words = 0;
  bool explicit_positions = false;
  std::span<const std::int32_t> q_pos_begin;  // batch, if explicit_positions
};

// What one layer's run may ask for. Zeros are the plain causal attention without bias.
struct RunArgs {
  TensorView k, v;            // fresh tokens of all entries, in order; absent if none is appended
  TensorView q, out;          // absent if no query
  TensorView lse;             // optional f32 [query][q_head]: natural log-sum-exp of the row
  std::uint32_t q_heads = 0;  // multiple of kv_heads
  float scale = 0.0f;         // 0 = 1 / sqrt(head_dim_k)
  float soft_cap = 0.0f;      // 0 = off
  bool causal = true;
  bool mass = false;                    // adds what each key weighs in the queries' softmax to its token's mass
  bool invariant = false;               // sequences of few queries: each query to the bit as if it were alone in its step
  const float* sinks = nullptr;         // [q_heads] logits, or null
  const float* alibi_slopes = nullptr;  // [q_heads], or null
  void* command_buffer = nullptr;       // record into the engine's VkCommandBuffer instead of submitting
};

// What save_state saves.
struct StateSelection {
  std::span<const SequenceId> sequences;
  bool all_sequences = false;  // instead of `sequences`
  bool prefixes = false;       // what the prefix cache holds as well
};
struct LoadedSequence {
  SequenceId saved{}, sequence{};  // its id when it was saved, and now
};

struct CoolReport {
  std::uint64_t bytes_before = 0, bytes_after = 0;  // MemoryUse::pool_bytes
  std::uint64_t pages = 0;                          // that were encoded again
};

struct MemoryUse {
  std::uint64_t pool_bytes = 0;  // slabs allocated on the device
  std::uint64_t used_bytes = 0;  // pages held by sequences, shared pages once
  std::uint64_t used_pages = 0, total_pages = 0;
  std::uint64_t sequence_tokens = 0;
};

struct MemoryPlan;     // memory_planner.hpp
struct MemoryOptions;

class Step;  // a planned step of one cache; defined in step.hpp

class Cache {
 public:
  // Allocates nothing on the device but small tables; slabs come as pages are first used. Errors: resource_exhausted.
  static Result<std::unique_ptr<Cache>> create(Executor& executor, const CacheSpec& spec, const Log& log);
  virtual ~Cache() = default;

  virtual const CacheSpec& spec() const = 0;
  virtual MemoryUse memory_use() const = 0;

  // Everything that the cache counts; docs/monitoring.md.
  virtual CacheStats stats() const = 0;
  virtual EventBatch events(std::uint64_t since, std::size_t most) const = 0;
  // Compares one of so many appended tokens with what is stored of it, layer by layer, where K and V come as f32 in host memory;
  // 0: none. It costs a read of those rows.
  virtual void sample_errors(std::uint64_t every_tokens) = 0;

  virtual Result<SequenceId> create_sequence() = 0;
  // Shares the longest prefix that the cache holds. The sequence is the lease: what it shares stays until it is destroyed.
  virtual Result<SequenceStart> create_sequence(const SequenceSpec& spec) = 0;
  // How many tokens create_sequence would share now. No lease: a later call may find fewer.
  virtual Result<std::uint64_t> find_prefix(const SequenceSpec& spec) = 0;
  virtual std::vector<SequenceId> sequences() const = 0;
  virtual Status destroy_sequence(SequenceId sequence) = 0;
  // New sequence holding the first `tokens` tokens of `parent`: full pages are shared, the open page is copied.
  virtual Result<SequenceId> fork_sequence(SequenceId parent, std::uint64_t tokens) = 0;
  virtual Status truncate_sequence(SequenceId sequence, std::uint64_t tokens) = 0;
  virtual Result<std::uint64_t> sequence_length(SequenceId sequence) const = 0;

  // What was subtracted from a side's rows, [kv_head][head_dim], as they were appended; zeros where nothing was. Errors: invalid_argument.
  virtual Result<std::vector<float>> means(std::uint32_t layer, Side side) = 0;
  // The prefix cache. Errors of all three: failed_precondition without one.
  virtual Status set_policy(const PolicySpec& policy) = 0;
  virtual Result<std::uint64_t> clear_prefixes() = 0;  // gives the pages that left; those in use stay
  virtual Result<PrefixCounters> prefix_counters() const = 0;

  // Colder tiers of the prefix cache, nearest first; none: no tiers. Replaces those before, after what waits has been stored.
  virtual Status set_tiers(std::vector<std::unique_ptr<Tier>> tiers, const TierOptions& options) = 0;
  virtual Status store_prefixes() = 0;   // hands every page of the prefix cache to the tiers
  virtual Status prefetch_prefix(const SequenceSpec& spec) = 0;  // brings what the tiers hold of it near, in the background
  virtual Status drain_tiers() = 0;      // waits until the tiers have done all that was asked
  // Empties one tier, 0 the nearest, or all, after what waits has been stored. Errors: invalid_argument (no such tier).
  virtual Status clear_tiers(std::optional<std::size_t> tier) = 0;
  virtual Result<TierStackStats> tier_stats() const = 0;

  // Takes pages and builds the step's tables. At most one step is open per cache. On error nothing changed.
  virtual Result<std::unique_ptr<Step>> plan(std::span<const StepEntry> entries) = 0;
  virtual Result<std::unique_ptr<Step>> plan_paged(const PagedBatch& batch) = 0;
  // Appends and attends one layer. Host tensors: blocks until `out` is written. Buffer tensors: returns after submit.
  virtual Status run(Step& step, std::uint32_t layer, const RunArgs& args) = 0;
  // Instead of run for a layer's fresh tokens: their canonical bytes as read_canonical gives them, [token][head] rows of all
  // entries in order. The codes are stored as they are. Not for external pages.
  virtual Status import_layer(Step& step, std::uint32_t layer, std::span<const std::byte> k,
                              std::span<const std::byte> v) = 0;
  // Appended tokens become part of the sequences. On error `step` keeps its step, which stays open.
  virtual Status commit(std::unique_ptr<Step>&& step) = 0;
  virtual void abort(std::unique_ptr<Step> step) = 0;  // the cache is as it was before plan

  // Memory (memory_planner.hpp). What it would take to hold all slabs in `limit_bytes` (0: no limit), without doing it. Errors:
  // resource_exhausted if what sequences hold does not fit even so.
  virtual Result<MemoryPlan> plan_limit(std::uint64_t limit_bytes, const MemoryOptions& options) const = 0;
  virtual Result<std::string> plan_limit_text(std::uint64_t limit_bytes, const MemoryOptions& options) const = 0;
  // Does it, and allocates no slab beyond the limit from then on. While a layer is converted its old and new slabs stand side by side.
  virtual Status set_memory_limit(std::uint64_t limit_bytes, const MemoryOptions& options) = 0;
  virtual Status set_sensitivity(std::uint32_t layer, Side side, double weight) = 0;  // MemoryLayer::weight
  virtual Status quantize_all(FormatId format_k, FormatId format_v) = 0;              // convert of every layer

  // Keeps the tokens at these places, ascending, and closes the gaps, on the device, codes as they are: nothing is quantized again.
  // Keys keep the rotation they were stored with, so that later queries go on at the positions they would have had. Tokens from
  // the first gap on are not shared by the prefix cache. No step may be open. Errors: invalid_argument, failed_precondition (a token
  // has left its layer's window), resource_exhausted. If the pool has no room and the device fails midway, only the tokens before the
  // page of the first gap are left; the message says so.
  virtual Status keep_tokens(SequenceId sequence, std::span<const std::uint64_t> kept) = 0;

  // Attention mass (CacheSpec::attention_mass, RunArgs::mass) of tokens [begin, begin + out.size()): the sum over the queries that
  // were counted of their weight, as the mean over the query heads of the KV head, over the KV heads and layers that are not
  // given one by one. A page that sequences share has one mass. Steps that are aborted, layers that are run twice and drafts
  // that are rejected count as well. Errors: failed_precondition without mass.
  virtual Status attention_mass(SequenceId sequence, std::optional<std::uint32_t> layer, std::optional<std::uint32_t> kv_head,
                                std::uint64_t begin, std::span<float> out) = 0;
  virtual Status clear_mass(SequenceId sequence) = 0;
  // Keeps at most spec.keep tokens, as keep_tokens does: sinks, the newest, and of the others those of the largest mass. Gives their
  // places, or all of them where nothing had to go.
  virtual Result<std::vector<std::uint64_t>> prune_sequence(SequenceId sequence, const PruneSpec& spec) = 0;

  // Of all pages, also those that the prefix cache alone holds, and of one layer group all layers together. Pages that are written, moved to
  // close gaps or taken back by a cut come back to their layers' formats, with what is left of their values. Formats other than those of pages
  // that are cold are refused. No step may be open. Errors: failed_precondition without mass, resource_exhausted if nothing that may cool
  // reaches the target, and nothing has cooled then; where device memory fails midway, what has cooled stays so.
  virtual Result<CoolReport> cool(const CoolSpec& spec) = 0;

  // Turns the keys of tokens [begin, begin + count), stored after RoPE, by so many positions, in all layers, on the device. They are
  // decoded and encoded again; pages that others hold are copied first. On error some layers may have been turned.
  virtual Status shift_keys(SequenceId sequence, std::uint64_t begin, std::uint64_t count, const Rotation& rotation,
                            std::int64_t positions) = 0;

  // Outside of steps; no step may be open. Grows the sequence to `tokens` tokens that hold nothing yet.
  virtual Status extend_sequence(SequenceId sequence, std::uint64_t tokens) = 0;
  // Writes K and V of tokens [begin, begin + count) of one layer over what was there; pages that others hold too are copied first. Ends
  // behind the sequence's last token make it grow; on error it has not, and ids told ahead are those of its next tokens still.
  virtual Status write(SequenceId sequence, std::uint32_t layer, std::uint64_t begin, std::uint64_t count, const TensorView& k,
                       const TensorView& v) = 0;
  // Tells the ids of the first tokens, whose layers have all been written: their full pages may be shared from now on.
  virtual Status identify(SequenceId sequence, std::span<const std::int32_t> tokens) = 0;

  // Dequantized tokens [begin, begin + count) of one layer and side.
  virtual Status read(SequenceId sequence, std::uint32_t layer, Side side, std::uint64_t begin, std::uint64_t count,
                      const TensorView& out) = 0;
  // The same tokens as canonical bytes, rows [token][head] of canonical_row_bytes. Host memory only.
  virtual Status read_canonical(SequenceId sequence, std::uint32_t layer, Side side, std::uint64_t begin,
                                std::uint64_t count, std::span<std::byte> out) = 0;
  // Pages and sequences as a stream of records that any device's cache of the same model, layers and formats can load. A page that
  // sequences share is saved once and shared again. Errors of the sink or source are passed on.
  virtual Status save_state(const StateSelection& selection, const StateSink& sink) = 0;
  // All or nothing. Errors: incompatible (another model, other layers, another version), data_loss, resource_exhausted.
  virtual Result<std::vector<LoadedSequence>> load_state(const StateSource& source) = 0;
  // External pages: gather by slot (negative = zeros), and copy whole pages over all layers.
  virtual Status read_slots(std::uint32_t layer, Side side, std::span<const std::int64_t> slots,
                            const TensorView& out) = 0;
  virtual Status copy_pages(std::span<const std::int32_t> source, std::span<const std::int32_t> destination) = 0;
  // Changes one side of a layer to another format in place, on the device, all pages in use. On error nothing changed.
  virtual Status convert(std::uint32_t layer, Side side, FormatId format) = 0;
};

// Stand-alone conversion on the device: rows of head_dim floats to canonical bytes and back.
Status quantize_rows(Executor& executor, FormatId format, std::uint32_t head_dim, std::span<const float> x,
                     std::span<std::byte> out);
Status dequantize_rows(Executor& executor, FormatId format, std::uint32_t head_dim, std::span<const std::byte> in,
                       std::span<float> x);

}  // namespace kvant
