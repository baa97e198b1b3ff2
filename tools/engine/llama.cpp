// One pass over a batch: embedding, blocks (norm, q/k/v, RoPE, attention, SwiGLU), norm, output.
#include "llama.hpp"

#include <algorithm>

#include "key_outliers.hpp"
#include "matmul.hpp"

namespace kvant::engine {

using tools::bad_model;

struct Llama::Activations {
  size_t rows = 0;
  std::vector<float> residual, normed, q, k, v, attended, projected, gate, up;
  std::vector<uint32_t> positions;
};

Outcome<void> Llama::check(const Batch& batch) const {
  size_t rows = 0;
  for (const BatchEntry& entry : batch.entries) {
    rows += entry.count;
    if (batch.positions.empty() && uint64_t{entry.position} + entry.count > config_.context) {
      return Failure{"positions up to " + std::to_string(uint64_t{entry.position} + entry.count) +
                     " are beyond the model's context of " + std::to_string(config_.context)};
    }
  }
  if (rows != batch.tokens.size() || rows == 0) {
    return Failure{"the batch has " + std::to_string(batch.tokens.size()) + " tokens for entries of " +
                   std::to_string(rows) + " in all"};
  }
  if (!batch.positions.empty() && batch.positions.size() != rows) {
    return Failure{"the batch has " + std::to_string(batch.positions.size()) + " positions for " +
                   std::to_string(rows) + " tokens"};
  }
  for (const uint32_t position : batch.positions) {
    if (position >= config_.context) {
      return Failure{"the position (" + std::to_string(position) + ") is beyond the model's context of " +
                     std::to_string(config_.context)};
    }
  }
  if (batch.layers > config_.layers) {
    return Failure{"the batch asks for " + std::to_string(batch.layers) + " layers, the model has " +
                   std::to_string(config_.layers)};
  }
  for (const uint32_t token : batch.tokens) {
    if (token >= config_.vocabulary) {
      return Failure{"the token (" + std::to_string(token) + ") is outside the vocabulary of " +
                     std::to_string(config_.vocabulary)};
    }
  }
  for (const uint32_t row : batch.logit_rows) {
    if (row >= rows) {
      return Failure{"the logit row (" + std::to_string(row) + ") is outside the batch of " + std::to_string(rows)};
    }
  }
  return {};
}

Outcome<void> Llama::block(uint32_t index, const Batch&, Attention& attention, Activations& a) {
  const Layer& layer = layers_[index];
  const uint32_t width = config_.width;
  const uint32_t q_width = config_.q_heads * config_.head_dim;
  const uint32_t kv_width = config_.kv_heads * config_.head_dim;
  const auto norm_rows = [&](const std::vector<float>& weight) {
    for (size_t row = 0; row < a.rows; ++row) {
      rms_norm(&a.residual[row * width], weight.data(), config_.epsilon, width, &a.normed[row * width]);
    }
  };
  const auto add_to_residual = [&] {
    for (size_t i = 0; i < a.rows * width; ++i) {
      a.residual[i] += a.projected[i];
    }
  };

  norm_rows(layer.attention_norm);
  matmul(a.normed.data(), layer.wq.data(), a.q.data(), a.rows, width, q_width);
  matmul(a.normed.data(), layer.wk.data(), a.k.data(), a.rows, width, kv_width);
  matmul(a.normed.data(), layer.wv.data(), a.v.data(), a.rows, width, kv_width);
  for (size_t row = 0; row < a.rows; ++row) {
    rope_.apply(&a.q[row * q_width], config_.q_heads, config_.head_dim, a.positions[row]);
    rope_.apply(&a.k[row * kv_width], config_.kv_heads, config_.head_dim, a.positions[row]);
  }
  if (key_outliers_ != nullptr) {
    key_outliers_->apply(index, a.k.data(), a.q.data(), a.rows);
  }
  KVANT_TRY(attention.run(index, a.k.data(), a.v.data(), a.q.data(), a.attended.data()));
  matmul(a.attended.data(), layer.wo.data(), a.projected.data(), a.rows, q_width, width);
  add_to_residual();

  norm_rows(layer.ffn_norm);
  matmul(a.normed.data(), layer.gate.data(), a.gate.data(), a.rows, width, config_.ffn);
  matmul(a.normed.data(), layer.up.data(), a.up.data(), a.rows, width, config_.ffn);
  swiglu(a.gate.data(), a.up.data(), a.rows * config_.ffn);
  matmul(a.gate.data(), layer.down.data(), a.projected.data(), a.rows, config_.ffn, width);
  add_to_residual();
  return {};
}

Outcome<void> Llama::forward(const Batch& batch, Attention& attention, std::vector<float>& logits) {
  KVANT_TRY(check(batch));
  const uint32_t width = config_.width;
  Activations a;
  a.rows = batch.tokens.size();
  a.residual.resize(a.rows * width);
  a.normed.resize(a.rows * width);
  a.projected.resize(a.rows * width);
  a.q.resize(a.rows * config_.q_heads * config_.head_dim);
  a.attended.resize(a.q.size());
  a.k.resize(a.rows * config_.kv_heads * config_.head_dim);
  a.v.resize(a.k.size());
  a.gate.resize(a.rows * config_.ffn);
  a.up.resize(a.gate.size());
  a.positions = batch.positions;
  if (a.positions.empty()) {
    for (const BatchEntry& entry : batch.entries) {
      for (uint32_t i = 0; i < entry.count; ++i) {
        a.positions.push_back(entry.position + i);
      }
    }
  }
  for (size_t row = 0; row < a.rows; ++row) {
    std::copy_n(&embedding_[size_t{batch.tokens[row]} * width], width, &a.residual[row * width]);
  }

  KVANT_TRY(attention.begin(batch.entries));
  const uint32_t layers = batch.layers != 0 ? batch.layers : config_.layers;
  for (uint32_t index = 0; index < layers; ++index) {
    if (auto ran = block(index, batch, attention, a); !ran.ok()) {
      attention.abort();
      return ran;
    }
  }
  if (auto committed = attention.commit(); !committed.ok()) {
    attention.abort();
    return committed;
  }

  const size_t wanted = batch.logit_rows.size();
  logits.resize(wanted * config_.vocabulary);
  if (wanted == 0) {
    return {};
  }
  std::vector<float> last(wanted * width);
  for (size_t i = 0; i < wanted; ++i) {
    rms_norm(&a.residual[size_t{batch.logit_rows[i]} * width], output_norm_.data(), config_.epsilon, width,
             &last[i * width]);
  }
  matmul(last.data(), output_.data(), logits.data(), wanted, width, config_.vocabulary);
  return {};
}

}  // namespace kvant::engine
