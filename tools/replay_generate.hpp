// Made-up traces, reproducible from a seed: the shapes of traffic that a prefix cache meets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "replay_trace.hpp"

namespace kvant::tools {

enum class TraceKind {
  kChat,    // conversations of several turns with time to think between them, over a few system prompts
  kAgent,   // agents that call back within seconds, their prompt growing with every tool's answer
  kShared,  // many short questions after some long shared system prompts of unequal popularity
  kOnce,    // the shared prompts again, most requests being long documents that nobody asks about twice
};

struct GenerateOptions {
  TraceKind kind = TraceKind::kChat;
  uint64_t seed = 1;
  uint64_t requests = 4000;
  uint32_t page_tokens = 512;
};

// The same as the files hold: what Mooncake's lines say.
struct PathRecord {
  uint64_t time_ms = 0;
  uint64_t input_tokens = 0;
  uint64_t output_tokens = 0;
  std::vector<uint64_t> ids;  // of the pages of the input, the last one perhaps partly filled
};

const std::vector<std::string>& trace_kind_names();
std::optional<TraceKind> trace_kind_from_name(const std::string& name);

std::vector<PathRecord> generate_records(const GenerateOptions& options);
Trace generate_trace(const GenerateOptions& options, uint64_t page_bytes);

}  // namespace kvant::tools
