// What kvant memory-curve measures: what a memory limit makes of a filled cache, and what that costs in perplexity.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "format_pair.hpp"
#include "library.hpp"

namespace kvant::tools {

// What a printed plan says, counted.
struct PlanFacts {
  uint32_t actions = 0;
  std::map<std::string, uint32_t> sides;  // that end in a format: layer sides that the plan converts
  uint64_t evicted_pages = 0;
};
PlanFacts plan_facts(const std::string& plan);

// Of one side of one layer, narrowed alone.
struct SideSensitivity {
  uint32_t layer = 0;
  uint32_t side = 0;  // KVANT_SIDE_K or KVANT_SIDE_V
  double perplexity = 0;
  double kl_mean = 0;  // nats a token, of the unchanged pool's next-token distribution to this one's
  double weight = 0;   // for memory_weight; 1 on average
};

struct Sensitivity {
  FormatPair pair;  // that the pool is filled in
  FormatFacts narrow;
  double perplexity = 0;  // of the unchanged pool
  std::vector<SideSensitivity> sides;
  std::vector<std::vector<float>> unchanged;  // log-probabilities of each chunk's second half over the unchanged pool
};

struct CurvePoint {
  uint32_t percent = 0;  // of the filled pool's bytes
  uint64_t limit_bytes = 0;
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;    // when the limit was set
  uint64_t bytes_largest = 0;  // from then on, the continuation included
  bool met = false;
  std::string plan;          // or why it cannot be met
  uint32_t tokens = 0;       // of the sequence in use
  uint32_t tokens_kept = 0;  // of these, when the limit was set
  double perplexity = 0;
  double kl_mean = 0;            // as SideSensitivity's, where sensitivity was measured and nothing was pruned
  double newest_perplexity = 0;  // of a pruned point: with as many tokens, sinks and newest alone

  bool pruned() const { return met && tokens_kept < tokens; }
};

struct Curve {
  FormatPair pair;        // that the pool is filled in
  bool weighted = false;  // by measured sensitivity
  std::vector<CurvePoint> points;
  std::string name() const { return pair.name() + (weighted ? ", measured weights" : ""); }
};

struct CurveReport {
  DeviceFacts device;
  std::string commit;  // of the library
  std::string model;
  std::string text;
  std::vector<FormatPair> ladder;  // what sides may become
  uint32_t chunks = 0;
  uint32_t context = 0;  // tokens of the sequence in use
  uint32_t scored = 0;   // of these, in each chunk
  uint32_t idle = 0;     // further texts that only the prefix cache holds
  uint64_t slab_bytes = 0;
  bool prune = false;                      // below what formats reach; then
  uint32_t sinks = 0;                      // first and
  uint32_t recent = 0;                     // last tokens always stay,
  uint32_t step = 0;                       // and so many are read at once
  std::vector<Sensitivity> sensitivities;  // of each pair, where they were asked for
  std::vector<Curve> curves;
};

std::string curve_text(const CurveReport& report);
std::string curve_json(const CurveReport& report);
std::string curve_html(const CurveReport& report);

}  // namespace kvant::tools
