// Foreign bytes become traces here; what does not fit is named with its line.
#include "replay_read.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>
#include <unordered_map>

namespace kvant::tools {

namespace {

using Json = nlohmann::json;

constexpr uint64_t kMostPages = uint64_t{1} << 31;  // of a trace, counting each use
constexpr uint64_t kMostTimeMs = uint64_t{1} << 53;
constexpr uint64_t kMostObjectBytes = uint64_t{1} << 48;
constexpr uint64_t kMostSum = uint64_t{1} << 62;  // of bytes and of tokens, counting each use: figures stay within 64 bits

Failure wrong(const std::string& name, size_t line, const std::string& what) {
  return bad_model(name + ":" + std::to_string(line) + ": " + what);
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && blank(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

std::string_view take_until(std::string_view& rest, char end) {
  const size_t at = std::min(rest.find(end), rest.size());
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(std::min(at + 1, rest.size()));
  return trim(part);
}

// As a message shows foreign text: not all of a long line.
std::string shown(std::string_view text) { return std::string(text.substr(0, 40)) + (text.size() > 40 ? "..." : ""); }

template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// A time in `unit_ms`, in milliseconds; false if it is not one.
bool time_of(double value, double unit_ms, uint64_t& time_ms) {
  const double ms = value * unit_ms;
  if (!(ms >= 0) || ms > static_cast<double>(kMostTimeMs)) {
    return false;
  }
  time_ms = static_cast<uint64_t>(std::llround(ms));
  return true;
}

// Adds `count` values; false beyond kMostSum.
bool add_to(uint64_t& sum, uint64_t count, uint64_t value) {
  if (value != 0 && count > (kMostSum - sum) / value) {
    return false;
  }
  sum += count * value;
  return true;
}

// A value that was to be a number. What holds others is not written out: it may be nested deeper than a stack.
std::string shown(const Json& value) { return value.is_structured() ? value.type_name() : shown(std::string_view(value.dump())); }

// Of a JSON object, a whole number that is not negative.
bool count_of(const Json& object, const char* key, uint64_t& value) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) {
    return false;
  }
  value = found->get<uint64_t>();
  return true;
}

}  // namespace

TraceFormat trace_format_of(const std::string& path) {
  return path.size() >= 4 && path.compare(path.size() - 4, 4, ".csv") == 0 ? TraceFormat::kCsv : TraceFormat::kMooncake;
}

Outcome<Trace> read_trace(const std::string& path, TraceFormat format, const ReadOptions& options) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    return bad_model(path + ": cannot be read, or is empty");
  }
  return format == TraceFormat::kCsv ? parse_csv(path, text.str()) : parse_mooncake(path, text.str(), options);
}

Outcome<Trace> parse_mooncake(const std::string& name, std::string_view text, const ReadOptions& options) {
  Trace trace;
  trace.name = name;
  trace.page_tokens = options.page_tokens;
  TraceBuilder builder(trace);
  uint64_t pages = 0, all_tokens = 0, all_bytes = 0;
  for (size_t line = 1; !text.empty(); ++line) {
    const std::string_view words = take_until(text, '\n');
    if (words.empty()) {
      continue;
    }
    const Json json = Json::parse(words.begin(), words.end(), nullptr, false);
    if (!json.is_object()) {
      return wrong(name, line, "'" + shown(words) + "' is not a JSON object");
    }
    const auto timestamp = json.find("timestamp");
    uint64_t time_ms = 0, tokens = 0;
    if (timestamp == json.end() || !timestamp->is_number() || !time_of(timestamp->get<double>(), 1, time_ms)) {
      return wrong(name, line, "timestamp is not a number of milliseconds from 0 to 2^53");
    }
    if (!count_of(json, "input_length", tokens)) {
      return wrong(name, line, "input_length is not a whole number of tokens");
    }
    const auto ids = json.find("hash_ids");
    if (ids == json.end() || !ids->is_array()) {
      return wrong(name, line, "hash_ids is not an array");
    }
    std::vector<uint64_t> path;
    path.reserve(ids->size());
    for (const Json& id : *ids) {
      if (!id.is_number_unsigned()) {
        return wrong(name, line, "hash_ids holds " + shown(id) + ", which is not a whole number");
      }
      path.push_back(id.get<uint64_t>());
    }
    pages += path.size();
    if (pages > kMostPages) {
      return wrong(name, line, "the trace has more than 2^31 pages");
    }
    if (!add_to(all_tokens, 1, tokens) || !add_to(all_bytes, path.size(), options.page_bytes)) {
      return wrong(name, line, "the trace has more than 2^62 tokens, or pages of more than 2^62 bytes, counting each use");
    }
    builder.add_path(time_ms, tokens, path, options.page_bytes);
  }
  if (trace.pages.empty()) {
    return bad_model(name + ": holds no request with pages");
  }
  return trace;
}

