// The byte-level llama tokenizer: a space is U+2581, every other byte has its own token.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf.hpp"

namespace kvant::engine {

class Tokenizer {
 public:
  // Vocabularies with tokens of several characters need merge rules, which this engine has not: they are refused by
  // name.
  static Outcome<Tokenizer> from(const GgufFile& file);

  // The tokens of `text`, without the begin-of-sequence token.
  std::vector<uint32_t> encode(std::string_view text) const;
  // The bytes of one token; control tokens have none.
  std::string decode(uint32_t token) const;

  uint32_t bos() const { return bos_; }
  uint32_t eos() const { return eos_; }
  uint32_t vocabulary() const { return static_cast<uint32_t>(pieces_.size()); }

 private:
  std::array<uint32_t, 256> byte_tokens_{};
  std::vector<std::string> pieces_;  // what a token prints
  uint32_t bos_ = 0;
  uint32_t eos_ = 0;
};

}  // namespace kvant::engine
