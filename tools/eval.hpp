// What kvant eval measures of a pair of formats, and the parts that measure it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/llama.hpp"
#include "engine/tokenizer.hpp"
#include "format_pair.hpp"
#include "library.hpp"
#include "progress.hpp"

namespace kvant::tools {

// Relative squared error sum((x - y)^2) / sum(x^2), and cosine of the two as one long vector.
struct ErrorFigures {
  double relative_mse = 0;
  double cosine = 0;
};
ErrorFigures compare(const std::vector<float>& truth, const std::vector<float>& approximation);

struct TextFigures {
  uint64_t tokens = 0;  // scored
  double perplexity = 0;
  double kl_mean = 0;  // nats, of the f32 cache's next-token distribution to this one's
  double kl_p99 = 0;
  double top1_agreement = 0;  // share of tokens whose most probable token is the f32 cache's
};

struct RecallFigures {
  uint32_t lines = 0;
  uint32_t exact = 0;        // every answer byte is the most probable one
  double bits_per_byte = 0;  // of the answers
};

struct TensorFigures {  // of one kv_dump set
  std::string set;
  ErrorFigures k, v, output;
};

struct PairFigures {
  FormatPair pair;
  double bits_per_element = 0;  // of K and V together, pages as held
  TextFigures text;
  RecallFigures recall_hard, recall_test;
  std::vector<TensorFigures> tensors;
  double seconds = 0;
};

struct SyntheticFigures {
  FormatFacts format;
  std::vector<std::pair<std::string, ErrorFigures>> sets;
  uint64_t bytes_65b = 0;  // K and V of 80 layers, 64 heads, d 128, 2048 tokens
};

struct EvalModel {
  engine::Tokenizer tokenizer;
  engine::Llama llama;

  // A path, or a name in the models folder.
  static Outcome<EvalModel> load(const std::string& name);
};
Outcome<std::string> read_text(const std::string& path);

// Perplexity and divergence. The first pair that runs must be the f32 reference: its logits are kept.
class TextEval {
 public:
  static Outcome<TextEval> load(const std::string& path, const EvalModel& model, uint32_t chunks);
  Outcome<TextFigures> run(EvalModel& model, const std::shared_ptr<Device>& device, const FormatPair& pair,
                           double& bits_per_element, Progress& progress);
  uint32_t chunks() const { return static_cast<uint32_t>(chunks_.size()); }
  const std::vector<uint32_t>& chunk(uint32_t index) const { return chunks_[index]; }

 private:
  std::vector<std::vector<uint32_t>> chunks_;
  std::vector<float> reference_;  // log-probabilities [scored token][vocabulary] of the first run
};

class RecallEval {
 public:
  // Lines spread evenly over the file, at most `lines`.
  static Outcome<RecallEval> load(const std::string& path, const EvalModel& model, uint32_t lines);
  Outcome<RecallFigures> run(EvalModel& model, const std::shared_ptr<Device>& device, const FormatPair& pair,
                             Progress& progress) const;
  uint64_t tokens() const { return tokens_; }

 private:
  struct Case {
    std::vector<uint32_t> tokens;  // prompt and answer
    uint32_t answer = 0;           // tokens of the answer
  };
  std::vector<Case> cases_;
  uint32_t longest_ = 0;
  uint64_t tokens_ = 0;
};

// Errors on keys, values and queries recorded from the model.
class TensorEval {
 public:
  static Outcome<TensorEval> load(const std::string& folder);
  Outcome<std::vector<TensorFigures>> run(const std::shared_ptr<Device>& device, const FormatPair& pair) const;

 private:
  struct Set {
    std::string name;
    uint32_t layers = 0, tokens = 0, kv_heads = 0, head_dim = 0, queries = 0, q_heads = 0;
    std::vector<float> k, v, q, output;  // output: exact attention, computed in double
  };
  static Outcome<Set> load_set(const std::string& folder, const std::string& name);
  static Outcome<TensorFigures> run_set(const std::shared_ptr<Device>& device, const FormatPair& pair, const Set& set);
  std::vector<Set> sets_;
};

// Errors on made-up data through the stand-alone conversion, and the memory of a large cache.
Outcome<SyntheticFigures> eval_synthetic(const std::shared_ptr<Device>& device, const FormatFacts& format);

struct EvalReport {
  DeviceFacts device;
  std::string commit;  // of the library
  std::string model;
  uint32_t chunks = 0;
  std::vector<PairFigures> pairs;
  std::vector<SyntheticFigures> formats;
};

std::string eval_text(const EvalReport& report);
std::string eval_json(const EvalReport& report);
std::string eval_html(const EvalReport& report);

}  // namespace kvant::tools