Outcome<Trace> parse_csv(const std::string& name, std::string_view text) {
  Trace trace;
  trace.name = name;
  TraceBuilder builder(trace);
  std::unordered_map<std::string, uint64_t> ids;
  std::vector<uint64_t> sizes;  // by number
  uint64_t all_bytes = 0;
  for (size_t line = 1; !text.empty(); ++line) {
    std::string_view rest = take_until(text, '\n');
    if (rest.empty() || rest.front() == '#') {
      continue;
    }
    const std::string_view time = take_until(rest, ','), id = take_until(rest, ','), size = take_until(rest, ',');
    double seconds = 0;
    uint64_t time_ms = 0, bytes = 0;
    const bool has_time = parse_number(time, seconds);
    if (!has_time && line == 1) {
      continue;  // the names of the columns
    }
    if (!has_time || !time_of(seconds, 1000, time_ms)) {
      return wrong(name, line, "time (" + shown(time) + ") is not a number of seconds");
    }
    if (id.empty()) {
      return wrong(name, line, "id is empty");
    }
    if (!parse_number(size, bytes) || bytes == 0 || bytes > kMostObjectBytes) {
      return wrong(name, line, "size (" + shown(size) + ") is not a number of bytes from 1 to 2^48");
    }
    if (trace.requests.size() >= kMostPages) {
      return wrong(name, line, "the trace has more than 2^31 requests");
    }
    // An object's first size stays, so that a later use may count more than is said here.
    const auto [place, is_new] = ids.try_emplace(std::string(id), ids.size());
    if (is_new) {
      sizes.push_back(bytes);
    }
    if (!add_to(all_bytes, 1, sizes[place->second])) {
      return wrong(name, line, "the trace's uses are of more than 2^62 bytes together");
    }
    builder.add_object(time_ms, place->second, bytes);
  }
  if (trace.requests.empty()) {
    return bad_model(name + ": holds no request");
  }
  return trace;
}

std::string mooncake_text(const std::vector<PathRecord>& records) {
  std::string text;
  for (const PathRecord& record : records) {
    nlohmann::ordered_json json;
    json["timestamp"] = record.time_ms;
    json["input_length"] = record.input_tokens;
    json["output_length"] = record.output_tokens;
    json["hash_ids"] = record.ids;
    text += json.dump() + "\n";
  }
  return text;
}

std::string csv_text(const std::vector<PathRecord>& records, uint64_t page_bytes) {
  std::ostringstream text;
  text << "time,id,size\n";
  for (const PathRecord& record : records) {
    for (const uint64_t id : record.ids) {
      text << record.time_ms / 1000 << "." << std::setfill('0') << std::setw(3) << record.time_ms % 1000 << "," << id
           << "," << page_bytes << "\n";
    }
  }
  return text.str();
}

Outcome<std::vector<uint64_t>> parse_capacities(const std::string& text, const Trace& trace) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  const double all = static_cast<double>(trace.distinct_bytes());
  const Unit units[] = {{"%", all / 100}, {"KiB", 0x1p10}, {"MiB", 0x1p20},
                        {"GiB", 0x1p30},  {"TiB", 0x1p40}, {"", all / static_cast<double>(trace.pages.size())}};
  std::vector<uint64_t> capacities;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view word = take_until(rest, ',');
    const Unit* unit = std::find_if(std::begin(units), std::end(units), [&](const Unit& one) {
      return word.size() >= one.name.size() && word.substr(word.size() - one.name.size()) == one.name;
    });
    double value = 0;
    const bool number = parse_number(trim(word.substr(0, word.size() - unit->name.size())), value);
    const double bytes = std::floor(value * unit->bytes);
    if (!number || !(bytes >= 1) || bytes > 0x1p62) {
      return Failure{
          "capacity (" + shown(word) + ") is not a positive number of pages, or one with %, KiB, MiB, GiB or TiB",
          Exit::kUsage};
    }
    capacities.push_back(static_cast<uint64_t>(bytes));
  }
  if (capacities.empty()) {
    return Failure{"capacity () is empty: a list as 1%,5%,20% is needed", Exit::kUsage};
  }
  std::sort(capacities.begin(), capacities.end());
  capacities.erase(std::unique(capacities.begin(), capacities.end()), capacities.end());
  return capacities;
}

}  // namespace kvant::tools
