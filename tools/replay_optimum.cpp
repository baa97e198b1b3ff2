// What no policy can beat: Belady's optimum for pages of one size, and an upper bound for objects of unequal sizes.
#include <algorithm>
#include <cassert>
#include <set>
#include <tuple>
#include <utility>

#include "replay_run.hpp"

namespace kvant::tools {

namespace {

// The order of leaving, last first: by next use, then the deeper page.
struct Held {
  uint64_t next_request;
  uint32_t depth;
  uint32_t page;

  bool operator<(const Held& other) const {
    return std::tie(next_request, depth, page) < std::tie(other.next_request, other.depth, other.page);
  }
};

// For each request and page of it: the request that uses the page next.
std::vector<std::vector<uint64_t>> next_uses(const Trace& trace) {
  std::vector<std::vector<uint64_t>> next(trace.requests.size());
  std::vector<uint64_t> seen(trace.pages.size(), UINT64_MAX);
  for (size_t request = trace.requests.size(); request-- > 0;) {
    const std::vector<uint32_t>& pages = trace.requests[request].pages;
    next[request].resize(pages.size());
    for (size_t i = 0; i < pages.size(); ++i) {
      next[request][i] = std::exchange(seen[pages[i]], request);
    }
  }
  return next;
}

class Belady {
 public:
  Belady(const Trace& trace, uint64_t capacity_pages)
      : trace_(trace), capacity_(capacity_pages), next_of_(trace.pages.size(), UINT64_MAX), held_(trace.pages.size()) {}

  bool use(uint32_t page, uint64_t next_request) {
    const bool hit = held_[page];
    if (hit) {
      order_.erase({next_of_[page], trace_.pages[page].depth, page});
    }
    held_[page] = true;
    next_of_[page] = next_request;
    order_.insert({next_request, trace_.pages[page].depth, page});
    figures.stored_pages += hit ? 0 : 1;
    if (order_.size() > capacity_) {
      const Held last = *order_.rbegin();
      order_.erase(last);
      held_[last.page] = false;
      if (last.page == page) {  // it was never stored
        --figures.stored_pages;
        ++figures.refused_pages;
      } else {
        ++figures.evicted_pages;
      }
    }
    figures.most_bytes = std::max<uint64_t>(figures.most_bytes, order_.size());
    return hit;
  }

  ReplayFigures figures;

 private:
  const Trace& trace_;
  uint64_t capacity_;
  std::set<Held> order_;
  std::vector<uint64_t> next_of_;
  std::vector<bool> held_;
};

struct Reuse {
  double cost;  // bytes times requests from one use to the next
  uint64_t bytes;
};

// The most that reuses of these costs are worth within `room`, cheapest by worth first; a part of the last one counts
// whole.
uint64_t best_within(std::vector<std::pair<double, Reuse>>& by_price, double room, bool count_bytes) {
  std::sort(by_price.begin(), by_price.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  uint64_t worth = 0;
  for (const auto& [price, reuse] : by_price) {
    if (room <= 0) {
      break;
    }
    room -= reuse.cost;
    worth += count_bytes ? reuse.bytes : 1;
  }
  return worth;
}

}  // namespace

ReplayFigures replay_optimum(const Trace& trace, uint64_t capacity_bytes, uint64_t* path_hits) {
  const uint64_t page_bytes = trace.page_bytes();
  assert(page_bytes > 0);
  Belady belady(trace, capacity_bytes / page_bytes);
  ReplayFigures& figures = belady.figures;
  const auto next = next_uses(trace);
  uint64_t in_paths = 0;
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    const TraceRequest& request = trace.requests[i];
    uint64_t hits = 0;
    bool missed = false;
    for (size_t at = 0; at < request.pages.size(); ++at) {
      const bool hit = belady.use(request.pages[at], next[i][at]);
      hits += hit ? 1 : 0;
      missed = missed || !hit;
      in_paths += hit && !missed ? 1 : 0;
    }
    ++figures.requests;
    figures.pages += request.pages.size();
    figures.hit_pages += hits;
    figures.tokens += request.tokens;
    figures.hit_tokens += std::min(request.tokens, hits * trace.page_tokens);
  }
  figures.bytes = figures.pages * page_bytes;
  figures.hit_bytes = figures.hit_pages * page_bytes;
  figures.stored_bytes = figures.stored_pages * page_bytes;
  figures.evicted_bytes = figures.evicted_pages * page_bytes;
  figures.most_bytes *= page_bytes;
  if (path_hits != nullptr) {
    *path_hits = in_paths;
  }
  return figures;
}

ReplayFigures replay_bound(const Trace& trace, uint64_t capacity_bytes) {
  ReplayFigures figures;
  std::vector<std::pair<double, Reuse>> by_hit, by_byte;
  std::vector<uint64_t> last(trace.pages.size(), UINT64_MAX);
  uint64_t position = 0;  // in the sequence of all page uses
  for (const TraceRequest& request : trace.requests) {
    ++figures.requests;
    figures.pages += request.pages.size();
    figures.tokens += request.tokens;
    for (const uint32_t page : request.pages) {
      const uint64_t bytes = trace.pages[page].bytes;
      figures.bytes += bytes;
      const uint64_t before = std::exchange(last[page], position++);
      if (before != UINT64_MAX && bytes <= capacity_bytes) {
        const double length = static_cast<double>(position - 1 - before);
        const Reuse reuse{length * static_cast<double>(bytes), bytes};
        by_hit.push_back({reuse.cost, reuse});
        by_byte.push_back({length, reuse});
      }
    }
  }
  const double room = static_cast<double>(capacity_bytes) * static_cast<double>(position);
  figures.hit_pages = best_within(by_hit, room, false);
  figures.hit_bytes = best_within(by_byte, room, true);
  return figures;
}

}  // namespace kvant::tools
