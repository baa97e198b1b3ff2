// Sessions of users and agents, interleaved by their times.
#include "replay_generate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <queue>

namespace kvant::tools {

namespace {

// SplitMix64, so that a seed gives the same trace with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t value = state_ += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  uint64_t between(uint64_t least, uint64_t most) { return least + next() % (most - least + 1); }
  uint64_t exponential(double mean) { return static_cast<uint64_t>(-mean * std::log(1.0 - uniform())); }
  bool chance(double share) { return uniform() < share; }

 private:
  uint64_t state_;
};

// What tells the kinds apart. Token counts and times are uniform between two bounds, or exponential with a mean.
struct Shape {
  uint64_t prompts;  // shared system prompts; popularity falls as 1 / rank
  std::array<uint64_t, 2> prompt_tokens;
  std::array<uint64_t, 2> turns;
  std::array<uint64_t, 2> input_tokens;   // of one turn
  std::array<uint64_t, 2> output_tokens;  // of one turn
  double pause_ms;                        // between the turns of a session
  double arrival_ms;                      // between the sessions
  double once_share;                      // sessions that are one long document, without a system prompt
  std::array<uint64_t, 2> once_tokens;
};

constexpr std::array<Shape, 4> kShapes = {{
    {6, {600, 2500}, {1, 12}, {40, 1500}, {50, 700}, 60000, 2500, 0.05, {4000, 20000}},
    {4, {4000, 9000}, {5, 40}, {100, 4000}, {50, 400}, 5000, 20000, 0.0, {0, 0}},
    {60, {1000, 16000}, {1, 2}, {30, 600}, {50, 300}, 15000, 400, 0.0, {0, 0}},
    {60, {1000, 12000}, {1, 2}, {30, 600}, {50, 300}, 15000, 400, 0.6, {8000, 40000}},
}};

const std::array<const char*, 4> kNames = {"chat", "agent", "shared", "once"};

// Tokens seen so far. Full pages keep their ids; a partly filled last page is new each time, since its content will be.
struct Text {
  uint64_t tokens = 0;
  std::vector<uint64_t> full;
};

struct Session {
  uint64_t time_ms = 0;
  uint64_t number = 0;
  uint64_t turns_left = 0;
  bool once = false;
  Text text;
};

struct Later {
  bool operator()(const Session& a, const Session& b) const {
    return a.time_ms != b.time_ms ? a.time_ms > b.time_ms : a.number > b.number;
  }
};

class Generator {
 public:
  explicit Generator(const GenerateOptions& options)
      : options_(options), shape_(kShapes[static_cast<size_t>(options.kind)]), random_(options.seed) {
    for (uint64_t rank = 0; rank < shape_.prompts; ++rank) {
      Text prompt;
      grow(prompt, random_.between(shape_.prompt_tokens[0], shape_.prompt_tokens[1]));
      prompts_.push_back(prompt);
      weight_ += 1.0 / static_cast<double>(rank + 1);
    }
  }

  std::vector<PathRecord> run() {
    std::vector<PathRecord> records;
    std::priority_queue<Session, std::vector<Session>, Later> waiting;
    uint64_t sessions = 0;
    waiting.push(begin_session(0, sessions++));
    uint64_t newest = 0;
    while (records.size() < options_.requests) {
      Session session = waiting.top();
      waiting.pop();
      if (session.number == newest) {  // each session's first request calls the next session in
        waiting.push(begin_session(session.time_ms + random_.exponential(shape_.arrival_ms), sessions++));
        ++newest;
      }
      records.push_back(turn(session));
      if (--session.turns_left > 0) {
        session.time_ms += 1 + random_.exponential(shape_.pause_ms);
        waiting.push(std::move(session));
      }
    }
    return records;
  }

 private:
  void grow(Text& text, uint64_t tokens) {
    text.tokens += tokens;
    while ((text.full.size() + 1) * options_.page_tokens <= text.tokens) {
      text.full.push_back(next_id_++);
    }
  }

  Session begin_session(uint64_t time_ms, uint64_t number) {
    Session session{time_ms, number, random_.between(shape_.turns[0], shape_.turns[1]), false, {}};
    session.once = random_.chance(shape_.once_share);
    if (session.once) {
      session.turns_left = 1;
    } else {
      session.text = prompts_[pick_prompt()];
    }
    return session;
  }

  size_t pick_prompt() {
    double left = random_.uniform() * weight_;
    size_t rank = 0;
    while (rank + 1 < prompts_.size() && (left -= 1.0 / static_cast<double>(rank + 1)) > 0) {
      ++rank;
    }
    return rank;
  }

  PathRecord turn(Session& session) {
    const std::array<uint64_t, 2>& bounds = session.once ? shape_.once_tokens : shape_.input_tokens;
    grow(session.text, random_.between(bounds[0], bounds[1]));
    PathRecord record{session.time_ms, session.text.tokens, 0, session.text.full};
    if (session.text.tokens % options_.page_tokens != 0) {
      record.ids.push_back(next_id_++);
    }
    record.output_tokens = random_.between(shape_.output_tokens[0], shape_.output_tokens[1]);
    grow(session.text, record.output_tokens);
    return record;
  }

  GenerateOptions options_;
  const Shape& shape_;
  Random random_;
  std::vector<Text> prompts_;
  double weight_ = 0;
  uint64_t next_id_ = 0;
};

}  // namespace

const std::vector<std::string>& trace_kind_names() {
  static const std::vector<std::string> names(kNames.begin(), kNames.end());
  return names;
}

std::optional<TraceKind> trace_kind_from_name(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) {
      return static_cast<TraceKind>(i);
    }
  }
  return std::nullopt;
}

std::vector<PathRecord> generate_records(const GenerateOptions& options) { return Generator(options).run(); }

Trace generate_trace(const GenerateOptions& options, uint64_t page_bytes) {
  Trace trace;
  trace.name = std::string(kNames[static_cast<size_t>(options.kind)]) + ", seed " + std::to_string(options.seed);
  trace.page_tokens = options.page_tokens;
  TraceBuilder builder(trace);
  for (const PathRecord& record : generate_records(options)) {
    builder.add_path(record.time_ms, record.input_tokens, record.ids, page_bytes);
  }
  return trace;
}

}  // namespace kvant::tools
