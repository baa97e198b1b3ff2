// The engine around the attention gives a token the same bits alone, beside drafted tokens and in a tree: what is left
// that depends on the shape of a step is inside the plugin's kernels.
#include <doctest/doctest.h>

#include <cmath>

#include "engine/llama.hpp"

namespace {

using namespace kvant;

// One sequence, each query by itself over what it sees, in the order of the sequence.
class RowAttention : public engine::Attention {
 public:
  explicit RowAttention(const engine::AttentionShape& shape) : shape_(shape), layers_(shape.layers) {}

  engine::Outcome<void> begin(std::span<const engine::BatchEntry> entries) override {
    entry_ = entries[0];
    mask_.assign(entry_.mask.begin(), entry_.mask.end());
    return {};
  }

  engine::Outcome<void> run(uint32_t layer, const float* k, const float* v, const float* q, float* out) override {
    const size_t kv_row = size_t{shape_.kv_heads} * shape_.head_dim, q_row = size_t{shape_.q_heads} * shape_.head_dim;
    Layer& kept = layers_[layer];
    kept.k.insert(kept.k.end(), k, k + entry_.count * kv_row);
    kept.v.insert(kept.v.end(), v, v + entry_.count * kv_row);
    for (uint32_t row = 0; row < entry_.count; ++row) {
      for (uint32_t head = 0; head < shape_.q_heads; ++head) {
        const size_t kv_at = size_t{head / (shape_.q_heads / shape_.kv_heads)} * shape_.head_dim;
        const float* query = q + row * q_row + size_t{head} * shape_.head_dim;
        std::vector<double> sums(shape_.head_dim, 0.0);
        double whole = 0.0;
        for (uint32_t token = 0; token <= entry_.position + row; ++token) {
          if (!sees(row, token)) {
            continue;
          }
          double dot = 0.0;
          for (uint32_t i = 0; i < shape_.head_dim; ++i) {
            dot += static_cast<double>(query[i]) * static_cast<double>(kept.k[token * kv_row + kv_at + i]);
          }
          const double weight = std::exp(dot / std::sqrt(static_cast<double>(shape_.head_dim)));
          whole += weight;
          for (uint32_t i = 0; i < shape_.head_dim; ++i) {
            sums[i] += weight * static_cast<double>(kept.v[token * kv_row + kv_at + i]);
          }
        }
        for (uint32_t i = 0; i < shape_.head_dim; ++i) {
          out[row * q_row + size_t{head} * shape_.head_dim + i] = static_cast<float>(sums[i] / whole);
        }
      }
    }
    return {};
  }

  engine::Outcome<void> commit() override { return {}; }
  void abort() override {}

 private:
  struct Layer {
    std::vector<float> k, v;
  };
  bool sees(uint32_t row, uint32_t token) const {
    return mask_.empty() || token < entry_.mask_begin || (mask_[row] >> (token - entry_.mask_begin) & 1u) != 0;
  }

  engine::AttentionShape shape_;
  std::vector<Layer> layers_;
  engine::BatchEntry entry_;
  std::vector<uint32_t> mask_;  // one word a row
};

}  // namespace

TEST_CASE("uniform rows: alone, in a chain of drafts and in a tree a token's logits have the same bits") {
  const auto file = engine::GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  auto model = engine::Llama::load(*file);
  REQUIRE_MESSAGE(model.ok(), model.failure().message);
  const std::vector<uint32_t> text = {1, 75, 113, 259, 119, 107, 104, 259, 101};
  const std::vector<uint32_t> path = {104, 106, 108, 113};
  const auto at = static_cast<uint32_t>(text.size());
  const auto forward = [&](engine::Attention& attention, const engine::Batch& batch) {
    std::vector<float> logits;
    const auto done = model->forward(batch, attention, logits);
    REQUIRE_MESSAGE(done.ok(), done.failure().message);
    return logits;
  };
  const auto read_text = [&](engine::Attention& attention) {
    engine::Batch batch;
    batch.entries = {{0, 0, at}};
    batch.tokens = text;
    forward(attention, batch);
  };

  std::vector<float> alone;
  RowAttention singles(model->config().attention());
  read_text(singles);
  for (uint32_t i = 0; i < path.size(); ++i) {
    engine::Batch batch;
    batch.entries = {{0, at + i, 1}};
    batch.tokens = {path[i]};
    batch.logit_rows = {0};
    const auto logits = forward(singles, batch);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }

  RowAttention chain(model->config().attention());
  read_text(chain);
  engine::Batch together;
  together.entries = {{0, at, 4}};
  together.tokens = path;
  together.logit_rows = {0, 1, 2, 3};
  CHECK(forward(chain, together) == alone);

  // Another alternative of three tokens stands between the first token and the rest of the path.
  RowAttention tree(model->config().attention());
  read_text(tree);
  const std::vector<uint32_t> mask = {0b0000001, 0b0000011, 0b0000111, 0b0001111, 0b0010001, 0b0110001, 0b1110001};
  engine::Batch branched;
  branched.entries = {{0, at, 7, mask, at}};
  branched.tokens = {path[0], 90, 91, 92, path[1], path[2], path[3]};
  branched.positions = {at, at + 1, at + 2, at + 3, at + 1, at + 2, at + 3};
  branched.logit_rows = {0, 4, 5, 6};
  CHECK(forward(tree, branched) == alone);

  // The check would notice: another position, or a mask that lets the path see the other alternative, is other logits.
  engine::Batch wrong = branched;
  wrong.positions[5] = at + 5;
  RowAttention shifted(model->config().attention());
  read_text(shifted);
  CHECK(forward(shifted, wrong) != alone);
  wrong = branched;
  std::vector<uint32_t> leaky = mask;
  leaky[4] |= 0b0000010;
  wrong.entries[0].mask = leaky;
  RowAttention mixed(model->config().attention());
  read_text(mixed);
  CHECK(forward(mixed, wrong) != alone);
}
