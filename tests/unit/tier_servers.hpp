// Real memcached servers on free ports of this machine, for tests: started, stopped, hung, killed and reaped.
#pragma once

#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tier.hpp"

namespace kvant::test {

inline const char* memcached_program() {
  for (const char* path : {"/usr/bin/memcached", "/usr/local/bin/memcached"})
    if (::access(path, X_OK) == 0) return path;
  return nullptr;
}

// False, and said in the test's output, where this machine has no memcached or no libmemcached.
inline bool have_memcached() {
  if (memcached_program() == nullptr) {
    MESSAGE("SKIPPED: no memcached program on this machine; the remote tier is not tested");
    return false;
  }
  void* library = ::dlopen("libmemcached.so.11", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    MESSAGE("SKIPPED: no libmemcached.so.11 on this machine; the remote tier is not tested");
    return false;
  }
  ::dlclose(library);
  return true;
}

class MemcachedServer {
 public:
  MemcachedServer() : port_(free_port()) { start(); }
  ~MemcachedServer() { kill(); }
  MemcachedServer(const MemcachedServer&) = delete;
  MemcachedServer& operator=(const MemcachedServer&) = delete;

  void start() {
    std::string port = std::to_string(port_);
    std::vector<const char*> words = {
        memcached_program(), "-u",   "nobody", "-l", "127.0.0.1", "-U", "0", "-m", "64", "-t", "1", "-p",
        port.c_str(),        nullptr};
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    const int failed =
        ::posix_spawn(&process_, words[0], &files, nullptr, const_cast<char* const*>(words.data()), environ);
    ::posix_spawn_file_actions_destroy(&files);
    REQUIRE(failed == 0);
    for (int attempt = 0; attempt < 500 && !answers(); ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    REQUIRE(answers());
  }

  void kill() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  // Returns when the server has stopped: a signal that is only on its way still lets it answer.
  void hang() {
    ::kill(process_, SIGSTOP);
    int status = 0;
    REQUIRE(::waitpid(process_, &status, WUNTRACED) == process_);
    REQUIRE(WIFSTOPPED(status));
  }
  void wake() { ::kill(process_, SIGCONT); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // One command and the answer's first line, over a connection of its own: what a client that is not ours would see and
  // do.
  std::string command(const std::string& text) const {
    const int client = connected();
    REQUIRE(client >= 0);
    std::string answer;
    char piece[512];
    ssize_t got = ::send(client, text.data(), text.size(), MSG_NOSIGNAL);
    while (got > 0 && answer.find("\r\n") == std::string::npos) {
      got = ::recv(client, piece, sizeof piece, 0);
      if (got > 0) answer.append(piece, static_cast<std::size_t>(got));
    }
    ::close(client);
    return answer;
  }

  // A line of the server's own statistics, as a number.
  std::uint64_t statistic(const std::string& name) const {
    const int client = connected();
    REQUIRE(client >= 0);
    std::string answer;
    char piece[4096];
    ssize_t got = ::send(client, "stats\r\n", 7, MSG_NOSIGNAL);
    while (got > 0 && answer.find("END\r\n") == std::string::npos) {
      got = ::recv(client, piece, sizeof piece, 0);
      if (got > 0) answer.append(piece, static_cast<std::size_t>(got));
    }
    ::close(client);
    const std::size_t line = answer.find("STAT " + name + " ");
    REQUIRE(line != std::string::npos);
    return std::stoull(answer.substr(line + 6 + name.size()));
  }

 private:
  static sockaddr_in local(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  static std::uint16_t free_port() {
    const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    REQUIRE(::bind(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    ::close(probe);
    return ntohs(address.sin_port);
  }

  int connected() const {
    const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local(port_);
    if (::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return client;
    ::close(client);
    return -1;
  }

  bool answers() const {
    const int client = connected();
    if (client >= 0) ::close(client);
    return client >= 0;
  }

  std::uint16_t port_ = 0;
  pid_t process_ = -1;
};

using Servers = std::vector<std::unique_ptr<MemcachedServer>>;

inline Servers start_servers(std::size_t count) {
  Servers servers;
  for (std::size_t i = 0; i < count; ++i) servers.push_back(std::make_unique<MemcachedServer>());
  return servers;
}

inline std::unique_ptr<Tier> open_remote(const Servers& servers, std::uint32_t timeout_ms = 2000,
                                         std::uint64_t max_value_bytes = RemoteTierSpec{}.max_value_bytes) {
  RemoteTierSpec spec;
  for (const auto& server : servers) spec.servers += (spec.servers.empty() ? "" : ",") + server->address();
  spec.timeout_ms = timeout_ms;
  spec.max_value_bytes = max_value_bytes;
  auto made = make_remote_tier(spec);
  REQUIRE(made.ok());
  return std::move(made).value();
}

}  // namespace kvant::test
