// SHA-256 of prefix keys: the standard's examples, and every way in which the last block can be filled.
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "prefix_key.hpp"

namespace kvant {
namespace {

std::string hex(const PrefixKey& key) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : key.bytes) {
    text += kDigits[static_cast<std::size_t>(byte) >> 4];
    text += kDigits[static_cast<std::size_t>(byte) & 15];
  }
  return text;
}

std::string digest(std::string_view text) { return hex(sha256(std::as_bytes(std::span(text)))); }

TEST_CASE("host prefix key: SHA-256 of the standard's examples") {
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("host prefix key: SHA-256 around the ends of blocks") {
  struct Example {
    std::size_t size;
    std::string_view digest;
  };
  // Byte i of n is 7 i + n, modulo 256; digests by Python's hashlib.
  const Example examples[] = {
      {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {1, "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"},
      {55, "81afe5b788dc2ce138ff83d9b20164db75a94d75d2b2432eea4a0ef605088c72"},
      {56, "2aba54f0ac632420a2b502431408866e40e1d5e430df4cd822642c78ab2eb9c1"},
      {63, "733d3d4ee79ee67145bf73da13588f6f235d37414fc64b14a2f00f1762792f5e"},
      {64, "79322907b3e9d013d7dc2c2f256674dbf733045cde01df3539271c6f5605feb8"},
      {65, "d85c007c6eb440f085afa2b84f6f2bce4658b240e9f62cb1364bf0485a57e720"},
      {119, "6c87eedf096b345de205b702e5223b73b447a3207791ded3ea007ba15ed6736e"},
      {120, "42500cf6a1e3936d6b9e0bcfe296d654b63255e525487d3634d0b15fde591c4d"},
      {184, "8beeb42ffc89512dc989bc554ab51c629498bb00ce29bd0ad136e00ee5024ef9"},
      {1000, "6b0df76627243d095b0c4400cb658b7e804dd03461cc03aee8fc8fe0bcada168"},
  };
  for (const Example& example : examples) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < example.size; ++i) bytes.push_back(static_cast<std::byte>(i * 7 + example.size));
    CHECK_MESSAGE(hex(sha256(bytes)) == example.digest, example.size);
  }
}

}  // namespace
}  // namespace kvant
