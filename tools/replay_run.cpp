// The cache of `kvant replay`: which pages are there, which of them hang on which, and a policy that says what leaves.
#include "replay_run.hpp"

#include <algorithm>
#include <cassert>

#include "eviction_policy.hpp"

namespace kvant::tools {

namespace {

// Hits of the tokens that the first `hits` pages of a request hold; the last page of a path may be partly filled.
uint64_t tokens_of(const Trace& trace, const TraceRequest& request, uint64_t hits) {
  return std::min(request.tokens, hits * trace.page_tokens);
}

void count_lookup(const Trace& trace, const TraceRequest& request, size_t hits, ReplayFigures& figures) {
  ++figures.requests;
  figures.pages += request.pages.size();
  figures.hit_pages += hits;
  figures.tokens += request.tokens;
  figures.hit_tokens += tokens_of(trace, request, hits);
  for (size_t i = 0; i < request.pages.size(); ++i) {
    const uint64_t bytes = trace.pages[request.pages[i]].bytes;
    figures.bytes += bytes;
    figures.hit_bytes += i < hits ? bytes : 0;
  }
}

uint64_t fingerprint_of(uint32_t page) { return (uint64_t{page} + 1) * 0x9e3779b97f4a7c15u; }

class ReplayCache {
 public:
  ReplayCache(const Trace& trace, const ReplayOptions& options)
      : trace_(trace), capacity_(options.capacity_bytes), held_(trace.pages.size(), false) {
    const uint64_t mean = trace.pages.empty() ? 1 : std::max<uint64_t>(1, trace.distinct_bytes() / trace.pages.size());
    PolicySpec spec;
    spec.kind = policy_from_name(options.policy).value_or(PolicyKind::none);
    spec.capacity_entries = std::max<uint64_t>(1, capacity_ / mean);
    spec.ttl_ms = options.ttl_ms;
    spec.sink_entries = options.sink_pages;
    auto made = EvictionPolicy::create(spec);
    assert(made.ok());
    policy_ = std::move(made).value();
  }

  void serve(const TraceRequest& request) {
    now_ms_ = std::max(now_ms_, request.time_ms);
    expire();
    size_t hits = 0;
    while (hits < request.pages.size() && held_[request.pages[hits]]) {
      ++hits;
    }
    count_lookup(trace_, request, hits, figures_);
    // The deepest first, so that by recency too a page leaves before those that it hangs on.
    for (size_t i = hits; i-- > 0;) {
      policy_->touch(id_of(request.pages[i]), now_ms_);
      policy_->pin(id_of(request.pages[i]));
    }
    size_t held = hits;
    while (held < request.pages.size() && store(request.pages[held])) {
      ++held;
    }
    figures_.refused_pages += request.pages.size() - held;
    for (size_t i = held; i-- > 0;) {
      policy_->unpin(id_of(request.pages[i]), now_ms_);
    }
  }

  const ReplayFigures& figures() const { return figures_; }

 private:
  static EntryId id_of(uint32_t page) { return EntryId{page}; }

  // Expired pages may free those that they hung on, which may have expired as well.
  void expire() {
    std::vector<EntryId> expired;
    do {
      expired.clear();
      policy_->expire(now_ms_, expired);
      for (const EntryId id : expired) {
        drop(static_cast<uint32_t>(id));
      }
      figures_.expired_pages += expired.size();
    } while (!expired.empty());
  }

  // Afterwards the page is pinned, and so is the one that it hangs on.
  bool store(uint32_t page) {
    const TracePage& facts = trace_.pages[page];
    if (facts.bytes > capacity_) {
      return false;
    }
    while (held_bytes_ + facts.bytes > capacity_) {
      const std::optional<EntryId> victim = policy_->evict(now_ms_);
      if (!victim.has_value()) {
        return false;
      }
      const auto left = static_cast<uint32_t>(*victim);
      drop(left);
      ++figures_.evicted_pages;
      figures_.evicted_bytes += trace_.pages[left].bytes;
    }
    policy_->insert(id_of(page), {fingerprint_of(page), facts.depth, 0, 0}, now_ms_);
    policy_->pin(id_of(page));
    if (facts.parent != kNoParent) {
      policy_->pin(id_of(facts.parent));
    }
    held_[page] = true;
    held_bytes_ += facts.bytes;
    figures_.most_bytes = std::max(figures_.most_bytes, held_bytes_);
    ++figures_.stored_pages;
    figures_.stored_bytes += facts.bytes;
    return true;
  }

  void drop(uint32_t page) {
    held_[page] = false;
    held_bytes_ -= trace_.pages[page].bytes;
    if (trace_.pages[page].parent != kNoParent) {
      policy_->unpin(id_of(trace_.pages[page].parent), now_ms_);
    }
  }

  const Trace& trace_;
  uint64_t capacity_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<bool> held_;
  uint64_t held_bytes_ = 0;
  uint64_t now_ms_ = 0;
  ReplayFigures figures_;
};

}  // namespace

const std::vector<std::string>& replay_policies() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const PolicyKind kind : {PolicyKind::none, PolicyKind::lru, PolicyKind::window, PolicyKind::adaptive}) {
      all.emplace_back(policy_name(kind));
    }
    return all;
  }();
  return names;
}

ReplayFigures replay(const Trace& trace, const ReplayOptions& options, const std::function<void()>& step) {
  ReplayCache cache(trace, options);
  for (const TraceRequest& request : trace.requests) {
    cache.serve(request);
    if (step) {
      step();
    }
  }
  return cache.figures();
}

ReplayFigures replay_infinite(const Trace& trace) { return replay(trace, {"none", trace.distinct_bytes(), 0, 0}); }

}  // namespace kvant::tools
