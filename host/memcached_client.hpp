// MemcachedClient: one thread's connections to all servers. MemcachedClients: those of a tier, each lent to one thread
// at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "memcached_library.hpp"
#include "status.hpp"

namespace kvant {

struct MemcachedServerName {
  std::string host;
  std::uint16_t port = 11211;
};
// "host:port,[address]:port,host". Errors: invalid_argument.
Result<std::vector<MemcachedServerName>> parse_memcached_servers(const std::string& text);

enum class MemcachedAnswer { done, absent, refused, failed };  // refused: too large, or the server has no memory left

class MemcachedClient {
 public:
  // Null: no memory.
  static std::unique_ptr<MemcachedClient> create(std::shared_ptr<const MemcachedLibrary> library,
                                                 std::span<const MemcachedServerName> servers,
                                                 std::uint32_t timeout_ms);
  ~MemcachedClient();
  MemcachedClient(const MemcachedClient&) = delete;
  MemcachedClient& operator=(const MemcachedClient&) = delete;

  MemcachedAnswer set(const std::string& key, std::span<const std::byte> value);
  MemcachedAnswer touch(const std::string& key);  // used just now; absent: not held
  void erase(const std::string& key);
  void flush();
  // Calls `found` for each of the keys that a server has, in any order; the value is valid during the call. Failed: at
  // least one server did not answer for all of its keys.
  using Found = std::function<void(std::string_view key, std::span<const std::byte> value)>;
  MemcachedAnswer get(std::span<const std::string> keys, const Found& found);

 private:
  MemcachedClient(std::shared_ptr<const MemcachedLibrary> library, memcached_st* client);
  MemcachedAnswer get_batch(std::span<const std::string> keys, const Found& found);

  std::shared_ptr<const MemcachedLibrary> library_;
  memcached_st* client_;
  memcached_result_st result_;
};

class MemcachedClients {
 public:
  MemcachedClients(std::shared_ptr<const MemcachedLibrary> library, std::vector<MemcachedServerName> servers,
                   std::uint32_t timeout_ms);

  // Gives the client back when it goes. Null: no memory.
  using Lent = std::unique_ptr<MemcachedClient, std::function<void(MemcachedClient*)>>;
  Lent lend();

 private:
  void take_back(MemcachedClient* client);

  const std::shared_ptr<const MemcachedLibrary> library_;
  const std::vector<MemcachedServerName> servers_;
  const std::uint32_t timeout_ms_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<MemcachedClient>> idle_;
};

}  // namespace kvant
