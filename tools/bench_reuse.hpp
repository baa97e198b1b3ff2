// What kvant bench reuse measures: an agent workflow whose calls share a long prompt, with the prefix cache and
// without.
#pragma once

#include <string>
#include <vector>

#include "bench.hpp"

namespace kvant::tools {

// Lengths in tokens.
struct ReuseShape {
  uint32_t rounds = 10;
  uint32_t calls = 5;  // a round: one of each agent
  uint32_t system = 0;
  uint32_t question = 16;
  uint32_t answer = 4;

  uint64_t longest() const { return uint64_t{system} + uint64_t{rounds} * (question + answer); }
};

// One way of serving: medians of the repeats for times; tokens are the same in each.
struct ReuseWay {
  double seconds = 0;        // all calls
  double first_seconds = 0;  // of these, until each call's first token
  uint64_t fed_tokens = 0;   // of prompts, through the model
  std::vector<double> call_seconds;
};

// Prompts of different agents, open at the same time.
struct ReuseHeld {
  uint32_t prompts = 0;
  uint64_t shared_pages = 0, shared_bytes = 0;  // with the prefix cache
  uint64_t apart_pages = 0, apart_bytes = 0;    // without
};

struct ReuseResult {
  FormatPair pair;
  ReuseWay cached, fresh;
  double ratio = 0;  // median of the repeats' own ratios
  double least_ratio = 0, largest_ratio = 0;
  uint64_t prompt_tokens = 0;
  uint64_t answer_tokens = 0, equal_tokens = 0;  // of all repeats
  uint64_t lookups = 0, hits = 0, lookup_tokens = 0, hit_tokens = 0;
  std::vector<ReuseHeld> held;
};

struct ReuseReport {
  DeviceFacts device;
  std::string commit;  // of the library
  std::string model;
  ReuseShape shape;
  uint32_t repeats = 0;
  std::vector<ReuseResult> results;
};

std::string reuse_text(const ReuseReport& report);
std::string reuse_json(const ReuseReport& report);
std::string reuse_html(const ReuseReport& report);

}  // namespace kvant::tools
