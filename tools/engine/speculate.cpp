// The loop of speculative decoding: propose, verify, roll back.
//
// The target's step holds its newest token and every node of the tree; a mask lets a node see itself, what leads to it
// and the text before. It is committed whole and then cut: the newest token and the draft's first alternative stand
// where the text would have them, so that most steps end with a truncation alone, and only another alternative goes in
// once more, from the keys and values that the step brought. (Aborting the step instead would put them in again every
// time.)
#include "speculate.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "../clock.hpp"
#include "matmul.hpp"
#include "sampler.hpp"
#include "session.hpp"

namespace kvant::engine {

namespace {

constexpr uint32_t kPromptBatch = 512;  // as Session's own

// The `count` most probable tokens, most probable first.
std::vector<uint32_t> most_probable(std::span<const float> logits, uint32_t count) {
  std::vector<uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(count, order.size()));
  std::partial_sort(order.begin(), end, order.end(),
                    [&](uint32_t a, uint32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  order.erase(end, order.end());
  return order;
}

void set_bit(std::span<uint32_t> row, uint32_t bit) { row[bit / 32] |= 1u << (bit % 32); }

// Rows of a mask in which a tree's nodes see the ones that lead to them.
struct Mask {
  Mask(uint32_t rows, uint32_t columns) : words((columns + 31) / 32), bits(size_t{rows} * words) {}
  std::span<uint32_t> row(uint32_t index) { return std::span(bits).subspan(size_t{index} * words, words); }
  uint32_t words;
  std::vector<uint32_t> bits;
};

std::vector<uint32_t> all_rows(uint32_t count) {
  std::vector<uint32_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0u);
  return rows;
}

}  // namespace

Outcome<DraftSpec> parse_draft(const std::string& text, uint32_t model_layers) {
  DraftSpec spec;
  const size_t colon = text.find(':');
  const std::string formats = text.substr(0, colon);
  const size_t slash = formats.find('/');
  spec.k_format = formats.substr(0, slash);
  spec.v_format = slash == std::string::npos ? spec.k_format : formats.substr(slash + 1);
  if (spec.k_format.empty() || spec.v_format.empty()) {
    return Failure{"the draft (" + text + ") is not FORMAT[/FORMAT][:LAYERS]", tools::Exit::kUsage};
  }
  if (colon != std::string::npos) {
    const std::string layers = text.substr(colon + 1);
    const auto [end, error] = std::from_chars(layers.data(), layers.data() + layers.size(), spec.layers);
    if (error != std::errc() || end != layers.data() + layers.size() || spec.layers < 1 || spec.layers > model_layers) {
      return Failure{"the draft's layers (" + layers + ") are not a whole number from 1 to the model's " +
                         std::to_string(model_layers),
                     tools::Exit::kUsage};
    }
  }
  return spec;
}

Outcome<void> Speculation::check(const SpeculationOptions& options, const LlamaConfig& model) {
  const uint64_t nodes = tree_tokens(options);
  if (nodes < 1 || nodes >= kMostUniformRows) {
    return Failure{"a draft of " + std::to_string(options.draft_tokens) + " tokens times " +
                       std::to_string(options.width) + " alternatives is not from 1 to " +
                       std::to_string(kMostUniformRows - 1) + " tokens in all",
                   tools::Exit::kUsage};
  }
  if (options.width > model.vocabulary) {
    return Failure{"the alternatives (" + std::to_string(options.width) + ") are more than the model's " +
                       std::to_string(model.vocabulary) + " tokens",
                   tools::Exit::kUsage};
  }
  return {};
}

std::span<const float> Speculation::row_of(const std::vector<float>& logits, size_t row) const {
  const size_t vocabulary = model_.config().vocabulary;
  return std::span(logits).subspan(row * vocabulary, vocabulary);
}

Outcome<void> Speculation::start(std::span<const uint32_t> prompt) {
  KVANT_TRY(check(options_, model_.config()));
  std::vector<float> logits;
  Session draft(model_, draft_, true, kPromptBatch, options_.draft_layers);
  KVANT_TRY(draft.feed(prompt, logits));
  Session target(model_, target_, true, kPromptBatch);
  KVANT_TRY(target.feed(prompt, logits));
  text_ = target.length();
  draft_text_ = text_;
  last_ = argmax(logits);
  pending_ = {last_};
  counts_ = {};
  return {};
}

Outcome<void> Speculation::write(uint32_t budget, const std::function<void(uint32_t)>& on_token) {
  std::vector<uint32_t> fresh = {last_};
  while (true) {
    for (const uint32_t token : fresh) {
      if (counts_.written == budget || token == options_.end_token) {
        return {};
      }
      on_token(token);
      ++counts_.written;
    }
    const uint64_t left = budget - counts_.written;
    if (left == 0) {
      return {};
    }
    // A step writes one token more than it accepts: a longer draft would be thrown away.
    const auto tree = propose(static_cast<uint32_t>(std::min<uint64_t>(options_.draft_tokens, left - 1)));
    if (!tree.ok()) {
      return tree.failure();
    }
    const auto verdict = verify(*tree);
    if (!verdict.ok()) {
      return verdict.failure();
    }
    const auto first = tree->tokens.begin() + static_cast<std::ptrdiff_t>(size_t{verdict->branch} * tree->depth);
    fresh.assign(first, first + verdict->accepted);
    fresh.push_back(verdict->next);
  }
}

Outcome<Speculation::Tree> Speculation::propose(uint32_t depth) {
  Tree tree{depth == 0 ? 0 : options_.width, depth, {}};
  if (depth == 0) {
    return tree;
  }
  const tools::Stopwatch watch;
  std::vector<float> logits;
  Batch batch;
  batch.layers = options_.draft_layers;
  batch.entries = {{0, draft_text_, static_cast<uint32_t>(pending_.size())}};
  batch.tokens = pending_;
  batch.logit_rows = {static_cast<uint32_t>(pending_.size() - 1)};
  KVANT_TRY(model_.forward(batch, draft_, logits));
  draft_text_ += static_cast<uint32_t>(pending_.size());
  pending_.clear();
  tree.tokens.resize(size_t{tree.width} * depth);
  KVANT_TRY(grow(tree, logits));
  counts_.draft_seconds += watch.seconds();
  return tree;
}

// The draft's own cache holds a tree level by level: a level is what one of its steps can compute.
Outcome<void> Speculation::grow(Tree& tree, const std::vector<float>& logits) {
  const std::vector<uint32_t> first = most_probable(logits, tree.width);
  for (uint32_t branch = 0; branch < tree.width; ++branch) {
    tree.tokens[size_t{branch} * tree.depth] = first[branch];
  }
  if (tree.width > 1) {
    KVANT_TRY(draft_.record());
  }
  std::vector<float> level_logits;
  for (uint32_t level = 0; level + 1 < tree.depth; ++level) {
    Batch batch;
    batch.layers = options_.draft_layers;
    batch.entries = {{0, draft_text_ + level * tree.width, tree.width}};
    Mask mask(tree.width, (level + 1) * tree.width);
    for (uint32_t branch = 0; branch < tree.width; ++branch) {
      batch.tokens.push_back(tree.token(branch, level));
      batch.positions.push_back(draft_text_ + level);
      for (uint32_t before = 0; before <= level; ++before) {
        set_bit(mask.row(branch), before * tree.width + branch);
      }
    }
    if (tree.width > 1) {
      batch.entries[0].mask = mask.bits;
      batch.entries[0].mask_begin = draft_text_;
    }
    batch.logit_rows = all_rows(tree.width);
    KVANT_TRY(model_.forward(batch, draft_, level_logits));
    for (uint32_t branch = 0; branch < tree.width; ++branch) {
      tree.tokens[size_t{branch} * tree.depth + level + 1] = argmax(row_of(level_logits, branch));
    }
  }
  return {};
}

Outcome<Speculation::Verdict> Speculation::verify(const Tree& tree) {
  const tools::Stopwatch watch;
  Batch batch;
  const uint32_t rows = 1 + tree.width * tree.depth;
  batch.entries = {{0, text_, rows}};
  batch.tokens = {last_};
  batch.tokens.insert(batch.tokens.end(), tree.tokens.begin(), tree.tokens.end());
  batch.logit_rows = all_rows(rows);
  Mask mask(rows, rows);
  if (tree.width > 1) {
    batch.positions = {text_};
    set_bit(mask.row(0), 0);
    for (uint32_t node = 0; node + 1 < rows; ++node) {
      const uint32_t level = node % tree.depth;
      batch.positions.push_back(text_ + 1 + level);
      set_bit(mask.row(1 + node), 0);
      for (uint32_t before = node - level; before <= node; ++before) {
        set_bit(mask.row(1 + node), 1 + before);
      }
    }
    batch.entries[0].mask = mask.bits;
    batch.entries[0].mask_begin = text_;
    KVANT_TRY(target_.record());
  }
  std::vector<float> logits;
  KVANT_TRY(model_.forward(batch, target_, logits));
  const Verdict verdict = judge(tree, logits);
  ++counts_.target_steps;
  counts_.proposed += tree.depth;
  counts_.nodes += rows - 1;
  counts_.accepted += verdict.accepted;
  counts_.other_branches += verdict.branch != 0 ? 1 : 0;
  KVANT_TRY(roll_back(tree, verdict));
  counts_.target_seconds += watch.seconds();
  return verdict;
}

Speculation::Verdict Speculation::judge(const Tree& tree, const std::vector<float>& logits) const {
  Verdict verdict{0, 0, argmax(row_of(logits, 0))};
  for (uint32_t branch = 0; branch < tree.width; ++branch) {
    if (tree.token(branch, 0) == verdict.next) {
      verdict.branch = branch;
    }
  }
  while (verdict.accepted < tree.depth && tree.token(verdict.branch, verdict.accepted) == verdict.next) {
    ++verdict.accepted;
    verdict.next = argmax(row_of(logits, size_t{verdict.branch} * tree.depth + verdict.accepted));
  }
  return verdict;
}

Outcome<void> Speculation::roll_back(const Tree& tree, const Verdict& verdict) {
  // The draft never read the last level of its own tree.
  const uint32_t read = tree.depth == 0 ? 0 : std::min(verdict.accepted, tree.depth - 1);
  std::vector<uint32_t> places = {text_};
  std::vector<uint32_t> draft_places;
  for (uint32_t level = 0; level < verdict.accepted; ++level) {
    places.push_back(text_ + 1 + verdict.branch * tree.depth + level);
  }
  for (uint32_t level = 0; level < read; ++level) {
    draft_places.push_back(draft_text_ + level * tree.width + verdict.branch);
  }
  text_ += 1 + verdict.accepted;
  draft_text_ += read;
  if (tree.width > 1) {
    KVANT_TRY(target_.keep(places));
    KVANT_TRY(draft_.keep(draft_places));
  } else {
    KVANT_TRY(target_.truncate(text_));
    KVANT_TRY(draft_.truncate(draft_text_));
  }
  for (uint32_t level = read; level < verdict.accepted; ++level) {
    pending_.push_back(tree.token(verdict.branch, level));
  }
  pending_.push_back(verdict.next);
  last_ = verdict.next;
  return {};
}

}  // namespace kvant::engine
