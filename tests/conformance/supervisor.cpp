#include "supervisor.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <span>

#include "cases.hpp"
#include "expectations.hpp"

namespace kvant::conformance {

namespace {

using Clock = std::chrono::steady_clock;

Result<std::vector<Expectation>> expectations_for(const RunOptions& options, const Session& session) {
  if (options.expectations.empty() || session.driver_name().empty()) return std::vector<Expectation>{};
  return load_expectations(options.expectations, session.driver_name(), session.driver_info(), [](std::string_view pattern) {
    return std::any_of(all_cases().begin(), all_cases().end(), [&](const Case& c) { return matches(pattern, c.name); });
  });
}

std::string error_line(const Status& status) {
  return "error " + std::to_string(static_cast<std::uint32_t>(status.code())) + " " + status.message();
}

bool write_line(int fd, const std::string& line) {
  const std::string text = line + '\n';
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

// A worker's life: lines "header ...", "error CODE ...", "start INDEX", "messages COUNT" (of the validation layer, those not
// yet told), "done INDEX JSON", "end", which may come before all is done: another worker takes the rest. Leaves without destructors or exit handlers of the parent's image.
[[noreturn]] void worker(int fd, const std::vector<const Case*>& cases, const std::vector<std::size_t>& todo,
                         const RunOptions& options) {
  auto session = Session::open(options.session);
  if (!session.ok()) {
    write_line(fd, error_line(session.status()));
    ::_exit(0);
  }
  const auto expectations = expectations_for(options, *session.value());
  if (!expectations.ok()) {
    write_line(fd, error_line(expectations.status()));
    ::_exit(0);
  }
  write_line(fd, "header " + session.value()->header_json(options.seed, options.shard, cases.size()));
  std::uint64_t told = 0;
  const auto tell_messages = [&] {
    const std::uint64_t now = session.value()->validation_messages();
    if (now != told) write_line(fd, "messages " + std::to_string(now - told));
    told = now;
  };
  for (const std::size_t index : std::span(todo).first(std::min(todo.size(), options.worker_cases))) {
    write_line(fd, "start " + std::to_string(index));
    CaseResult result = session.value()->run(*cases[index], options.seed);
    const bool lost = result.status == CaseStatus::device_lost;
    apply_expectations(expectations.value(), result);
    tell_messages();
    write_line(fd, "done " + std::to_string(index) + " " + to_json_line(result));
    if (lost) ::_exit(0);  // the next worker opens the device anew
  }
  const std::uint64_t closing = session.value()->close();  // a driver that crashes while it closes is a failure too
  if (closing != told) write_line(fd, "messages " + std::to_string(closing - told));
  write_line(fd, "end");
  ::_exit(0);
}

struct Worker {
  pid_t pid = -1;
  int fd = -1;
  std::string pending;                  // bytes of an unfinished line
  std::vector<std::size_t> todo;        // not yet reported, in order
  std::optional<std::size_t> current;
  Clock::time_point since;
  bool killed = false, ended = false;
};

bool start(Worker& w, const std::vector<const Case*>& cases, const RunOptions& options, const std::vector<Worker>& all) {
  int ends[2];
  if (::pipe(ends) != 0) return false;
  const pid_t pid = ::fork();
  if (pid < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return false;
  }
  if (pid == 0) {
    ::close(ends[0]);
    for (const Worker& other : all)
      if (other.fd >= 0) ::close(other.fd);
    worker(ends[1], cases, w.todo, options);
  }
  ::close(ends[1]);
  w.pid = pid;
  w.fd = ends[0];
  w.pending.clear();
  w.current.reset();
  w.killed = w.ended = false;
  w.since = Clock::now();
  return true;
}

}  // namespace

std::size_t RunSummary::count(CaseStatus status) const {
  return static_cast<std::size_t>(
      std::count_if(results.begin(), results.end(), [&](const CaseResult& r) { return r.status == status; }));
}

std::size_t RunSummary::executed() const {
  return results.size() - count(CaseStatus::not_supported) - count(CaseStatus::waived);
}

bool RunSummary::good() const {
  return error.empty() && executed() > 0 && validation_messages == 0 &&
         std::none_of(results.begin(), results.end(), [](const CaseResult& r) { return is_bad(r.status); });
}

RunSummary run_cases(const std::vector<const Case*>& cases, const RunOptions& options, const RunListener& listener) {
  RunSummary summary;
  const auto begin = Clock::now();
  std::vector<std::optional<CaseResult>> results(cases.size());
  std::size_t done = 0;
  bool stopping = false;
  const auto report = [&](std::size_t index, CaseResult result) {
    stopping = stopping || (options.fail_fast && is_bad(result.status));
    listener.result(result, ++done);
    results[index] = std::move(result);
  };
  summary.validation_messages = options.earlier.messages;
  std::vector<Worker> workers(std::clamp<std::size_t>(options.jobs, 1, std::max<std::size_t>(cases.size(), 1)));
  std::size_t next = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto earlier = options.earlier.results.find(cases[i]->name);
    if (earlier == options.earlier.results.end()) {
      workers[next++ % workers.size()].todo.push_back(i);
      continue;
    }
    results[i] = earlier->second;
    ++done;
    ++summary.kept;
  }

