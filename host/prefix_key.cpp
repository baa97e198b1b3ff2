#include "prefix_key.hpp"

// The functions below EVP, of which the archive gives 20 KB; with EVP it would be 3.8 MB.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <cassert>
#include <cstring>

namespace kvant {
namespace {

constexpr std::uint32_t kTagParent = 1, kTagTokens = 2, kTagContent = 3, kTagSalt = 4;

void put_little_endian(std::vector<std::byte>& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
}

}  // namespace

std::size_t PrefixKeyHash::operator()(const PrefixKey& key) const {
  std::size_t hash = 0;
  std::memcpy(&hash, key.bytes.data(), sizeof hash);
  return hash;
}

void KeyFields::header(std::uint32_t tag, std::uint64_t size) {
  put_little_endian(bytes_, tag, 4);
  put_little_endian(bytes_, size, 8);
}

void KeyFields::add(std::uint32_t tag, std::string_view bytes) {
  header(tag, bytes.size());
  const auto raw = std::as_bytes(std::span(bytes));
  bytes_.insert(bytes_.end(), raw.begin(), raw.end());
}

void KeyFields::add(std::uint32_t tag, std::uint64_t value) {
  header(tag, 8);
  put_little_endian(bytes_, value, 8);
}

void KeyFields::add(std::uint32_t tag, const PrefixKey& key) {
  header(tag, key.bytes.size());
  bytes_.insert(bytes_.end(), key.bytes.begin(), key.bytes.end());
}

void KeyFields::add(std::uint32_t tag, std::span<const std::int32_t> tokens) {
  header(tag, tokens.size() * 4);
  for (const std::int32_t token : tokens) put_little_endian(bytes_, static_cast<std::uint32_t>(token), 4);
}

PrefixKey sha256(std::span<const std::byte> bytes) {
  PrefixKey key;
  static_assert(SHA256_DIGEST_LENGTH == sizeof(key.bytes));
  SHA256_CTX state;
  [[maybe_unused]] const bool done = SHA256_Init(&state) == 1 && SHA256_Update(&state, bytes.data(), bytes.size()) == 1 &&
                                     SHA256_Final(reinterpret_cast<unsigned char*>(key.bytes.data()), &state) == 1;
  assert(done);  // none of them can fail
  return key;
}

PrefixKey page_key(const PrefixKey& parent, std::span<const std::int32_t> tokens) {
  KeyFields fields("kvant.prefix.page/1");
  fields.add(kTagParent, parent);
  fields.add(kTagTokens, tokens);
  return sha256(fields.bytes());
}

PrefixKey root_key(const PrefixKey& content, std::string_view salt) {
  KeyFields fields("kvant.prefix.root/1");
  fields.add(kTagContent, content);
  fields.add(kTagSalt, salt);
  return sha256(fields.bytes());
}

}  // namespace kvant
