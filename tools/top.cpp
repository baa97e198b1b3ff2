// kvant top: a running cache in the terminal, from the log that its engine writes.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <thread>

#include "clock.hpp"
#include "commands.hpp"
#include "stats_demo.hpp"
#include "stats_log.hpp"
#include "stats_view.hpp"

namespace kvant::tools {

namespace {

struct TopOptions {
  HostOptions host;
  std::string log;
  uint32_t interval_ms = 1000;
  double seconds = 0;
  uint32_t seed = 1;
  bool once = false;
  bool demo = false;
};

constexpr double kDemoSeconds = 10;
constexpr size_t kDefaultWidth = 120;

uint64_t unix_milliseconds() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}

// The two latest snapshots of a log.
class Latest {
 public:
  explicit Latest(StatsLogReader& reader) : reader_(reader) {}

  // Reads on. Only the lines that are shown are looked at: a log may be long.
  Outcome<void> read() {
    bool came = false;
    KVANT_TRY(reader_.read([&](const std::string& line, uint64_t number) -> Outcome<void> {
      lines_.push_back({line, number});
      if (lines_.size() > 2) {
        lines_.pop_front();
      }
      came = true;
      return {};
    }));
    if (!came) {
      return {};
    }
    snapshots_.clear();
    for (const auto& [line, number] : lines_) {
      auto snapshot = parse_snapshot(line);
      if (!snapshot.ok()) {
        return reader_.at(number, snapshot.failure());
      }
      snapshots_.push_back(std::move(*snapshot));
    }
    return {};
  }
  bool any() const { return !snapshots_.empty(); }
  std::string screen(const std::string& source, const ScreenOptions& options) const {
    return stats_screen(source, snapshots_.size() > 1 ? &snapshots_.front() : nullptr, snapshots_.back(), options);
  }

 private:
  StatsLogReader& reader_;
  std::deque<std::pair<std::string, uint64_t>> lines_;
  std::vector<Snapshot> snapshots_;
};

ScreenOptions live_options() {
  ScreenOptions options;
  options.colour = true;
  options.unix_ms = unix_milliseconds();
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    options.width = size.ws_col;
    // The line below the last one is the cursor's.
    options.height = size.ws_row > 1 ? size.ws_row - 1u : 1u;
  }
  return options;
}

