// StressWorker: one thread's part of the stress test. It works on sequences of its own in caches that all share, and compares what
// it reads with its own model. The first thing that is wrong ends its work and is kept for the test to tell.
#pragma once

#include <kvant/kvant_ext_manager.h>

#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

#include "stress_model.hpp"

namespace abi_test {

struct StressCaches {
  const kvant_ext_manager* manager = nullptr;
  std::uint32_t f32 = 0, f16 = 0;
  std::vector<kvant_cache*> caches;  // of equal layers
  kvant_cache* store = nullptr;      // with a store
  std::mutex loading;                // state_loaded speaks of the cache's last load
};

class StressWorker {
 public:
  StressWorker(StressCaches& shared, std::uint32_t seed) : shared_(shared), random_(seed), held_(shared.caches.size()) {}

  std::string failure;
  std::uint64_t done = 0, refused = 0;  // operations; of these, for want of pages or turns

  const std::vector<StressSequence>& held(std::size_t cache) const { return held_[cache]; }
  void run(int operations) {
    for (int i = 0; i < operations && failure.empty(); ++i, ++done) operation(below(shared_.caches.size()));
  }
  void destroy_all() {
    for (std::size_t c = 0; c < held_.size(); ++c)
      while (failure.empty() && !held_[c].empty()) destroy(c, 0);
  }
  void check_all() {
    for (std::size_t c = 0; c < held_.size(); ++c)
      for (const StressSequence& sequence : held_[c])
        for (std::uint32_t layer = 0; layer < kStressLayers; ++layer)
          for (const std::uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) check(c, sequence, layer, side);
  }

 private:
  static constexpr std::size_t kMostSequences = 3, kMostTokens = 100;

  std::uint32_t below(std::size_t end) { return static_cast<std::uint32_t>(random_() % end); }
  void fail(const std::string& what) {
    if (failure.empty()) failure = what;
  }
  // True: it worked. False: refused as it may be; anything else is a failure.
  bool accept(kvant_error* error, bool may_be_full = false) {
    if (error == nullptr) return true;
    const Outcome outcome = take(error);
    if (!may_be_full || outcome.code != KVANT_ERROR_RESOURCE_EXHAUSTED) fail(outcome.source + ": " + outcome.message);
    ++refused;
    return false;
  }
  // Calls that no step may be open for wait for their turn; a bounded number of times.
  template <typename F>
  bool in_turn(F&& call, bool may_be_full = false) {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      kvant_error* error = call();
      if (error == nullptr || api().error_code(error) != KVANT_ERROR_FAILED_PRECONDITION) return accept(error, may_be_full);
      const Outcome outcome = take(error);
      if (outcome.message.find("open") == std::string::npos) {
        fail(outcome.source + ": " + outcome.message);
        return false;
      }
      if (attempt < 16) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
    ++refused;
    return false;
  }

  void operation(std::size_t c) {
    const std::uint32_t what = below(100);
    if (held_[c].empty() || (what < 15 && held_[c].size() < kMostSequences)) return open(c);
    const std::size_t i = below(held_[c].size());
    if (what < 50) return step(c, held_[c][i]);
    if (what < 60) return fork(c, i);
    if (what < 66) return truncate(c, held_[c][i]);
    if (what < 74) return destroy(c, i);
    if (what < 84) return check(c, held_[c][i], below(kStressLayers), below(2));
    if (what < 88) return write(c, held_[c][i]);
    if (what < 91) return save_and_load(c);
    if (what < 93) return clear_prefixes(c);
    if (what < 96) return change_policy(c);
    if (what < 97) return convert(c);
    use_store();
  }

  void open(std::size_t c) {
    StressSequence made;
    const Tokens prompt = stress_prompt(random_);
    auto args = make<kvant_sequence_args>();
    args.tokens = prompt.data();
    args.token_count = prompt.size();
    args.salt = "t";
    args.salt_size = below(4) == 0 ? 1 : 0;
    args.leave_tokens = below(3);
    args.priority = below(3);
    std::uint64_t reused = 0;
    if (!accept(api().sequence_open(shared_.caches[c], &args, &made.id, &reused))) return;
    made.told = prompt;
    if (reused + std::min<std::uint64_t>(args.leave_tokens, prompt.size()) > prompt.size())
      return fail("sequence_open shares " + std::to_string(reused) + " tokens of " + std::to_string(prompt.size()));
    made.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(reused));
    held_[c].push_back(made);
    check(c, made, below(kStressLayers), below(2));
  }

