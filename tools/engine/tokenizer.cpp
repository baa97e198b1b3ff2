// Builds the byte table from the vocabulary in the GGUF file.
#include "tokenizer.hpp"

#include <charconv>
#include <limits>

namespace kvant::engine {

using tools::bad_model;

namespace {

constexpr std::string_view kSpacePiece = "\xE2\x96\x81";  // U+2581
constexpr uint32_t kUnmapped = std::numeric_limits<uint32_t>::max();
enum TokenKind { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

// "<0x0A>" -> 10, or -1.
int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') {
    return -1;
  }
  int value = -1;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return error == std::errc() && end == piece.data() + 5 ? value : -1;
}

}  // namespace

Outcome<Tokenizer> Tokenizer::from(const GgufFile& file) {
  const auto model = file.get_string("tokenizer.ggml.model");
  if (!model.ok()) {
    return model.failure();
  }
  if (*model != "llama") {
    return bad_model(file.name() + ": metadata 'tokenizer.ggml.model' (" + *model + ") is not llama");
  }
  const auto tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens.ok()) {
    return tokens.failure();
  }
  const auto kinds = file.get_numbers("tokenizer.ggml.token_type");
  if (!kinds.ok()) {
    return kinds.failure();
  }
  if (kinds->size() != tokens->size()) {
    return bad_model(file.name() + ": metadata 'tokenizer.ggml.token_type' has " + std::to_string(kinds->size()) +
                     " elements, not one for each of the " + std::to_string(tokens->size()) + " tokens");
  }

  Tokenizer tokenizer;
  tokenizer.byte_tokens_.fill(kUnmapped);
  tokenizer.pieces_.resize(tokens->size());
  uint32_t space = kUnmapped;
  for (uint32_t id = 0; id < tokens->size(); ++id) {
    const std::string& piece = (*tokens)[id];
    const int kind = static_cast<int>((*kinds)[id]);
    if (kind == kByte) {
      const int byte = byte_of_piece(piece);
      if (byte < 0) {
        return bad_model(file.name() + ": token " + std::to_string(id) + " ('" + piece +
                         "') is of the byte type and not <0xNN>");
      }
      tokenizer.byte_tokens_[static_cast<size_t>(byte)] = id;
      tokenizer.pieces_[id] = std::string(1, static_cast<char>(byte));
    } else if (kind == kNormal && piece == kSpacePiece) {
      space = id;
      tokenizer.pieces_[id] = " ";
    } else if (kind != kUnknown && kind != kControl) {
      return bad_model(file.name() + ": token " + std::to_string(id) + " ('" + piece +
                       "') is neither a byte nor the space: only byte-level vocabularies are supported");
    }
  }
  if (space != kUnmapped) {
    tokenizer.byte_tokens_[' '] = space;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (tokenizer.byte_tokens_[byte] == kUnmapped) {
      return bad_model(file.name() + ": no token stands for the byte " + std::to_string(byte));
    }
  }
  const uint64_t bos = file.get_integer_or("tokenizer.ggml.bos_token_id", 1);
  const uint64_t eos = file.get_integer_or("tokenizer.ggml.eos_token_id", 2);
  if (bos >= tokens->size() || eos >= tokens->size()) {
    return bad_model(file.name() + ": bos_token_id (" + std::to_string(bos) + ") or eos_token_id (" +
                     std::to_string(eos) + ") is outside the vocabulary of " + std::to_string(tokens->size()));
  }
  tokenizer.bos_ = static_cast<uint32_t>(bos);
  tokenizer.eos_ = static_cast<uint32_t>(eos);
  return tokenizer;
}

std::vector<uint32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<uint32_t> tokens;
  tokens.reserve(text.size());
  // U+2581 in the text is the space token as well, since that is how the vocabulary spells a space.
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, kSpacePiece.size()) == kSpacePiece && pieces_[byte_tokens_[' ']] == " ") {
      tokens.push_back(byte_tokens_[' ']);
      i += kSpacePiece.size() - 1;
    } else {
      tokens.push_back(byte_tokens_[static_cast<unsigned char>(text[i])]);
    }
  }
  return tokens;
}

std::string Tokenizer::decode(uint32_t token) const { return token < pieces_.size() ? pieces_[token] : std::string(); }

}  // namespace kvant::engine
