// The trace files of `kvant replay`: Mooncake's JSON lines and libCacheSim's CSV, and the capacities that the user asks
// for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "outcome.hpp"
#include "replay_generate.hpp"
#include "replay_trace.hpp"

namespace kvant::tools {

enum class TraceFormat { kMooncake, kCsv };

struct ReadOptions {
  uint32_t page_tokens = 512;  // of Mooncake's blocks
  uint64_t page_bytes = 0;     // of one of them; at least 1
};

// By the end of the name: .csv, or anything else.
TraceFormat trace_format_of(const std::string& path);

Outcome<Trace> read_trace(const std::string& path, TraceFormat format, const ReadOptions& options);

// `name` stands before the line's number in messages.
// Mooncake: {"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [of each block of the
// input]}.
Outcome<Trace> parse_mooncake(const std::string& name, std::string_view text, const ReadOptions& options);
// libCacheSim: time in seconds, id (any text), size in bytes; more columns are ignored, a first line of names is
// skipped.
Outcome<Trace> parse_csv(const std::string& name, std::string_view text);

std::string mooncake_text(const std::vector<PathRecord>& records);
// Every page as an object of its own.
std::string csv_text(const std::vector<PathRecord>& records, uint64_t page_bytes);

// Comma-separated: "5%" of the trace's distinct bytes, "64MiB", or a count of pages of the mean size. In bytes,
// ascending.
Outcome<std::vector<uint64_t>> parse_capacities(const std::string& text, const Trace& trace);

}  // namespace kvant::tools