  void step(std::size_t c, StressSequence& sequence) {
    const std::size_t length = sequence.tokens.size();
    if (length >= kMostTokens) return truncate(c, sequence);
    // What was told ahead comes as it was told, or is told anew.
    const bool ahead = sequence.told.size() > length && below(4) != 0;
    const auto rest = static_cast<std::uint32_t>(ahead ? sequence.told.size() - length : kMostTokens - length);
    const std::uint32_t append = std::min(rest, 1 + below(24));
    Tokens fresh(append);
    for (std::uint32_t i = 0; i < append; ++i)
      fresh[i] = ahead ? sequence.told[length + i] : static_cast<std::int32_t>(below(2));
    const bool tell = !ahead && (sequence.told.size() > length || below(4) != 0);
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence.id;
    entry.append = append;
    entry.queries = below(4) == 0 ? 1 : 0;
    entry.tokens = tell ? fresh.data() : nullptr;
    auto args = make<kvant_step_args>();
    args.entry_count = 1;
    args.entries = &entry;
    kvant_step* step = nullptr;
    if (!in_turn([&] { return api().step_plan(shared_.caches[c], &args, &step); }, true)) return;
    Tokens all = sequence.tokens;
    all.insert(all.end(), fresh.begin(), fresh.end());
    const bool commit = below(8) != 0;
    bool good = true;
    for (std::uint32_t layer = 0; layer < kStressLayers && good; ++layer)
      if (commit || below(2) == 0) good = run_layer(step, layer, all, length, entry.queries);
    if (!commit || !good) return api().step_abort(step);
    if (!accept(api().step_commit(step))) return api().step_abort(step);
    sequence.tokens = all;
    if (tell && sequence.told.size() >= length) {
      sequence.told.resize(length);
      sequence.told.insert(sequence.told.end(), fresh.begin(), fresh.end());
    }
  }

  bool run_layer(kvant_step* step, std::uint32_t layer, const Tokens& all, std::size_t begin, std::uint32_t queries) {
    StepData data;
    data.k = stress_rows(all, begin, layer, KVANT_SIDE_K);
    data.v = stress_rows(all, begin, layer, KVANT_SIDE_V);
    if (queries != 0) {
      data.q_heads = 2;
      data.q.assign(2 * kStressDim, 0.25F);
      data.out.assign(2 * kStressDim, 1e9F);
    }
    std::vector<kvant_tensor> tensors;
    const kvant_run_args run = run_args_of(data, tensors);
    if (!accept(api().step_run(step, layer, &run), true)) return false;
    for (const float value : data.out)  // a mean of values between -8 and 8
      if (!(std::abs(value) <= 8.01F)) fail("attention gave " + std::to_string(value));
    return true;
  }

  void fork(std::size_t c, std::size_t i) {
    if (held_[c].size() >= kMostSequences) return destroy(c, i);
    StressSequence child = held_[c][i];
    const std::size_t tokens = below(child.tokens.size() + 1);
    if (!accept(api().sequence_fork(shared_.caches[c], child.id, tokens, &child.id), true)) return;
    child.tokens.resize(tokens);
    if (child.told.size() > tokens) child.told.resize(tokens);
    held_[c].push_back(child);
  }
  void truncate(std::size_t c, StressSequence& sequence) {
    const std::size_t tokens = below(sequence.tokens.size() + 1);
    if (!accept(api().sequence_truncate(shared_.caches[c], sequence.id, tokens))) return;
    sequence.tokens.resize(tokens);
    if (sequence.told.size() > tokens) sequence.told.resize(tokens);
  }
  void destroy(std::size_t c, std::size_t i) {
    accept(api().sequence_destroy(shared_.caches[c], held_[c][i].id));
    held_[c].erase(held_[c].begin() + static_cast<std::ptrdiff_t>(i));
  }

  void check(std::size_t c, const StressSequence& sequence, std::uint32_t layer, std::uint32_t side) {
    std::uint64_t length = 0;
    if (!accept(api().sequence_length(shared_.caches[c], sequence.id, &length))) return;
    if (length != sequence.tokens.size())
      return fail("a sequence has " + std::to_string(length) + " tokens; expected " + std::to_string(sequence.tokens.size()));
    const std::vector<float> expected = stress_rows(sequence.tokens, 0, layer, side);
    std::vector<float> got(expected.size(), -1.0F);
    kvant_tensor out = tensor_of(got);
    if (length == 0 || !accept(api().sequence_read(shared_.caches[c], sequence.id, layer, side, 0, length, &out), true)) return;
    if (got != expected) fail("a sequence of " + std::to_string(length) + " tokens reads wrong in layer " + std::to_string(layer));
  }