// From the upper left corner over what was there: nothing flickers, and nothing has to be put back at the end.
void draw(const std::string& screen, bool first) {
  std::string out = first ? "\033[2J\033[H" : "\033[H";
  for (const char c : screen) {
    out += c == '\n' ? "\033[K\n" : std::string(1, c);
  }
  out += "\033[J";
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

Outcome<void> print_once(const TopOptions& options) {
  auto reader = StatsLogReader::open(options.log);
  if (!reader.ok()) {
    return reader.failure();
  }
  Latest latest(**reader);
  KVANT_TRY(latest.read());
  if (!latest.any()) {
    return bad_model(options.log + ": has no snapshot" + ((*reader)->half_line() ? ", only half a line" : ""));
  }
  ScreenOptions screen;
  screen.width = kDefaultWidth;
  std::fputs(latest.screen(options.log, screen).c_str(), stdout);
  return {};
}

// The software device where there is one, unless another is asked for: watching must not take a GPU from its work.
Outcome<std::shared_ptr<Device>> open_demo_device(const HostOptions& options) {
  auto library = Library::open(options.library);
  if (!library.ok()) {
    return library.failure();
  }
  DeviceOptions device = options.device;
  const auto count = (*library)->device_count();
  for (uint32_t index = 0; device.index < 0 && count.ok() && index < *count; ++index) {
    const auto facts = (*library)->device_info(index);
    if (facts.ok() && facts->usable && facts->type == KVANT_DEVICE_CPU) {
      device.index = static_cast<int>(index);
    }
  }
  return Device::open(*library, device);
}

// A workload of this process, if there is one, and its log.
struct Demo {
  std::shared_ptr<Device> device;
  std::unique_ptr<StatsDemo> workload;
  std::unique_ptr<StatsLogWriter> writer;

  Outcome<void> open(const TopOptions& options) {
    auto opened = open_demo_device(options.host);
    if (!opened.ok()) {
      return opened.failure();
    }
    device = *opened;
    auto made = StatsDemo::open(device, options.seed);
    if (!made.ok()) {
      return made.failure();
    }
    workload = std::move(*made);
    auto log = StatsLogWriter::open(device->library(), options.log);
    if (!log.ok()) {
      return log.failure();
    }
    writer = std::move(*log);
    // Pipelines are compiled by the first turn: the clock of the demo begins behind it.
    KVANT_TRY(workload->turn());
    return writer->write(workload->cache());
  }
  Outcome<void> work_for(double seconds) {
    const Stopwatch watch;
    do {
      KVANT_TRY(workload->turn());
    } while (watch.seconds() < seconds);
    return writer->write(workload->cache());
  }
};

Outcome<void> run(const TopOptions& options) {
  const bool live = isatty(STDOUT_FILENO) != 0 && !options.once;
  if (!options.demo && !live) {
    return print_once(options);
  }
  Demo demo;
  if (options.demo) {
    KVANT_TRY(demo.open(options));
  }
  const double limit = options.demo && options.seconds == 0 ? kDemoSeconds : options.seconds;
  const std::string source = options.log + (options.demo ? ", demo on " + demo.device->facts().name : "");
  std::unique_ptr<StatsLogReader> reader;
  std::unique_ptr<Latest> latest;
  const double interval = options.interval_ms / 1000.0;
  const Stopwatch watch;
  // Less than half an interval at the end would make a last figure of next to nothing.
  for (bool first = true; limit == 0 || first || limit - watch.seconds() > interval / 2; first = false) {
    if (live) {
      // The engine may make the file later.
      if (reader == nullptr && (first || access(options.log.c_str(), F_OK) == 0)) {
        if (auto opened = StatsLogReader::open(options.log); opened.ok()) {
          reader = std::move(*opened);
          latest = std::make_unique<Latest>(*reader);
        } else if (access(options.log.c_str(), F_OK) == 0) {
          return opened.failure();
        }
      }
      if (latest != nullptr) {
        KVANT_TRY(latest->read());
      }
      const bool any = latest != nullptr && latest->any();
      draw(any ? latest->screen(source, live_options()) : "kvant top: waiting for a snapshot in " + options.log + "\n",
           first);
    }
    const double pause = limit == 0 ? interval : std::clamp(limit - watch.seconds(), 0.0, interval);
    if (options.demo) {
      KVANT_TRY(demo.work_for(pause));
    } else {
      std::this_thread::sleep_for(std::chrono::duration<double>(pause));
    }
  }
  return options.demo && !live ? print_once(options) : Outcome<void>();
}

}  // namespace

void add_top_command(CLI::App& app) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* command =
      app.add_subcommand("top", "a running cache in the terminal, from the snapshots that its engine writes to a log");
  command->add_option("log", options->log, "JSON Lines that an engine appends to (docs/monitoring.md)")->required();
  command->add_option("--interval", options->interval_ms, "milliseconds between two looks at the log")
      ->check(at_least(50))
      ->capture_default_str();
  command->add_flag("--once", options->once, "print the latest snapshot and end, as where the output is no terminal");
  command->add_option("--seconds", options->seconds, "end after so many (0: never; with --demo: after 10)")
      ->check(CLI::Range(0.0, 86400.0));
  command->add_flag(
      "--demo", options->demo,
      "run a workload of conversations in this process, appending to the log (on a CPU driver if there is one)");
  command->add_option("--seed", options->seed, "of --demo")->capture_default_str();
  add_host_options(*command, options->host);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
