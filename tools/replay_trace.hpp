// A trace as `kvant replay` plays it: requests, each a path of pages from the root of a prefix (or one independent
// object).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kvant::tools {

inline constexpr uint32_t kNoParent = UINT32_MAX;

// A page is its content after a certain prefix: the same content after another prefix is another page.
struct TracePage {
  uint32_t parent = kNoParent;
  uint32_t depth = 0;  // pages before it in its prefix
  uint64_t bytes = 0;
};

struct TraceRequest {
  uint64_t time_ms = 0;
  uint64_t tokens = 0;  // of the input; 0 where the trace has none
  std::vector<uint32_t> pages;
};

struct Trace {
  std::string name;
  uint32_t page_tokens = 0;  // 0: objects without tokens
  std::vector<TracePage> pages;
  std::vector<TraceRequest> requests;

  // Bytes of all pages, each once: what an infinite cache would hold.
  uint64_t distinct_bytes() const;
  // Whether all pages have one size, and which (0: they differ).
  uint64_t page_bytes() const;
};

// Numbers pages in the order in which they appear.
class TraceBuilder {
 public:
  explicit TraceBuilder(Trace& trace) : trace_(trace) {}

  // `ids` name the pages of one path; `page_bytes` is the size of each.
  void add_path(uint64_t time_ms, uint64_t tokens, const std::vector<uint64_t>& ids, uint64_t page_bytes);
  // An object of its own. The size that it had first stays.
  void add_object(uint64_t time_ms, uint64_t id, uint64_t bytes);

 private:
  uint32_t page(uint32_t parent, uint64_t id, uint64_t bytes);

  Trace& trace_;
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> known_;  // (parent, id) -> page
};

}  // namespace kvant::tools
