// What kvant eval measures of a pair of formats, and the parts that measure it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/key_outliers.hpp"
#include "engine/llama.hpp"
#include "engine/tokenizer.hpp"
#include "format_pair.hpp"
#include "library.hpp"
#include "progress.hpp"
#include "tensor_set.hpp"

namespace kvant::tools {

// Relative squared error sum((x - y)^2) / sum(x^2), and cosine of the two as one long vector.
struct ErrorFigures {
  double relative_mse = 0;
  double cosine = 0;
};
ErrorFigures compare(const std::vector<float>& truth, const std::vector<float>& approximation);
// The error of keys [rows][head_dim] against what softmax sees of them: sum((x - y)^2) / sum((x - mean)^2), the mean
// being that of each channel.
double centred_error(std::span<const float> keys, std::span<const float> approximation, uint32_t head_dim);

// How the model's keys are: as trained, or with outliers that change nothing of what it computes.
enum class Keys { kPlain, kOutlier };
const char* keys_name(Keys keys);

struct TextFigures {
  uint64_t tokens = 0;  // scored
  double perplexity = 0;
  double kl_mean = 0;  // nats, of the next-token distribution of an f32 cache and plain keys to this one's
  double kl_p99 = 0;
  double top1_agreement = 0;  // share of tokens whose most probable token is that of the f32 cache and plain keys
};

struct RecallFigures {
  uint32_t lines = 0;
  uint32_t exact = 0;        // every answer byte is the most probable one
  double bits_per_byte = 0;  // of the answers
};

struct LanguageFigures {
  Keys keys = Keys::kPlain;
  TextFigures text;
  RecallFigures recall_hard, recall_test;
};

struct TensorFigures {  // of one kv_dump set
  std::string set;
  ErrorFigures k, v, output;
};

// Made-up keys and normal values in a cache.
struct AttentionFigures {
  std::string set;
  uint32_t head_dim = 0;
  double logit_std = 0;       // of each query's logits over the exact keys
  double key_error = 0;       // centred_error of the held keys
  double output_error = 0;    // mean over queries of |output - exact| / |exact|
  double key_divergence = 0;  // nats, mean: weights of exact attention to those by the held keys, in double
  double top1_agreement = 0;  // how often both weigh the same key most
};

// Keys that are multiples of their queries among normal ones.
struct NeedleFigures {
  uint32_t head_dim = 0;
  uint32_t keys = 0;
  uint32_t needles = 0;
  uint32_t found = 0;      // the needle weighs most of the held keys
  double exact_mass = 0;   // mean weight of a needle in exact attention
  double least_share = 0;  // the smallest share of its exact weight that the cache's attention gives a needle
  bool kept() const { return found == needles && least_share >= 0.99; }
};

struct PairFigures {
  FormatPair pair;
  double bits_per_element = 0;  // of K and V together, pages as held
  std::vector<LanguageFigures> language;
  std::vector<TensorFigures> tensors;
  std::vector<AttentionFigures> attention;
  std::vector<NeedleFigures> needles;
  double seconds = 0;

  // Null where these keys were not measured.
  const LanguageFigures* with(Keys keys) const;
};

struct SyntheticSet {
  std::string name;
  ErrorFigures error;
  bool keys = false;   // stands for keys:
  double centred = 0;  // then also centred_error
};

struct SyntheticFigures {
  FormatFacts format;
  std::vector<SyntheticSet> sets;
  uint64_t bytes_65b = 0;  // K and V of 80 layers, 64 heads, d 128, 2048 tokens
};

struct EvalModel {
  engine::Tokenizer tokenizer;
  engine::Llama llama;

  // A path, or a name in the models folder.
  static Outcome<EvalModel> load(const std::string& name);
};
Outcome<std::string> read_text(const std::string& path);

// Perplexity and divergence. The first run must be the reference, f32 and plain keys: its logits are kept.
class TextEval {
 public:
  // At most `chunks` of the text, its first ones, or its last ones.
  static Outcome<TextEval> load(const std::string& path, const EvalModel& model, uint32_t chunks, bool last = false);
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
  struct Recorded {
    TensorSet tensors;
    std::vector<float> output;  // exact
  };
  std::vector<Recorded> sets_;
};

// Attention over made-up keys: those of normal values and all that made_up() has for keys or with heavy tails.
class AttentionEval {
 public:
  // `quick`: fewer keys and queries, one head size.
  static AttentionEval make(bool quick);
  Outcome<std::vector<AttentionFigures>> run(const std::shared_ptr<Device>& device, const FormatPair& pair) const;

 private:
  struct Prepared {
    TensorSet tensors;               // a layer for each set of keys, a query head for each logit_std
    std::vector<std::string> names;  // of the layers
    std::vector<float> output;       // exact
    std::vector<double> weights;     // exact, [row][token]
  };
  static Prepared prepare(uint32_t keys, uint32_t queries, uint32_t head_dim);
  std::vector<Prepared> sets_;
};

class NeedleEval {
 public:
  static NeedleEval make(bool quick);
  Outcome<std::vector<NeedleFigures>> run(const std::shared_ptr<Device>& device, const FormatPair& pair) const;

 private:
  struct Haystack {
    TensorSet tensors;
    std::vector<uint32_t> places;  // of each query's needle
    std::vector<double> masses;    // what it weighs in exact attention
  };
  static Haystack hide(uint32_t keys, uint32_t head_dim);
  std::vector<Haystack> stacks_;
};

// Errors on made-up data through the stand-alone conversion, and the memory of a large cache.
Outcome<SyntheticFigures> eval_synthetic(const std::shared_ptr<Device>& device, const FormatFacts& format);

struct EvalReport {
  DeviceFacts device;
  std::string commit;  // of the library
  std::string model;
  uint32_t chunks = 0;
  std::vector<Keys> keys;          // as asked for
  std::vector<PairFigures> pairs;  // the first is the reference; its first language figures are those of plain keys
  std::vector<SyntheticFigures> formats;
};

}  // namespace kvant::tools
