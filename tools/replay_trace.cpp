// Builds traces page by page.
#include "replay_trace.hpp"

namespace kvant::tools {

uint64_t Trace::distinct_bytes() const {
  uint64_t bytes = 0;
  for (const TracePage& page : pages) {
    bytes += page.bytes;
  }
  return bytes;
}

uint64_t Trace::page_bytes() const {
  for (const TracePage& page : pages) {
    if (page.bytes != pages.front().bytes) {
      return 0;
    }
  }
  return pages.empty() ? 0 : pages.front().bytes;
}

uint32_t TraceBuilder::page(uint32_t parent, uint64_t id, uint64_t bytes) {
  const auto [place, is_new] = known_.try_emplace({parent, id}, static_cast<uint32_t>(trace_.pages.size()));
  if (is_new) {
    const uint32_t depth = parent == kNoParent ? 0 : trace_.pages[parent].depth + 1;
    trace_.pages.push_back({parent, depth, bytes});
  }
  return place->second;
}

void TraceBuilder::add_path(uint64_t time_ms, uint64_t tokens, const std::vector<uint64_t>& ids, uint64_t page_bytes) {
  TraceRequest request{time_ms, tokens, {}};
  request.pages.reserve(ids.size());
  uint32_t parent = kNoParent;
  for (const uint64_t id : ids) {
    parent = page(parent, id, page_bytes);
    request.pages.push_back(parent);
  }
  trace_.requests.push_back(std::move(request));
}

void TraceBuilder::add_object(uint64_t time_ms, uint64_t id, uint64_t bytes) {
  trace_.requests.push_back({time_ms, 0, {page(kNoParent, id, bytes)}});
}

}  // namespace kvant::tools
