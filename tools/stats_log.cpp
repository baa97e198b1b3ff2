// The monitor's samples are left out of the lines: the log itself is the history that they are made of.
#include "stats_log.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "stats_snapshot.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kEventsOfPoll = 1024;
// More between two lines are counted only.
constexpr size_t kEventsOfLine = 64;

template <typename Clock>
uint64_t milliseconds() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count());
}

std::string reason() { return std::strerror(errno); }

// A writer that died may have left half a line behind, which must not become the beginning of the next one: it is cut
// off. What does not begin like a line of ours is somebody else's, and is left alone.
Outcome<void> cut_half_line(std::FILE* file, const std::string& path) {
  static constexpr std::string_view kBegin = "{\"time_ms\":";
  std::fseek(file, 0, SEEK_END);
  const long size = std::ftell(file);
  long begin = size;  // of the last line
  std::array<char, 4096> block;
  for (bool found = false; !found && begin > 0;) {
    const long from = std::max(0L, begin - static_cast<long>(block.size()));
    const auto count = static_cast<size_t>(begin - from);
    std::fseek(file, from, SEEK_SET);
    if (std::fread(block.data(), 1, count, file) != count) {
      return Failure{path + ": cannot be read: " + reason()};
    }
    const size_t newline = std::string_view(block.data(), count).rfind('\n');
    found = newline != std::string_view::npos;
    begin = from + (found ? static_cast<long>(newline) + 1 : 0);
  }
  if (begin == size) {
    return {};
  }
  std::fseek(file, begin, SEEK_SET);
  const std::string_view start(block.data(), std::fread(block.data(), 1, kBegin.size(), file));
  if (start != kBegin.substr(0, start.size())) {
    return Failure{path + ": is not a log of snapshots, nothing is appended to it"};
  }
  return ftruncate(fileno(file), begin) == 0 ? Outcome<void>() : Failure{path + ": cannot be written: " + reason()};
}

}  // namespace

Outcome<std::unique_ptr<StatsLogWriter>> StatsLogWriter::open(std::shared_ptr<Library> library,
                                                              const std::string& path) {
  std::unique_ptr<StatsLogWriter> writer(new StatsLogWriter);
  writer->manager_ =
      static_cast<const kvant_ext_manager*>(library->api().get_extension(library->context(), KVANT_EXT_MANAGER));
  if (writer->manager_ == nullptr) {
    return Failure{library->path() + " does not have the extension " + KVANT_EXT_MANAGER, Exit::kNoLibrary};
  }
  writer->library_ = std::move(library);
  writer->path_ = path;
  writer->file_ = std::fopen(path.c_str(), "a+b");
  if (writer->file_ == nullptr) {
    return Failure{path + ": cannot be written: " + reason(), Exit::kFailed};
  }
  KVANT_TRY(cut_half_line(writer->file_, path));
  return writer;
}

StatsLogWriter::~StatsLogWriter() {
  if (file_ != nullptr) {
    std::fclose(file_);
  }
}

Outcome<std::string> StatsLogWriter::text(kvant_cache* cache, uint32_t kind) const {
  const char* text = nullptr;
  uint64_t size = 0;
  KVANT_TRY(library_->check(manager_->stats_text(cache, kind, nullptr, &text, &size)));
  return std::string(text, size);
}

Outcome<std::string> StatsLogWriter::events(kvant_cache* cache) {
  std::vector<kvant_event> events(kEventsOfPoll);
  for (kvant_event& event : events) {
    event.struct_size = sizeof(event);
  }
  EventPick pick(kEventsOfLine);
  uint64_t lost = 0, seen = 0;
  for (uint32_t count = kEventsOfPoll; count == kEventsOfPoll;) {
    uint64_t lost_now = 0;
    KVANT_TRY(
        library_->check(manager_->events_poll(cache, last_event_, kEventsOfPoll, events.data(), &count, &lost_now)));
    for (uint32_t i = 0; i < count; ++i) {
      const kvant_event& event = events[i];
      pick.add({event.number, event.time_ms, event.kind, event.a, event.b, event.sequence});
      last_event_ = event.number;
    }
    seen += count;
    lost += lost_now;
  }
  Json list = Json::array();
  for (const SnapshotEvent& event : pick.events()) {
    list.push_back({{"number", event.number},
                    {"time_ms", event.time_ms},
                    {"kind", event.kind},
                    {"a", event.a},
                    {"b", event.b},
                    {"sequence", event.sequence}});
  }
  const uint64_t left_out = lost + seen - list.size();
  return "\"events\":" + list.dump() + ",\"events_left_out\":" + std::to_string(left_out);
}

