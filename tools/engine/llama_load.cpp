// A Llama from a GGUF file: its configuration, checked, and its weights as floats.
#include "llama.hpp"

namespace kvant::engine {

using tools::bad_model;

namespace {

struct Range {
  uint64_t least;
  uint64_t most;
};

// Reads `llama.<key>` into `out`; the range keeps every product of sizes far from 64 bits.
Outcome<void> read_size(const GgufFile& file, const std::string& key, Range range, uint32_t& out) {
  const auto value = file.get_integer("llama." + key);
  if (!value.ok()) {
    return value.failure();
  }
  if (*value < range.least || *value > range.most) {
    return bad_model(file.name() + ": metadata 'llama." + key + "' (" + std::to_string(*value) + ") is not between " +
                     std::to_string(range.least) + " and " + std::to_string(range.most));
  }
  out = static_cast<uint32_t>(*value);
  return {};
}

Outcome<LlamaConfig> read_config(const GgufFile& file) {
  const auto architecture = file.get_string("general.architecture");
  if (!architecture.ok()) {
    return architecture.failure();
  }
  if (*architecture != "llama") {
    return bad_model(file.name() + ": metadata 'general.architecture' (" + *architecture + ") is not llama");
  }
  LlamaConfig config;
  KVANT_TRY(read_size(file, "block_count", {1, 1024}, config.layers));
  KVANT_TRY(read_size(file, "embedding_length", {8, 65536}, config.width));
  KVANT_TRY(read_size(file, "feed_forward_length", {8, 1u << 20}, config.ffn));
  KVANT_TRY(read_size(file, "attention.head_count", {1, 1024}, config.q_heads));
  KVANT_TRY(read_size(file, "context_length", {1, 1u << 24}, config.context));
  config.kv_heads = config.q_heads;
  if (file.metadata().contains("llama.attention.head_count_kv")) {
    KVANT_TRY(read_size(file, "attention.head_count_kv", {1, 1024}, config.kv_heads));
  }
  if (config.q_heads % config.kv_heads != 0) {
    return bad_model(file.name() + ": metadata 'llama.attention.head_count' (" + std::to_string(config.q_heads) +
                     ") is not a multiple of head_count_kv (" + std::to_string(config.kv_heads) + ")");
  }
  if (file.metadata().contains("llama.attention.key_length")) {
    KVANT_TRY(read_size(file, "attention.key_length", {8, 1024}, config.head_dim));
  } else if (config.width % config.q_heads != 0) {
    return bad_model(file.name() + ": metadata 'llama.embedding_length' (" + std::to_string(config.width) +
                     ") is not a multiple of the head count (" + std::to_string(config.q_heads) + ")");
  } else {
    config.head_dim = config.width / config.q_heads;
  }
  config.rope_dims = config.head_dim;
  if (file.metadata().contains("llama.rope.dimension_count")) {
    KVANT_TRY(read_size(file, "rope.dimension_count", {2, config.head_dim}, config.rope_dims));
  }
  if (config.rope_dims % 2 != 0) {
    return bad_model(file.name() + ": the RoPE dimension count (" + std::to_string(config.rope_dims) + ") is odd");
  }
  // 512 MiB of them: a file of a few bytes could ask for any number.
  if (uint64_t{config.context} * config.rope_dims > uint64_t{1} << 27) {
    return bad_model(file.name() + ": metadata 'llama.context_length' (" + std::to_string(config.context) +
                     ") is too long for this engine's position tables");
  }
  config.rope_base = file.get_float_or("llama.rope.freq_base", 10000.0);
  const auto epsilon = file.get_float("llama.attention.layer_norm_rms_epsilon");
  if (!epsilon.ok()) {
    return epsilon.failure();
  }
  config.epsilon = static_cast<float>(*epsilon);
  if (!(config.rope_base > 1.0) || !(config.epsilon > 0.0f)) {
    return bad_model(file.name() + ": the RoPE base is not above 1, or the RMS epsilon not above 0");
  }
  return config;
}

}  // namespace

Outcome<Llama> Llama::load(const GgufFile& file) {
  auto config = read_config(file);
  if (!config.ok()) {
    return config.failure();
  }
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end()) {
    return bad_model(file.name() + ": tensor 'token_embd.weight' is missing");
  }
  if (embedding->second.dims.size() != 2 || embedding->second.dims[1] > (1u << 24)) {
    return bad_model(file.name() + ": tensor 'token_embd.weight' is not a matrix of at most 2^24 rows");
  }
  config->vocabulary = static_cast<uint32_t>(embedding->second.dims[1]);

  Llama model(*config);
  const uint64_t width = config->width;
  const uint64_t q_width = uint64_t{config->q_heads} * config->head_dim;
  const uint64_t kv_width = uint64_t{config->kv_heads} * config->head_dim;
  const auto read = [&](const std::string& name, std::initializer_list<uint64_t> dims,
                        std::vector<float>& out) -> Outcome<void> {
    auto values = file.get_tensor(name, {dims.begin(), dims.size()});
    if (!values.ok()) {
      return values.failure();
    }
    out = std::move(*values);
    model.parameters_ += out.size();
    return {};
  };
  KVANT_TRY(read("token_embd.weight", {width, config->vocabulary}, model.embedding_));
  KVANT_TRY(read("output_norm.weight", {width}, model.output_norm_));
  if (file.tensors().contains("output.weight")) {
    KVANT_TRY(read("output.weight", {width, config->vocabulary}, model.output_));
  } else {
    model.output_ = model.embedding_;
  }
  model.layers_.resize(config->layers);
  for (uint32_t index = 0; index < config->layers; ++index) {
    Layer& layer = model.layers_[index];
    const std::string prefix = "blk." + std::to_string(index) + ".";
    KVANT_TRY(read(prefix + "attn_norm.weight", {width}, layer.attention_norm));
    KVANT_TRY(read(prefix + "attn_q.weight", {width, q_width}, layer.wq));
    KVANT_TRY(read(prefix + "attn_k.weight", {width, kv_width}, layer.wk));
    KVANT_TRY(read(prefix + "attn_v.weight", {width, kv_width}, layer.wv));
    KVANT_TRY(read(prefix + "attn_output.weight", {q_width, width}, layer.wo));
    KVANT_TRY(read(prefix + "ffn_norm.weight", {width}, layer.ffn_norm));
    KVANT_TRY(read(prefix + "ffn_gate.weight", {width, config->ffn}, layer.gate));
    KVANT_TRY(read(prefix + "ffn_up.weight", {width, config->ffn}, layer.up));
    KVANT_TRY(read(prefix + "ffn_down.weight", {config->ffn, width}, layer.down));
  }
  // Last: a file whose tensors are not there costs no tables.
  model.rope_ = Rope(config->rope_dims, config->rope_base, config->context);
  return model;
}

}  // namespace kvant::engine