  const auto handle = [&](Worker& w, const std::string& line) {
    if (line.starts_with("error ")) {
      const std::size_t space = line.find(' ', 6);
      summary.error_code = static_cast<StatusCode>(std::stoul(line.substr(6)));
      summary.error = line.substr(space + 1);
      w.todo.clear();
    } else if (line.starts_with("header ")) {
      if (!summary.header.empty()) return;
      summary.header = line.substr(7);
      if (!options.earlier.header.empty()) summary.error = difference(options.earlier.header, summary.header);
      if (!summary.error.empty()) summary.error_code = StatusCode::invalid_argument;
      if (summary.error.empty())
        listener.header(summary.header);
      else
        stopping = true;
    } else if (line.starts_with("start ")) {
      w.current = static_cast<std::size_t>(std::stoull(line.substr(6)));
      w.since = Clock::now();
    } else if (line.starts_with("done ")) {
      const std::size_t space = line.find(' ', 5);
      CaseResult result;
      if (w.current && space != std::string::npos && from_json_line(line.substr(space + 1), &result)) {
        report(*w.current, std::move(result));
        w.todo.erase(w.todo.begin());
      }
      w.current.reset();
      w.since = Clock::now();
    } else if (line.starts_with("messages ")) {
      const std::uint64_t count = std::stoull(line.substr(9));
      summary.validation_messages += count;
      listener.messages(count);
    } else if (line == "end") {
      w.ended = true;
    }
  };
  const auto launch = [&](Worker& w) {
    ++summary.workers;
    if (!start(w, cases, options, workers)) summary.error = "cannot start a worker process";
  };
  // A worker has closed its pipe: finished, crashed, or killed for taking too long.
  const auto bury = [&](Worker& w) {
    ::close(w.fd);
    w.fd = -1;
    int status = 0;
    ::waitpid(w.pid, &status, 0);
    const bool crashed = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
    if (w.current || (crashed && !w.ended && !w.todo.empty())) {
      const std::size_t index = w.current ? *w.current : w.todo.front();
      CaseResult result;
      result.name = cases[index]->name;
      result.status = w.killed ? CaseStatus::timeout : CaseStatus::crash;
      result.message = w.killed ? "no result within " + std::to_string(options.timeout_seconds) + " s"
                                : WIFSIGNALED(status) ? "the process died of signal " + std::to_string(WTERMSIG(status))
                                                      : "the process left with status " + std::to_string(WEXITSTATUS(status));
      if (!w.current) result.message += " while opening the device";
      report(index, std::move(result));
      w.todo.erase(std::find(w.todo.begin(), w.todo.end(), index));
    } else if (crashed && !stopping && summary.error.empty()) {
      summary.error = "a worker crashed while it closed the device";
    }
    if (!w.todo.empty() && summary.error.empty()) launch(w);
  };

  // One opens the device even with nothing to do: it says whether the earlier results are this device's.
  for (Worker& w : workers)
    if (!w.todo.empty() || &w == &workers.front()) launch(w);
  for (;;) {
    std::vector<pollfd> fds;
    std::vector<Worker*> owners;
    for (Worker& w : workers)
      if (w.fd >= 0) {
        fds.push_back({w.fd, POLLIN, 0});
        owners.push_back(&w);
      }
    if (fds.empty()) break;
    ::poll(fds.data(), fds.size(), 500);
    for (std::size_t i = 0; i < fds.size(); ++i) {
      Worker& w = *owners[i];
      if ((fds[i].revents & (POLLIN | POLLHUP)) != 0) {
        char chunk[8192];
        const ssize_t n = ::read(w.fd, chunk, sizeof(chunk));
        if (n > 0) {
          w.pending.append(chunk, static_cast<std::size_t>(n));
          for (std::size_t end; (end = w.pending.find('\n')) != std::string::npos;) {
            const std::string line = w.pending.substr(0, end);
            w.pending.erase(0, end + 1);
            handle(w, line);
          }
        } else if (n == 0 || errno != EINTR) {
          bury(w);
          continue;
        }
      }
      if (stopping && !w.ended) {
        w.todo.clear();
        w.current.reset();
        w.ended = true;
        ::kill(w.pid, SIGKILL);
      }
      if (!w.killed && Clock::now() - w.since > std::chrono::seconds(options.timeout_seconds)) {
        w.killed = true;
        ::kill(w.pid, SIGKILL);
      }
    }
  }
  for (auto& result : results)
    if (result) summary.results.push_back(std::move(*result));
  summary.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return summary;
}

RunSummary run_cases_in_process(const std::vector<const Case*>& cases, const RunOptions& options,
                                const RunListener& listener) {
  RunSummary summary;
  const auto begin = Clock::now();
  auto session = Session::open(options.session);
  if (!session.ok()) {
    summary.error = session.status().message();
    summary.error_code = session.status().code();
    return summary;
  }
  const auto expectations = expectations_for(options, *session.value());
  if (!expectations.ok()) {
    summary.error = expectations.status().message();
    summary.error_code = expectations.status().code();
    return summary;
  }
  summary.header = session.value()->header_json(options.seed, options.shard, cases.size());
  listener.header(summary.header);
  for (const Case* c : cases) {
    CaseResult result = session.value()->run(*c, options.seed);
    apply_expectations(expectations.value(), result);
    listener.result(result, summary.results.size() + 1);
    summary.results.push_back(std::move(result));
    if (options.fail_fast && is_bad(summary.results.back().status)) break;
  }
  summary.validation_messages = session.value()->close();
  summary.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return summary;
}

}  // namespace kvant::conformance
