// PrefixKey: the identity of a page's content, a chain of SHA-256 over everything that K and V depend on. docs/prefix_keys.md has
// the bytes.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvant {

struct PrefixKey {
  std::array<std::byte, 32> bytes{};
  auto operator<=>(const PrefixKey&) const = default;
};

struct PrefixKeyHash {  // keys are digests: any of their bytes will do
  std::size_t operator()(const PrefixKey& key) const;
};

// The bytes to be hashed: a domain, then fields, each with its tag and its length, so that no two lists of fields give the
// same bytes.
class KeyFields {
 public:
  explicit KeyFields(std::string_view domain) { add(0, domain); }
  void add(std::uint32_t tag, std::string_view bytes);
  void add(std::uint32_t tag, std::uint64_t value);
  void add(std::uint32_t tag, const PrefixKey& key);
  void add(std::uint32_t tag, std::span<const std::int32_t> tokens);  // little endian, whatever the machine
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  void header(std::uint32_t tag, std::uint64_t size);
  std::vector<std::byte> bytes_;
};

PrefixKey sha256(std::span<const std::byte> bytes);

// The key of the page that holds `tokens` behind the pages that `parent` stands for.
PrefixKey page_key(const PrefixKey& parent, std::span<const std::int32_t> tokens);
// The key that stands before the first page. `content` says what else K and V depend on (see cache_content_key).
PrefixKey root_key(const PrefixKey& content, std::string_view salt);

}  // namespace kvant
