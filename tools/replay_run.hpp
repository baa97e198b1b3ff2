// Plays a trace through an eviction policy, through the best possible one, and through a cache without end. No device.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "replay_trace.hpp"

namespace kvant::tools {

struct ReplayOptions {
  std::string policy;  // one of replay_policies()
  uint64_t capacity_bytes = 0;
  uint64_t ttl_ms = 0;
  uint32_t sink_pages = 0;  // of the policy window
};

// What happened. Pages are looked up in the order of their path, and the first miss ends the hits of a request.
struct ReplayFigures {
  uint64_t requests = 0;
  uint64_t pages = 0, hit_pages = 0;
  uint64_t tokens = 0, hit_tokens = 0;
  uint64_t bytes = 0, hit_bytes = 0;
  uint64_t stored_pages = 0, stored_bytes = 0;
  uint64_t evicted_pages = 0, evicted_bytes = 0, expired_pages = 0;
  uint64_t refused_pages = 0;  // not stored: no room could be made
  uint64_t most_bytes = 0;     // held at once

  double page_rate() const { return share(hit_pages, pages); }
  double token_rate() const { return share(hit_tokens, tokens); }
  double byte_rate() const { return share(hit_bytes, bytes); }

 private:
  static double share(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
};

const std::vector<std::string>& replay_policies();

// `options.policy` is one of replay_policies(). `step`, if any, is called after each request.
ReplayFigures replay(const Trace& trace, const ReplayOptions& options, const std::function<void()>& step = {});

// Never evicts.
ReplayFigures replay_infinite(const Trace& trace);

// Pages of one size: Belady's optimum (the page whose next use lies farthest ahead leaves, the deeper one of two with
// the same next use, and a page is not stored if it would be that page). It is exact for paths as well: no page is used
// later than the pages after it, so leaves leave first by themselves, and what it holds always is whole prefixes.
// `path_hits` receives, if given, how many of the hits lie before the first miss of their request: all of them.
ReplayFigures replay_optimum(const Trace& trace, uint64_t capacity_bytes, uint64_t* path_hits = nullptr);

// Objects of unequal sizes: an upper bound of any policy's hits and hit bytes, each for itself. Every reuse occupies
// its bytes from one use to the next; the cheapest reuses that fit into capacity times length of the trace are counted
// as hits.
ReplayFigures replay_bound(const Trace& trace, uint64_t capacity_bytes);

}  // namespace kvant::tools
