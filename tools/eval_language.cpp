// The model-level figures of kvant eval: perplexity, KL divergence, top-1 agreement and recall.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "distribution.hpp"
#include "engine/cache_attention.hpp"
#include "engine/sampler.hpp"
#include "eval.hpp"

namespace kvant::tools {

Outcome<std::string> read_text(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return bad_model(path + ": is a directory, not a text file");
  }
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    return bad_model(path + ": cannot be opened: " + std::strerror(errno));
  }
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

namespace {

constexpr uint32_t kBatch = 512;  // tokens of one step
// A step's fresh tokens are protected while it runs: scored ones come in steps so small that this does not help them.
constexpr uint32_t kProtectedBatch = 16;

Outcome<std::unique_ptr<engine::CacheAttention>> create_attention(const std::shared_ptr<Device>& device,
                                                                  const engine::LlamaConfig& config,
                                                                  const FormatPair& pair, uint32_t tokens) {
  const engine::AttentionShape shape = config.attention();
  return engine::CacheAttention::create(device, shape, cache_shape(pair, shape, tokens), 1);
}

// Log-probabilities after each of `tokens` from row `first_scored` on, the last one excepted (nothing follows it).
Outcome<std::vector<float>> score(EvalModel& model, engine::CacheAttention& attention,
                                  const std::vector<uint32_t>& tokens, uint32_t first_scored) {
  KVANT_TRY(attention.truncate(0));
  std::vector<float> all;
  std::vector<float> logits;
  const uint32_t end = static_cast<uint32_t>(tokens.size()) - 1;
  const bool small_steps = attention.cache().shape().protect != 0;
  for (uint32_t begin = 0, count = 0; begin < end; begin += count) {
    const bool scored = begin >= first_scored;
    count = std::min(small_steps && scored ? kProtectedBatch : kBatch, (small_steps && !scored ? first_scored : end) - begin);
    engine::Batch batch;
    batch.entries = {{0, begin, count}};
    batch.tokens.assign(tokens.begin() + begin, tokens.begin() + begin + count);
    for (uint32_t row = 0; row < count; ++row) {
      if (begin + row >= first_scored) {
        batch.logit_rows.push_back(row);
      }
    }
    KVANT_TRY(model.llama.forward(batch, attention, logits));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  const uint32_t vocabulary = model.llama.config().vocabulary;
  for (size_t row = 0; row < all.size(); row += vocabulary) {
    log_softmax({&all[row], vocabulary});
  }
  return all;
}

}  // namespace

Outcome<TextEval> TextEval::load(const std::string& path, const EvalModel& model, uint32_t chunks, bool last) {
  const auto text = read_text(path);
  if (!text.ok()) {
    return text.failure();
  }
  // As llama-perplexity cuts it: the text with a first begin token, in pieces whose own first token is overwritten by
  // it.
  std::vector<uint32_t> tokens = model.tokenizer.encode(*text);
  tokens.insert(tokens.begin(), model.tokenizer.bos());
  const uint32_t length = model.llama.config().context;
  TextEval eval;
  const size_t whole = tokens.size() / length, count = std::min<size_t>(chunks, whole), first = last ? whole - count : 0;
  for (size_t i = first; i < first + count; ++i) {
    const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(i * length);
    std::vector<uint32_t> chunk(begin, begin + length);
    chunk[0] = model.tokenizer.bos();
    eval.chunks_.push_back(std::move(chunk));
  }
  if (eval.chunks_.empty()) {
    return bad_model(path + ": has " + std::to_string(tokens.size()) + " tokens, fewer than one chunk of " +
                     std::to_string(length));
  }
  return eval;
}

Outcome<TextFigures> TextEval::run(EvalModel& model, const std::shared_ptr<Device>& device, const FormatPair& pair,
                                   double& bits_per_element, Progress& progress) {
  const auto& config = model.llama.config();
  auto attention = create_attention(device, config, pair, config.context);
  if (!attention.ok()) {
    return attention.failure();
  }
  const bool is_reference = reference_.empty();
  TextFigures figures;
  std::vector<double> divergences;
  double negative_log = 0;
  uint64_t agreements = 0;
  size_t reference_at = 0;
  const uint32_t first_scored = config.context / 2;
  for (const std::vector<uint32_t>& chunk : chunks_) {
    auto rows = score(model, **attention, chunk, first_scored);
    if (!rows.ok()) {
      return rows.failure();
    }
    const uint32_t vocabulary = config.vocabulary;
    for (size_t row = 0; row * vocabulary < rows->size(); ++row) {
      const float* own = &(*rows)[row * vocabulary];
      negative_log -= static_cast<double>(own[chunk[first_scored + row + 1]]);
      ++figures.tokens;
      if (!is_reference) {
        const float* truth = &reference_[reference_at];
        reference_at += vocabulary;
        divergences.push_back(kl_divergence({truth, vocabulary}, {own, vocabulary}));
        agreements += engine::argmax({truth, vocabulary}) == engine::argmax({own, vocabulary}) ? 1 : 0;
      }
    }
    if (is_reference) {
      reference_.insert(reference_.end(), rows->begin(), rows->end());
    }
    progress.advance(config.context);
  }
  const auto stats = (*attention)->cache().stats();
  if (!stats.ok()) {
    return stats.failure();
  }
  const uint64_t elements = uint64_t{2} * config.layers * config.kv_heads * config.head_dim * stats->sequence_tokens;
  bits_per_element = 8.0 * static_cast<double>(stats->used_bytes) / static_cast<double>(elements);
  const double tokens = static_cast<double>(figures.tokens);
  figures.perplexity = std::exp(negative_log / tokens);
  figures.top1_agreement = is_reference ? 1.0 : static_cast<double>(agreements) / tokens;
  if (!divergences.empty()) {
    for (const double value : divergences) {
      figures.kl_mean += value / tokens;
    }
    const auto at =
        divergences.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(divergences.size() - 1) * 0.99);
    std::nth_element(divergences.begin(), at, divergences.end());
    figures.kl_p99 = *at;
  }
  return figures;
}

