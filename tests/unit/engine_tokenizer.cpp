// The byte-level tokenizer on the shipped vocabulary.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>

#include "engine/tokenizer.hpp"

namespace {

using kvant::engine::GgufFile;
using kvant::engine::Tokenizer;

Tokenizer shipped() {
  const auto file = GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  auto tokenizer = Tokenizer::from(*file);
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.failure().message);
  return *tokenizer;
}

}  // namespace

TEST_CASE("tokenizer: bytes, the space and the control tokens") {
  const Tokenizer tokenizer = shipped();
  CHECK(tokenizer.vocabulary() == 260);
  CHECK(tokenizer.bos() == 1);
  CHECK(tokenizer.eos() == 2);
  CHECK(tokenizer.encode("A b\n") == std::vector<uint32_t>{'A' + 3, 259, 'b' + 3, '\n' + 3});
  CHECK(tokenizer.encode("\xE2\x96\x81") == std::vector<uint32_t>{259});
  CHECK(tokenizer.encode("\xE2\x96") == std::vector<uint32_t>{0xE2 + 3, 0x96 + 3});
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode(259) == " ");
  CHECK(tokenizer.decode('z' + 3) == "z");
  CHECK(tokenizer.decode(1).empty());
  CHECK(tokenizer.decode(1000).empty());
}

TEST_CASE("tokenizer: every byte and the held-out text return") {
  const Tokenizer tokenizer = shipped();
  std::ifstream stream(KVANT_SOURCE_DIR "/models/heldout.txt", std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  std::string all = text.str();
  REQUIRE(all.size() > 100000);
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
  }
  std::string back;
  for (const uint32_t token : tokenizer.encode(all)) {
    back += tokenizer.decode(token);
  }
  CHECK(back == all);
}
