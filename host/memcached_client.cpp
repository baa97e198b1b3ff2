#include "memcached_client.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "quoted_text.hpp"

namespace kvant {
namespace {

// Connections of as many threads as are likely at once stay open; those of more are closed after use.
constexpr std::size_t kIdleClients = 8;
// Keys of one request. Small enough that all of a request is on its way before the answers fill the connection.
constexpr std::size_t kBatchKeys = 64;
// How long keys of a server that failed go to the others, before it is tried again.
constexpr std::uint64_t kDeadSeconds = 2;

MemcachedAnswer answer_of(memcached_return_t code) {
  switch (code) {
    case MEMCACHED_SUCCESS:
    case MEMCACHED_STORED:
    case MEMCACHED_END:
      return MemcachedAnswer::done;
    case MEMCACHED_NOTFOUND:
    case MEMCACHED_NOTSTORED:
      return MemcachedAnswer::absent;
    case MEMCACHED_E2BIG:
    case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
      return MemcachedAnswer::refused;
    default:
      return MemcachedAnswer::failed;
  }
}

Status bad_server(const std::string& server, const std::string& text) {
  return {StatusCode::invalid_argument, "the server " + quoted_text(server) + " in the servers " + quoted_text(text) +
                                            " of the remote tier is no \"host:port\" with a port of 1 to 65535"};
}

bool parse_server(const std::string& text, MemcachedServerName& name) {
  std::size_t host_end = text.find(':');
  name.host = text.substr(0, host_end);
  if (text.starts_with('[')) {  // an IPv6 address, which has colons itself
    const std::size_t bracket = text.find(']');
    if (bracket == std::string::npos) return false;
    name.host = text.substr(1, bracket - 1);
    host_end = bracket + 1 == text.size() ? std::string::npos : bracket + 1;
  }
  if (name.host.empty() || name.host.find_first_of(" \t\r\n") != std::string::npos) return false;
  if (host_end == std::string::npos) return true;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + host_end + 1, end, name.port);
  return text[host_end] == ':' && parsed.ec == std::errc() && parsed.ptr == end && name.port != 0;
}

}  // namespace

Result<std::vector<MemcachedServerName>> parse_memcached_servers(const std::string& text) {
  if (text.empty())
    return Status(StatusCode::invalid_argument, "the remote tier has no servers; expected \"host:port,host:port\"");
  std::vector<MemcachedServerName> servers;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string server = text.substr(begin, end - begin);
    MemcachedServerName name;
    if (!parse_server(server, name)) return bad_server(server, text);
    servers.push_back(std::move(name));
    begin = end + 1;
  }
  return servers;
}

MemcachedClient::MemcachedClient(std::shared_ptr<const MemcachedLibrary> library, memcached_st* client)
    : library_(std::move(library)), client_(client) {
  library_->result_create_(client_, &result_);
}

MemcachedClient::~MemcachedClient() {
  library_->result_free_(&result_);
  library_->free_(client_);
}

std::unique_ptr<MemcachedClient> MemcachedClient::create(std::shared_ptr<const MemcachedLibrary> library,
                                                         std::span<const MemcachedServerName> servers,
                                                         std::uint32_t timeout_ms) {
  const std::uint64_t milliseconds =
      std::min<std::uint64_t>(timeout_ms, 2'000'000);  // microseconds must fit in 31 bits
  const std::pair<memcached_behavior_t, std::uint64_t> behaviors[] = {
      {MEMCACHED_BEHAVIOR_TCP_NODELAY, 1},
      {MEMCACHED_BEHAVIOR_TCP_KEEPALIVE, 1},
      {MEMCACHED_BEHAVIOR_CONNECT_TIMEOUT, milliseconds},
      {MEMCACHED_BEHAVIOR_POLL_TIMEOUT, milliseconds},
      {MEMCACHED_BEHAVIOR_SND_TIMEOUT, milliseconds * 1000},
      {MEMCACHED_BEHAVIOR_RCV_TIMEOUT, milliseconds * 1000},
      // The ring of points that other clients of memcached use as well; weights are all one.
      {MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1},
      // A server that fails once leaves the ring, and is tried again after a while.
      {MEMCACHED_BEHAVIOR_AUTO_EJECT_HOSTS, 1},
      {MEMCACHED_BEHAVIOR_SERVER_FAILURE_LIMIT, 1},
      {MEMCACHED_BEHAVIOR_SERVER_TIMEOUT_LIMIT, 1},
      {MEMCACHED_BEHAVIOR_RETRY_TIMEOUT, kDeadSeconds},
      {MEMCACHED_BEHAVIOR_DEAD_TIMEOUT, kDeadSeconds},
  };
  memcached_st* client = library->create_(nullptr);
  if (client == nullptr) return nullptr;
  std::unique_ptr<MemcachedClient> made(new MemcachedClient(std::move(library), client));
  for (const auto& [behavior, value] : behaviors)
    if (made->library_->behavior_set_(client, behavior, value) != MEMCACHED_SUCCESS) return nullptr;
  for (const MemcachedServerName& server : servers)
    if (made->library_->server_add_(client, server.host.c_str(), server.port) != MEMCACHED_SUCCESS) return nullptr;
  return made;
}