  // Past the end and over what is there, which others may share.
  void write(std::size_t c, StressSequence& sequence) {
    const std::size_t length = sequence.tokens.size(), begin = below(length + 1);
    Tokens all(sequence.tokens.begin(), sequence.tokens.begin() + static_cast<std::ptrdiff_t>(begin));
    const std::size_t count = std::min<std::size_t>(kMostTokens - begin, 1 + below(20));
    for (std::size_t i = 0; i < count; ++i) all.push_back(static_cast<std::int32_t>(below(5)));
    // Cut first: tokens behind would have another history.
    if (!accept(api().sequence_truncate(shared_.caches[c], sequence.id, std::min(length, all.size())))) return;
    sequence.tokens.resize(std::min(length, all.size()));
    if (sequence.told.size() > begin) sequence.told.resize(begin);
    for (std::uint32_t layer = 0; layer < kStressLayers; ++layer) {
      std::vector<float> k = stress_rows(all, begin, layer, KVANT_SIDE_K), v = stress_rows(all, begin, layer, KVANT_SIDE_V);
      kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v);
      const auto call = [&] {
        return shared_.manager->sequence_write(shared_.caches[c], sequence.id, layer, begin, count, &k_tensor, &v_tensor);
      };
      if (in_turn(call, true)) continue;
      // What some layers have and others not is cut away.
      accept(api().sequence_truncate(shared_.caches[c], sequence.id, begin));
      sequence.tokens.resize(begin);
      return;
    }
    sequence.tokens = all;
  }

  // All that the worker holds of one cache, and sometimes the prefixes, into the next one, which may have it already.
  void save_and_load(std::size_t c) {
    std::vector<kvant_sequence> ids;
    for (const StressSequence& sequence : held_[c]) ids.push_back(sequence.id);
    auto args = make<kvant_state_args>();
    args.sequences = ids.data();
    args.sequence_count = static_cast<std::uint32_t>(ids.size());
    args.flags = below(2) == 0 ? KVANT_STATE_PREFIXES : 0;
    StateBytes state;
    const kvant_state_stream stream = state.stream();
    if (!accept(shared_.manager->state_save(shared_.caches[c], &args, &stream), true)) return;
    const std::size_t target = (c + 1) % shared_.caches.size();
    kvant_cache* const to = shared_.caches[target];
    std::vector<StressSequence> loaded = held_[c];
    {
      const std::lock_guard lock(shared_.loading);
      std::uint32_t count = 0;
      kvant_error* error = shared_.manager->state_load(to, &stream, &count);
      // Formats may have been changed in between.
      if (error != nullptr && api().error_code(error) == KVANT_ERROR_INCOMPATIBLE) return void(take(error));
      if (!accept(error, true)) return;
      if (count != ids.size()) return fail("state_load gave " + std::to_string(count) + " sequences");
      for (std::uint32_t i = 0; i < count; ++i) {
        std::uint64_t saved = 0;
        if (!accept(shared_.manager->state_loaded(to, i, &saved, &loaded[i].id))) return;
        if (saved != ids[i]) return fail("state_loaded gave another handle");
      }
    }
    for (const StressSequence& sequence : loaded) {
      for (std::uint32_t layer = 0; layer < kStressLayers; ++layer) check(target, sequence, layer, below(2));
      if (held_[target].size() < kMostSequences) {
        held_[target].push_back(sequence);
      } else {
        accept(api().sequence_destroy(to, sequence.id));
      }
    }
  }

  void clear_prefixes(std::size_t c) {
    std::uint64_t pages = 0;
    accept(api().prefix_clear(shared_.caches[c], &pages));
  }
  void change_policy(std::size_t c) {
    auto policy = make<kvant_policy_args>();
    policy.kind = below(4);
    policy.sink_pages = policy.kind == KVANT_POLICY_WINDOW ? below(3) : 0;
    policy.ttl_ms = below(3) == 0 ? 1 + below(20) : 0;
    accept(api().prefix_policy(shared_.caches[c], &policy));
  }
  void convert(std::size_t c) {
    const std::uint32_t layer = below(kStressLayers), side = below(2);
    const std::uint32_t format = below(2) == 0 ? shared_.f32 : shared_.f16;
    in_turn([&] { return api().cache_convert(shared_.caches[c], layer, side, format); }, true);
  }

  void use_store() {
    const Tokens prompt = stress_prompt(random_);
    auto args = make<kvant_store_args>();
    args.tokens = prompt.data();
    args.token_count = prompt.size();
    for (args.layer = 0; args.layer < kStressLayers; ++args.layer) {
      std::vector<float> k = stress_rows(prompt, 0, args.layer, KVANT_SIDE_K), v = stress_rows(prompt, 0, args.layer, KVANT_SIDE_V);
      std::vector<float> k_got(k.size()), v_got(v.size());
      kvant_tensor k_in = tensor_of(k), v_in = tensor_of(v), k_out = tensor_of(k_got), v_out = tensor_of(v_got);
      args.k = &k_in;
      args.v = &v_in;
      if (!accept(shared_.manager->store_put(shared_.store, &args), true)) return;
      args.k = &k_out;
      args.v = &v_out;
      std::uint32_t found = 0;
      if (!accept(shared_.manager->store_get(shared_.store, &args, &found), true)) return;
      if (found == 1 && (k_got != k || v_got != v)) fail("the store gives other values than were put");
    }
  }

  StressCaches& shared_;
  std::mt19937 random_;
  std::vector<std::vector<StressSequence>> held_;  // per cache
};

}  // namespace abi_test