Outcome<void> StatsLogWriter::write(kvant_cache* cache) {
  KVANT_TRY(library_->check(manager_->stats_observe(cache)));
  const auto stats = text(cache, KVANT_STATS_JSON);
  if (!stats.ok()) {
    return stats.failure();
  }
  const auto monitor_text = text(cache, KVANT_STATS_MONITOR);
  if (!monitor_text.ok()) {
    return monitor_text.failure();
  }
  const auto event_text = events(cache);
  if (!event_text.ok()) {
    return event_text.failure();
  }
  Json monitor = Json::parse(*monitor_text, nullptr, false);
  if (monitor.is_object()) {
    monitor.erase("samples");
  }
  const std::string line = "{\"time_ms\":" + std::to_string(milliseconds<std::chrono::steady_clock>()) +
                           ",\"unix_ms\":" + std::to_string(milliseconds<std::chrono::system_clock>()) +
                           ",\"stats\":" + *stats + ",\"monitor\":" + (monitor.is_object() ? monitor.dump() : "null") +
                           "," + *event_text + "}\n";
  if (line.size() > kStatsLineBytes) {
    return Failure{path_ + ": a snapshot of " + std::to_string(line.size()) + " bytes is longer than a line may be, " +
                   std::to_string(kStatsLineBytes) + " bytes"};
  }
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0) {
    return Failure{path_ + ": cannot be written: " + reason()};
  }
  ++lines_;
  return {};
}

Outcome<std::unique_ptr<StatsLogReader>> StatsLogReader::open(const std::string& path) {
  std::unique_ptr<StatsLogReader> reader(new StatsLogReader);
  reader->path_ = path;
  reader->file_ = std::fopen(path.c_str(), "rb");
  if (reader->file_ == nullptr) {
    return bad_model(path + ": cannot be read: " + reason());
  }
  struct stat facts {};
  if (fstat(fileno(reader->file_), &facts) != 0 || S_ISDIR(facts.st_mode)) {
    return bad_model(path + ": is a directory, not a log of snapshots");
  }
  return reader;
}

StatsLogReader::~StatsLogReader() {
  if (file_ != nullptr) {
    std::fclose(file_);
  }
}

Failure StatsLogReader::at(uint64_t number, const Failure& failure) const {
  return {path_ + ":" + std::to_string(number) + ": " + failure.message, failure.exit};
}

Outcome<void> StatsLogReader::read(const Take& take) {
  struct stat facts {};
  if (fstat(fileno(file_), &facts) == 0 && S_ISREG(facts.st_mode) && static_cast<uint64_t>(facts.st_size) < offset_) {
    std::rewind(file_);
    offset_ = number_ = 0;
    pending_.clear();
  }
  std::clearerr(file_);  // the end of the file may have moved on
  std::array<char, 65536> buffer;
  for (size_t size = 0; (size = std::fread(buffer.data(), 1, buffer.size(), file_)) > 0;) {
    offset_ += size;
    const char* from = buffer.data();
    const char* const end = from + size;
    while (from < end) {
      const char* const newline = static_cast<const char*>(std::memchr(from, '\n', static_cast<size_t>(end - from)));
      pending_.append(from, newline != nullptr ? newline : end);
      if (pending_.size() > kStatsLineBytes) {
        return at(number_ + 1,
                  bad_model("is longer than a line may be, " + std::to_string(kStatsLineBytes) + " bytes"));
      }
      if (newline == nullptr) {
        break;
      }
      from = newline + 1;
      ++number_;
      const bool empty = pending_.find_first_not_of(" \t\r") == std::string::npos;
      const Outcome<void> taken = empty ? Outcome<void>() : take(pending_, number_);
      pending_.clear();
      if (!taken.ok()) {
        return at(number_, taken.failure());
      }
    }
  }
  if (std::ferror(file_) != 0) {
    return bad_model(path_ + ": cannot be read: " + reason());
  }
  return {};
}

}  // namespace kvant::tools