MemcachedAnswer MemcachedClient::set(const std::string& key, std::span<const std::byte> value) {
  const char* const bytes = reinterpret_cast<const char*>(value.data());
  memcached_return_t code = library_->set_(client_, key.data(), key.size(), bytes, value.size(), 0, 0);
  // The ring has just been made anew without this server: its keys have another one now.
  if (code == MEMCACHED_SERVER_MARKED_DEAD)
    code = library_->set_(client_, key.data(), key.size(), bytes, value.size(), 0, 0);
  return answer_of(code);
}

MemcachedAnswer MemcachedClient::touch(const std::string& key) {
  return answer_of(library_->touch_(client_, key.data(), key.size(), 0));
}

void MemcachedClient::erase(const std::string& key) { library_->delete_(client_, key.data(), key.size(), 0); }

void MemcachedClient::flush() { library_->flush_(client_, 0); }

MemcachedAnswer MemcachedClient::get(std::span<const std::string> keys, const Found& found) {
  MemcachedAnswer answer = MemcachedAnswer::done;
  for (; !keys.empty(); keys = keys.subspan(std::min(kBatchKeys, keys.size())))
    if (get_batch(keys.first(std::min(kBatchKeys, keys.size())), found) == MemcachedAnswer::failed)
      answer = MemcachedAnswer::failed;
  return answer;
}

MemcachedAnswer MemcachedClient::get_batch(std::span<const std::string> keys, const Found& found) {
  std::vector<const char*> names;
  std::vector<std::size_t> lengths;
  for (const std::string& key : keys) {
    names.push_back(key.data());
    lengths.push_back(key.size());
  }
  bool failed =
      answer_of(library_->mget_(client_, names.data(), lengths.data(), names.size())) == MemcachedAnswer::failed;
  // Even so: the servers that got their part of the request answer it.
  memcached_return_t code = MEMCACHED_SUCCESS;
  for (std::size_t answers = 0; answers <= keys.size(); ++answers) {
    if (library_->fetch_result_(client_, &result_, &code) == nullptr) break;
    const auto* value = reinterpret_cast<const std::byte*>(library_->result_value_(&result_));
    found({library_->result_key_value_(&result_), library_->result_key_length_(&result_)},
          {value, library_->result_length_(&result_)});
  }
  switch (code) {
    case MEMCACHED_SUCCESS:  // more answers than questions
    case MEMCACHED_PROTOCOL_ERROR:
    case MEMCACHED_PARTIAL_READ:
    case MEMCACHED_UNKNOWN_READ_FAILURE:
      library_->quit_(client_);  // what may still be in a connection must not answer the next request
      return MemcachedAnswer::failed;
    case MEMCACHED_END:
    case MEMCACHED_NOTFOUND:
      // A connection that broke before the last answer came is not told with the answers.
      failed |= answer_of(library_->last_error_(client_)) == MemcachedAnswer::failed;
      return failed ? MemcachedAnswer::failed : MemcachedAnswer::done;
    default:
      return MemcachedAnswer::failed;
  }
}

MemcachedClients::MemcachedClients(std::shared_ptr<const MemcachedLibrary> library,
                                   std::vector<MemcachedServerName> servers, std::uint32_t timeout_ms)
    : library_(std::move(library)), servers_(std::move(servers)), timeout_ms_(timeout_ms) {}

MemcachedClients::Lent MemcachedClients::lend() {
  std::unique_ptr<MemcachedClient> client;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      // The one that came back last, whose connections are the most likely to stand.
      client = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (client == nullptr) client = MemcachedClient::create(library_, servers_, timeout_ms_);
  return Lent(client.release(), [this](MemcachedClient* lent) { take_back(lent); });
}

void MemcachedClients::take_back(MemcachedClient* client) {
  std::unique_ptr<MemcachedClient> returned(client);
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kIdleClients) idle_.push_back(std::move(returned));
}

}  // namespace kvant
