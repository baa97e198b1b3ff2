// Speculative decoding: a cheaper draft of the same model proposes tokens, the target checks all of them in one step,
// and both caches forget what was not accepted. The text is the target's own greedy text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache_attention.hpp"
#include "llama.hpp"

namespace kvant::engine {

// What --draft names: FORMAT[/FORMAT][:LAYERS].
struct DraftSpec {
  std::string k_format;
  std::string v_format;
  uint32_t layers = 0;  // only so many of the first layers; 0: all
};
// The formats are not looked up; `model_layers` is the most that LAYERS may be.
Outcome<DraftSpec> parse_draft(const std::string& text, uint32_t model_layers);

struct SpeculationOptions {
  uint32_t draft_tokens = 4;          // proposed a step, one after another
  uint32_t width = 1;                 // alternatives for the first of them, each continued greedily
  uint32_t draft_layers = 0;          // of the model, first ones; 0: all
  std::optional<uint32_t> end_token;  // ends the text and is not part of it
};

// Tokens that the caches must have room for beyond the text itself.
inline uint64_t tree_tokens(const SpeculationOptions& options) {
  return uint64_t{options.draft_tokens} * options.width;
}

struct SpeculationCounts {
  uint64_t written = 0;         // tokens handed out, the first of them from the prompt's own step
  uint64_t target_steps = 0;    // after the prompt
  uint64_t proposed = 0;        // depth of the drafts, summed: at most so many can be accepted
  uint64_t accepted = 0;        // of them
  uint64_t nodes = 0;           // drafted tokens that the target looked at, all alternatives
  uint64_t other_branches = 0;  // steps where another alternative than the draft's first was right
  double draft_seconds = 0;     // after the prompt
  double target_seconds = 0;    // the same
};

class Speculation {
 public:
  // Both attentions have one slot, which is empty; that of the draft has `draft_layers` layers.
  Speculation(Llama& model, CacheAttention& target, CacheAttention& draft, const SpeculationOptions& options)
      : model_(model), target_(target), draft_(draft), options_(options) {}

  // Whether the options can be served: a tree must be small enough for the products that do not depend on its size.
  static Outcome<void> check(const SpeculationOptions& options, const LlamaConfig& model);
  // Both, empty, read the prompt of at least one token.
  Outcome<void> start(std::span<const uint32_t> prompt);
  // Once after each start: writes up to `budget` tokens, fewer where the text ends.
  Outcome<void> write(uint32_t budget, const std::function<void(uint32_t)>& on_token);

  const SpeculationCounts& counts() const { return counts_; }

 private:
  // Drafted tokens, [width][depth]; the alternatives differ in their first tokens.
  struct Tree {
    uint32_t width = 0;
    uint32_t depth = 0;
    std::vector<uint32_t> tokens;
    uint32_t token(uint32_t branch, uint32_t level) const { return tokens[size_t{branch} * depth + level]; }
  };
  // The part of a tree that the target agrees with, and its own next token.
  struct Verdict {
    uint32_t branch = 0;
    uint32_t accepted = 0;
    uint32_t next = 0;
  };

  Outcome<Tree> propose(uint32_t depth);
  Outcome<void> grow(Tree& tree, const std::vector<float>& logits);
  Outcome<Verdict> verify(const Tree& tree);
  Verdict judge(const Tree& tree, const std::vector<float>& logits) const;
  Outcome<void> roll_back(const Tree& tree, const Verdict& verdict);
  std::span<const float> row_of(const std::vector<float>& logits, size_t row) const;

  Llama& model_;
  CacheAttention& target_;
  CacheAttention& draft_;
  SpeculationOptions options_;
  SpeculationCounts counts_;
  uint32_t text_ = 0;              // tokens in the target's cache, all of them accepted
  uint32_t draft_text_ = 0;        // the same of the draft's; differs where it has not read its own last proposal
  uint32_t last_ = 0;              // the newest token, in neither cache
  std::vector<uint32_t> pending_;  // what the draft has not read yet; ends with last_
};

}  // namespace kvant::engine
