// Logs of snapshots: what the reader takes and what it refuses, the differences of snapshots, and the views of a fixed log.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "stats_log.hpp"
#include "stats_report.hpp"
#include "stats_sample_json.hpp"
#include "stats_snapshot.hpp"
#include "stats_view.hpp"

namespace kvant::tools {
namespace {

const std::string kFolder = std::string(KVANT_SOURCE_DIR) + "/tests/stats/";

// A file that goes with its test.
struct LogFile {
  std::string path;
  explicit LogFile(const std::string& text) {
    static int number = 0;
    path = (std::filesystem::temp_directory_path() /
            ("kvant_stats_" + std::to_string(getpid()) + "_" + std::to_string(++number) + ".jsonl"))
               .string();
    set(text);
  }
  ~LogFile() { std::filesystem::remove(path); }
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;
  void set(const std::string& text) const { std::ofstream(path, std::ios::binary) << text; }
  void add(const std::string& text) const { std::ofstream(path, std::ios::binary | std::ios::app) << text; }
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream stream;
  stream << file.rdbuf();
  return stream.str();
}

std::vector<std::string> fixed_lines() {
  std::vector<std::string> lines;
  std::istringstream stream(text_of(kFolder + "cache.jsonl"));
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  REQUIRE(lines.size() == 4);
  return lines;
}

Snapshot parsed(const std::string& line) {
  auto snapshot = parse_snapshot(line);
  INFO((snapshot.ok() ? "" : snapshot.failure().message));
  REQUIRE(snapshot.ok());
  return *snapshot;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string failure_of(const std::string& line) {
  const auto snapshot = parse_snapshot(line);
  REQUIRE_FALSE(snapshot.ok());
  CHECK(snapshot.failure().exit == Exit::kBadModel);
  return snapshot.failure().message;
}

// The numbered lines of a read, or the failure.
std::string read_all(StatsLogReader& reader) {
  std::string all;
  const auto outcome = reader.read([&](const std::string& line, uint64_t number) -> Outcome<void> {
    all += std::to_string(number) + "=" + line + ";";
    return {};
  });
  return outcome.ok() ? all : outcome.failure().message;
}

TEST_CASE("stats log: lines count when they are whole, whoever writes on") {
  const LogFile file("one\ntw");
  auto reader = StatsLogReader::open(file.path);
  REQUIRE(reader.ok());
  CHECK(read_all(**reader) == "1=one;");
  CHECK((*reader)->half_line());
  CHECK(read_all(**reader) == "");
  file.add("o\n\n \r\nfive\n");
  CHECK(read_all(**reader) == "2=two;5=five;");
  CHECK_FALSE((*reader)->half_line());
  // Begun anew by its writer.
  file.set("anew\n");
  CHECK(read_all(**reader) == "1=anew;");
}

TEST_CASE("stats log: a line of the greatest length is taken, a longer one is refused before its end is there") {
  const LogFile file(std::string(kStatsLineBytes, 'x') + "\n");
  auto reader = StatsLogReader::open(file.path);
  REQUIRE(reader.ok());
  CHECK(read_all(**reader).size() == kStatsLineBytes + 3);
  file.add("short\n" + std::string(kStatsLineBytes + 1, 'y'));
  CHECK(read_all(**reader) == file.path + ":3: is longer than a line may be, 16777216 bytes");
}

TEST_CASE("stats log: no file, a folder") {
  const auto missing = StatsLogReader::open(kFolder + "missing.jsonl");
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.failure().message.find("missing.jsonl: cannot be read: ") != std::string::npos);
  CHECK(missing.failure().exit == Exit::kBadModel);
  CHECK_FALSE(StatsLogReader::open(kFolder).ok());
}

TEST_CASE("stats log: what is no snapshot is refused with its place") {
  const std::string line = fixed_lines()[3];
  CHECK(failure_of("garbage") == "is not JSON");
  CHECK(failure_of(line.substr(0, line.size() / 2)) == "is not JSON");
  CHECK(failure_of("[1]") == "is no JSON object");
  CHECK(failure_of("{}") == "time_ms is not there");
  CHECK(failure_of(replaced(line, "\"time_ms\":506000", "\"time_ms\":-1")) ==
        "time_ms (-1) is not a whole number, 0 or more");
  CHECK(failure_of(replaced(line, "\"stats\":{", "\"stats\":5,\"old\":{")) == "stats is not an object");
  CHECK(failure_of(replaced(line, "\"used_pages\":384", "\"used_pages\":1.5")) ==
        "stats.pool.used_pages (1.5) is not a whole number, 0 or more");
  CHECK(failure_of(replaced(line, "\"format_k\":\"f16\"", "\"format_k\":16")) ==
        "stats.layers[0].format_k (16) is not a text");
  CHECK(failure_of(replaced(line, "\"layer\":1,", "")) == "stats.layers[1].layer is not there");
  CHECK(failure_of(replaced(line, "[0.000512,95]", "[0.000512]")) ==
        "stats.latency.run.buckets is not an array of [bound in seconds or null, count]");
  CHECK(failure_of(replaced(line, "\"limit\":4", "\"limit\":null")) ==
        "stats.evictions.limit (null) is not a whole number, 0 or more");
  CHECK(failure_of(replaced(line, "\"enough\":true", "\"enough\":1")) ==
        "monitor.trends.hit_rate.enough (1) is not true or false");

  const LogFile file(fixed_lines()[0] + "\n{\"time_ms\":\n" + fixed_lines()[1] + "\n");
  const auto history = read_history(file.path);
  REQUIRE_FALSE(history.ok());
  CHECK(history.failure().message == file.path + ":2: is not JSON");
  file.set(line);
  CHECK(read_history(file.path).failure().message == file.path + ": has no snapshot, only half a line");
}

TEST_CASE("stats log: reads what the library's own statistics write") {
  const Snapshot snapshot = parsed("{\"time_ms\":7,\"unix_ms\":8,\"stats\":" + test::sample_stats_json() + ",\"monitor\":null}");
  CHECK(snapshot.time_ms == 7);
  CHECK(snapshot.unix_ms == 8);
  CHECK(snapshot.policy == "lru");
  CHECK(snapshot.pool.pool_bytes == 18446744073709551615u);
  CHECK(snapshot.pool.tail_waste_tokens == 77);
  CHECK(snapshot.lookups.hit_tokens == 7201);
  CHECK(snapshot.lookups.hits == 83);
  CHECK(snapshot.evictions ==
        std::vector<std::pair<std::string, uint64_t>>{{"capacity", 1930}, {"expired", 21}, {"cleared", 22}, {"limit", 23}});
  CHECK(snapshot.layers.size() == 3);
  CHECK(snapshot.layers[1].formats() == "q8_0/q4_0");
  CHECK(snapshot.sequences[1].id == 9007199254740993u);
  CHECK(snapshot.tiers[1].errors == 5);
  CHECK_FALSE(snapshot.errors.back().relative_mse.has_value());
  REQUIRE(snapshot.find_latency("run") != nullptr);
  CHECK(snapshot.find_latency("run")->count == 21);
  CHECK(snapshot.find_latency("walk") == nullptr);
  CHECK_FALSE(snapshot.monitored);
}

TEST_CASE("stats log: what lies between two snapshots") {
  const std::vector<std::string> lines = fixed_lines();
  const Snapshot before = parsed(lines[2]), after = parsed(lines[3]);
  const auto interval = interval_between(before, after);
  REQUIRE(interval.has_value());
  CHECK(interval->seconds == 2.0);
  CHECK(interval->lookups.queries_tokens == 2000);
  CHECK(interval->lookups.hit_tokens == 1600);
  CHECK(interval->evictions[0].second == 40);
  CHECK(interval->evictions[3].second == 4);
  const SnapshotLatency* const run = interval->find_latency("run");
  REQUIRE(run != nullptr);
  CHECK(run->count == 100);  // 95 below 512 us, 5 below 2048 us
  CHECK(run->p50_seconds == doctest::Approx(0.000512 / 1.0905077));
  CHECK(run->p99_seconds == doctest::Approx(0.002048 / 1.0905077));
  CHECK(interval->find_latency("lookup")->p50_seconds == doctest::Approx(1e-6));
  // The same moment, an earlier one, and a cache that was made anew.
  CHECK_FALSE(interval_between(after, after).has_value());
  CHECK_FALSE(interval_between(after, before).has_value());
  Snapshot anew = after;
  anew.time_ms += 1000;
  CHECK(interval_between(after, anew).has_value());
  anew.lookups.queries = 1;
  CHECK_FALSE(interval_between(after, anew).has_value());
}

TEST_CASE("stats log: of many events the single decisions stay") {
  EventPick pick(4);
  for (uint64_t i = 1; i <= 10; ++i) pick.add({i, 100 + i, i == 2 || i == 5 ? uint64_t{7} : uint64_t{0}, 0, 0, 0});
  std::string numbers;
  for (const SnapshotEvent& event : pick.events()) numbers += std::to_string(event.number) + " ";
  CHECK(numbers == "2 5 9 10 ");
  for (uint64_t i = 11; i <= 20; ++i) pick.add({i, 100 + i, 12, 0, 0, 0});
  CHECK(pick.events().size() == 4);
  CHECK(pick.events().front().number == 17);
}

TEST_CASE("stats views: a log cannot steer the terminal or the page") {
  const std::string line = replaced(fixed_lines()[3], "\"policy\":\"lru\"", "\"policy\":\"\\u001b[2J\\u009b<script>\\u0007\"");
  const Snapshot snapshot = parsed(line);
  CHECK(snapshot.policy == "?[2J?<script>?");
  const LogFile file(line + "\n");
  const auto history = read_history(file.path);
  REQUIRE(history.ok());
  CHECK(stats_html(*history).find("<script") == std::string::npos);
  CHECK(stats_screen("x", nullptr, snapshot, {}).find('\033') == std::string::npos);
}

TEST_CASE("stats views: the screen is cut to the terminal") {
  CHECK(cut_to_width("→ größer", 4) == "→ gr");
  CHECK(cut_to_width("\033[1mab\033[0mcd", 3) == "\033[1mab\033[0mc");
  CHECK(cut_to_width("\033[31mabcd\033[0m", 2) == "\033[31mab\033[0m");
  const Snapshot snapshot = parsed(fixed_lines()[3]);
  ScreenOptions options;
  options.width = 60;
  options.height = 9;
  options.colour = true;
  options.unix_ms = snapshot.unix_ms + 1500;
  const std::string screen = stats_screen("x", nullptr, snapshot, options);
  std::istringstream stream(screen);
  int count = 0;
  for (std::string line; std::getline(stream, line); ++count) CHECK(cut_to_width(line, 60) == line);
  CHECK(count == 9);
  CHECK(screen.find("1.50 s ago") != std::string::npos);
  CHECK(screen.find("more lines: enlarge the window") != std::string::npos);
}

TEST_CASE("stats views: an empty cache divides by nothing") {
  Snapshot empty;
  const std::string screen = stats_screen("x", nullptr, empty, {});
  CHECK(screen.find("cache       no prefix cache, 0 tokens") != std::string::npos);
  CHECK(screen.find("nan") == std::string::npos);
  CHECK(screen.find("- (no lookup)") != std::string::npos);
  StatsHistory history;
  history.snapshots = {empty};
  history.lines = 1;
  CHECK(stats_html(history).find("nan") == std::string::npos);
  CHECK(stats_html(history).find("0 layers, no prefix cache.") != std::string::npos);
}

TEST_CASE("stats views: the page of the fixed log") {
  const auto history = read_history(kFolder + "cache.jsonl");
  REQUIRE(history.ok());
  CHECK(history->lines == 4);
  CHECK(history->snapshots.size() == 4);
  CHECK(history->event_count == 4);
  CHECK(history->events_left_out == 87);
  const std::string page = stats_html(*history);
  const auto has = [&](const std::string& part) {
    INFO(part);
    CHECK(page.find(part) != std::string::npos);
  };
  has("4 snapshots, 2026-01-01 00:00:00 UTC to 2026-01-01 00:00:06 UTC (6.00 s)");
  has("<td class=\"n\">6600</td><td class=\"n\">12000 tokens asked for</td><td class=\"n\">55.0 %</td>");
  has("<td>pages evicted: capacity</td><td class=\"n\">70</td><td class=\"n\">80 evicted</td><td class=\"n\">87.5 %</td>");
  has("<td class=\"n\">2-29</td><td>q8_0/q4_0</td>");
  has("<td>disk</td><td class=\"n\">90</td><td class=\"n\">9</td><td class=\"n\">10.0 %</td>");
  has("<title>of the interval: 6.000, 80.00</title>");
  has("<title>since the beginning: 6.000, 55.00</title>");
  has("<title>used: 2.000, 200.0</title>");
  has("<title>f16: 6.000, 48.00</title>");
  has("<title>capacity: 6.000, 20.00</title>");
  has("<title>p99: 6.000, 1.878</title>");
  has("<title>disk: 4.000, 6.000</title>");
  has("tier_corrupt: 1 of 90 entries");
  has("<td>↘</td><td>degrading</td><td>Used share of the pool is degrading: 8 % to 75 %");
  has("4 of 91 events");
  has("<td>page_evicted</td><td class=\"n\">12345678901234567890</td><td class=\"n\">3</td>");
  for (const char* outside : {"http://", "https://", "<link", "<script", " src="}) {
    INFO(outside);
    CHECK(page.find(outside) == std::string::npos);
  }
}

TEST_CASE("stats views: of a long log some snapshots are kept, the first and the last among them") {
  const std::string line = fixed_lines()[0];
  std::string text;
  constexpr uint64_t kLines = 2500;
  for (uint64_t i = 0; i < kLines; ++i) {
    text += replaced(line, "\"time_ms\":500000", "\"time_ms\":" + std::to_string(500000 + i)) + "\n";
  }
  const LogFile file(text);
  const auto history = read_history(file.path);
  REQUIRE(history.ok());
  CHECK(history->lines == kLines);
  CHECK(history->snapshots.size() < kKeptSnapshots);
  CHECK(history->snapshots.size() > kKeptSnapshots / 4);
  CHECK(history->snapshots.front().time_ms == 500000);
  CHECK(history->snapshots.back().time_ms == 500000 + kLines - 1);
  CHECK(history->snapshots.back().sequences.size() == 2);
  const uint64_t step = history->snapshots[1].time_ms - history->snapshots[0].time_ms;
  for (size_t i = 1; i + 1 < history->snapshots.size(); ++i)
    CHECK(history->snapshots[i].time_ms - history->snapshots[i - 1].time_ms == step);
}

}  // namespace
}  // namespace kvant::tools
