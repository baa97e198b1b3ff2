// What --draft adds to kvant generate: its options, the draft's cache, and what the end of the text tells about it.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

#include "engine/cache_attention.hpp"
#include "engine/llama.hpp"
#include "engine/speculate.hpp"
#include "table.hpp"

namespace kvant::tools {

struct DraftOptions {
  std::string draft;  // empty: none
  uint32_t tokens = 4;
  uint32_t width = 1;
  bool compare = false;
};
void add_draft_options(CLI::App& command, DraftOptions& options);

// A greedy text, and how fast its tokens after the first came.
struct WrittenText {
  std::vector<uint32_t> tokens;
  double seconds = 0;
  std::string rate() const;
};

class DraftedGeneration {
 public:
  // Opens the draft's cache; `capacity_tokens` is room for the text alone.
  static Outcome<std::unique_ptr<DraftedGeneration>> create(const DraftOptions& options, engine::Llama& model,
                                                            const std::shared_ptr<Device>& device,
                                                            uint64_t capacity_tokens, uint32_t end_token);

  // Room that the target's cache needs beyond the text.
  uint64_t extra_tokens() const { return engine::tree_tokens(speculation_); }
  const engine::SpeculationCounts& counts() const { return counts_; }

  // Both caches are emptied first. `prompt_done` is called between the prompt and the first token.
  Outcome<WrittenText> write(engine::CacheAttention& target, const std::vector<uint32_t>& prompt, uint32_t budget,
                             const std::function<void()>& prompt_done, const std::function<void(uint32_t)>& on_token);
  // The target's own text, without the draft.
  Outcome<WrittenText> write_alone(engine::CacheAttention& target, const std::vector<uint32_t>& prompt,
                                   uint32_t budget);
  void describe(Table& table, const WrittenText& drafted) const;

 private:
  DraftedGeneration(engine::Llama& model) : model_(model) {}

  engine::Llama& model_;
  std::unique_ptr<engine::CacheAttention> draft_;
  std::string name_;
  engine::SpeculationOptions speculation_;
  engine::SpeculationCounts counts_;
};

// Says at which token the texts part, if they do.
Outcome<void> check_equal(const std::vector<uint32_t>& drafted, const std::vector<uint32_t>& alone);

}  // namespace kvant::tools