Outcome<RecallEval> RecallEval::load(const std::string& path, const EvalModel& model, uint32_t lines) {
  const auto text = read_text(path);
  if (!text.ok()) {
    return text.failure();
  }
  std::vector<Case> cases;
  std::istringstream stream(*text);
  for (std::string line; std::getline(stream, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos || tab + 1 == line.size()) {
      return bad_model(path + ": line " + std::to_string(cases.size() + 1) + " is not: prompt, tab, answer");
    }
    std::string prompt;
    for (size_t i = 0; i < tab; ++i) {  // "\n" stands for a newline
      if (line[i] == '\\' && i + 1 < tab && line[i + 1] == 'n') {
        prompt += '\n';
        ++i;
      } else {
        prompt += line[i];
      }
    }
    Case one;
    one.tokens = model.tokenizer.encode(prompt);
    one.tokens.insert(one.tokens.begin(), model.tokenizer.bos());
    const auto answer = model.tokenizer.encode(line.substr(tab + 1));
    one.tokens.insert(one.tokens.end(), answer.begin(), answer.end());
    one.answer = static_cast<uint32_t>(answer.size());
    if (one.tokens.size() > model.llama.config().context) {
      return bad_model(path + ": line " + std::to_string(cases.size() + 1) + " is longer than the model's context");
    }
    cases.push_back(std::move(one));
  }
  RecallEval eval;
  const size_t wanted = std::min<size_t>(lines, cases.size());
  for (size_t i = 0; i < wanted; ++i) {
    eval.cases_.push_back(cases[i * cases.size() / wanted]);
    eval.tokens_ += eval.cases_.back().tokens.size();
    eval.longest_ = std::max(eval.longest_, static_cast<uint32_t>(eval.cases_.back().tokens.size()));
  }
  return eval;
}

Outcome<RecallFigures> RecallEval::run(EvalModel& model, const std::shared_ptr<Device>& device, const FormatPair& pair,
                                       Progress& progress) const {
  RecallFigures figures;
  if (cases_.empty()) {
    return figures;
  }
  const auto& config = model.llama.config();
  auto attention = create_attention(device, config, pair, longest_);
  if (!attention.ok()) {
    return attention.failure();
  }
  double bits = 0;
  uint64_t bytes = 0;
  for (const Case& one : cases_) {
    const uint32_t first = static_cast<uint32_t>(one.tokens.size()) - one.answer;
    const auto rows = score(model, **attention, one.tokens, first - 1);
    if (!rows.ok()) {
      return rows.failure();
    }
    bool exact = true;
    for (uint32_t i = 0; i < one.answer; ++i) {
      const float* row = &(*rows)[size_t{i} * config.vocabulary];
      exact = exact && engine::argmax({row, config.vocabulary}) == one.tokens[first + i];
      bits -= static_cast<double>(row[one.tokens[first + i]]) / std::log(2.0);
      ++bytes;
    }
    ++figures.lines;
    figures.exact += exact ? 1 : 0;
    progress.advance(one.tokens.size());
  }
  figures.bits_per_byte = bits / static_cast<double>(bytes);
  return figures;
}

}  // namespace kvant::tools
