// A host that ends without destroying anything, in every way a process can end, with work open or under way on other threads: its
// exit code is its own, and nothing crashes or waits for ever.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string_view>

#include "library.hpp"

extern char** environ;

using namespace abi_test;

namespace {

struct Ended {
  int code = -1, signal = 0;
  bool hung = false;
  std::string output;  // of both streams
};

Ended run_host(const std::vector<std::string>& words, bool validation = true) {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (validation || !std::string_view(*entry).starts_with("KVANT_VALIDATION=")) environment.push_back(*entry);
  environment.push_back(nullptr);
  pid_t child = 0;
  REQUIRE(posix_spawn(&child, words[0].c_str(), &actions, nullptr, arguments.data(), environment.data()) == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);

  Ended ended;
  constexpr int kPatience = 120'000;  // milliseconds without a word; only a hang takes so long
  char bytes[4096];
  for (pollfd poll_for{ends[0], POLLIN, 0};;) {
    if (poll(&poll_for, 1, kPatience) == 0) {
      ended.hung = true;
      kill(child, SIGKILL);
    }
    const ssize_t got = read(ends[0], bytes, sizeof bytes);
    if (got <= 0) break;
    ended.output.append(bytes, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  return ended;
}

void check_exit(const std::string& work, const std::string& way, bool validation = true) {
  CAPTURE(work);
  CAPTURE(way);
  const Ended ended = run_host({KVANT_EXIT_HOST, library_path(), work, way}, validation);
  CAPTURE(ended.output);
  CHECK_FALSE(ended.hung);
  CHECK(ended.signal == 0);
  CHECK(ended.code == 37);
  CHECK(ended.output == "at work\n");
}

bool devices_there() {
  const Ended ended = run_host({KVANT_EXIT_HOST, library_path(), "context", "_exit"});
  if (ended.code != 77) return true;
  Session({.open_device = false}).has_device();
  return false;
}

}  // namespace

TEST_CASE("exit: nothing is destroyed, and the exit code is the host's") {
  if (!devices_there()) return;
  for (const char* way : {"return", "exit", "_exit", "quick_exit"}) check_exit("step", way);
  check_exit("context", "return");
}

TEST_CASE("exit: while the cache's thread stores to a tier or prefetches from one") {
  if (!devices_there()) return;
  for (const char* way : {"return", "exit", "_exit"}) check_exit("prefetch", way);
  check_exit("store", "return");
}

TEST_CASE("exit: while another thread is inside of a call") {
  if (!devices_there()) return;
  // Without the validation layer: it destroys its own tables at exit, whoever is inside of them.
  for (const char* work : {"compile", "convert"})
    for (const char* way : {"exit", "_exit"}) check_exit(work, way, false);
}

TEST_CASE("exit: a host that does not end well is seen") {
  CHECK(run_host({KVANT_EXIT_HOST}).code == 1);
  CHECK(run_host({KVANT_EXIT_HOST, "/no/such/library", "context", "exit"}).code == 3);
  if (!devices_there()) return;
  CHECK(run_host({KVANT_EXIT_HOST, library_path(), "context", "no such way"}).code == 7);
  const Ended killed = run_host({"/bin/sh", "-c", "kill -SEGV $$"});
  CHECK(killed.signal == SIGSEGV);
}
