// What the tier tests share: folders that go away, keys and values that are known from a number, an engine's own tier,
// and memcached servers that live as long as their test.
#pragma once

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "tier.hpp"

namespace kvant::test {

class TierFolder {
 public:
  TierFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvant_tier_XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TierFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TierFolder(const TierFolder&) = delete;
  TierFolder& operator=(const TierFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path file(const TierKey& key) const {
    const std::string text = tier_key_text(key);
    return path_ / text.substr(0, 2) / (text + ".kv");
  }
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_))
      if (!entry.is_directory()) found.push_back(entry.path());
    return found;
  }

 private:
  std::filesystem::path path_;
};

// Keys and values follow from a number, so that any reader can tell a wrong byte.
inline std::vector<std::byte> number_bytes(std::uint64_t number, std::size_t size) {
  std::mt19937_64 engine(number);
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = engine();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return bytes;
}
inline TierKey number_key(std::uint64_t number) {
  TierKey key;
  std::memcpy(key.bytes.data(), number_bytes(number + 1'000'000, key.bytes.size()).data(), key.bytes.size());
  return key;
}
inline std::vector<TierKey> number_keys(std::uint64_t first, std::uint64_t count) {
  std::vector<TierKey> keys;
  for (std::uint64_t i = 0; i < count; ++i) keys.push_back(number_key(first + i));
  return keys;
}
inline std::vector<std::byte> get_one(Tier& tier, const TierKey& key) { return tier.get({&key, 1}).front(); }
inline bool contains_one(Tier& tier, const TierKey& key) { return tier.contains({&key, 1}).front(); }

inline std::unique_ptr<Tier> open_disk(const TierFolder& folder, std::uint64_t capacity_bytes = 0) {
  auto made = make_disk_tier({folder.path().string(), capacity_bytes});
  REQUIRE(made.ok());
  return std::move(made).value();
}

// An engine's tier as C functions over a map.
struct EngineStore {
  std::mutex mutex;
  std::map<std::string, std::vector<std::byte>> entries;
  bool full = false;

  static std::string text(const std::uint8_t* key) { return {reinterpret_cast<const char*>(key), 32}; }
  static EngineStore& of(void* user) { return *static_cast<EngineStore*>(user); }

  CustomTierFunctions functions() {
    CustomTierFunctions table;
    table.user_data = this;
    table.name = "engine's own";
    table.put = [](void* user, const std::uint8_t* key, const void* value, std::uint64_t size) -> std::uint32_t {
      const std::lock_guard lock(of(user).mutex);
      if (of(user).full) return 0;
      const auto* bytes = static_cast<const std::byte*>(value);
      of(user).entries[text(key)].assign(bytes, bytes + size);
      return 1;
    };
    table.get = [](void* user, const std::uint8_t* key, void* out, std::uint64_t out_size) -> std::uint64_t {
      const std::lock_guard lock(of(user).mutex);
      const auto found = of(user).entries.find(text(key));
      if (found == of(user).entries.end()) return 0;
      if (out_size >= found->second.size()) std::memcpy(out, found->second.data(), found->second.size());
      return found->second.size();
    };
    table.contains = [](void* user, const std::uint8_t* key) -> std::uint32_t {
      const std::lock_guard lock(of(user).mutex);
      return of(user).entries.count(text(key)) != 0;
    };
    table.erase = [](void* user, const std::uint8_t* key) {
      const std::lock_guard lock(of(user).mutex);
      of(user).entries.erase(text(key));
    };
    table.clear = [](void* user) {
      const std::lock_guard lock(of(user).mutex);
      of(user).entries.clear();
    };
    return table;
  }
};

}  // namespace kvant::test
