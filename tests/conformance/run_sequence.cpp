// Runs scripts of sequence operations on a cache of two layers and compares every stored token, as canonical bytes and as
// decoded values, with a model that knows nothing of pages.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cache_debug.hpp"
#include "cpu_executor.hpp"
#include "run_case.hpp"
#include "step.hpp"
#include "probe_executor.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

constexpr std::uint32_t kLayers = 2;

// The model: tokens by number, sequences as lists of numbers, and the canonical bytes that each token must have.
class Script {
 public:
  Script(Executor& executor, const RunContext& context, const Case& c) : executor_(executor), context_(context), c_(c) {
    formats_[0] = {c.format_k, c.format_v};
    formats_[1] = {c.format_v, c.format_k};
  }

  Status run() {
    CacheSpec spec;
    for (const auto& formats : formats_) {
      LayerSpec layer;
      layer.kv_heads = c_.kv_heads;
      layer.head_dim_k = c_.dim_k;
      layer.head_dim_v = c_.dim_v;
      layer.format_k = formats[0];
      layer.format_v = formats[1];
      layer.rotate_k = c_.rotate_k;
      layer.rotate_v = c_.rotate_v;
      layer.centre_k = c_.centre_k;
      layer.centre_v = c_.centre_v;
      layer.means_k = given_means(context_.seed, c_, Side::k, c_.kv_heads);
      layer.means_v = given_means(context_.seed, c_, Side::v, c_.kv_heads);
      spec.layers.push_back(layer);
    }
    spec.page_tokens = c_.page_tokens;
    spec.capacity_tokens = std::uint64_t{c_.length} * 4 + 8 * c_.page_tokens;
    GeometryOptions options;
    options.max_pages_per_slab = c_.page_tokens == 16 ? 3 : 0;
    KVANT_ASSIGN(cache_, create_cache(executor_, spec, Log{}, options));
    switch (c_.variant) {
      case 0: return fork();
      case 1: return truncate();
      case 2: return abort();
      default: return reuse();
    }
  }

  // All that was read back, and what the model says it should be.
  Bytes actual, expected;

 private:
  std::uint32_t dim(std::uint32_t side) const { return side == 0 ? c_.dim_k : c_.dim_v; }

  std::vector<float> rows(std::uint32_t token, std::uint32_t layer, std::uint32_t side) const {
    return make_tensor(Random(context_.seed, c_.name, (std::uint64_t{token} * kLayers + layer) * 2 + side), c_.data, 1, c_.kv_heads,
                       dim(side));
  }

  // Rows as they lie in pages, and as they were appended.
  std::vector<float> stored(std::vector<float> x, std::uint32_t side) const {
    store_rows(x, c_, static_cast<Side>(side), stored_means(context_.seed, c_, static_cast<Side>(side), c_.kv_heads));
    return x;
  }
  std::vector<float> given_back(std::vector<float> x, std::uint32_t side) const {
    give_back_rows(x, c_, static_cast<Side>(side), stored_means(context_.seed, c_, static_cast<Side>(side), c_.kv_heads));
    return x;
  }

  Bytes encode(FormatId id, std::span<const float> x, std::uint32_t width) const {
    const FormatInfo& format = format_info(id);
    const auto row_bytes = static_cast<std::size_t>(canonical_row_bytes(format, width));
    Bytes bytes(row_bytes * c_.kv_heads);
    for (std::uint32_t head = 0; head < c_.kv_heads; ++head)
      encode_canonical_row(format, x.subspan(std::size_t{head} * width, width), std::span(bytes).subspan(head * row_bytes, row_bytes));
    return bytes;
  }

  std::vector<float> decode(FormatId id, std::span<const std::byte> bytes, std::uint32_t width) const {
    const FormatInfo& format = format_info(id);
    const auto row_bytes = static_cast<std::size_t>(canonical_row_bytes(format, width));
    std::vector<float> x(std::size_t{c_.kv_heads} * width);
    for (std::uint32_t head = 0; head < c_.kv_heads; ++head)
      decode_canonical_row(format, bytes.subspan(head * row_bytes, row_bytes), std::span(x).subspan(std::size_t{head} * width, width));
    return x;
  }

  Result<SequenceId> create() {
    KVANT_ASSIGN(const SequenceId id, cache_->create_sequence());
    model_[id] = {};
    return id;
  }

  // Appends fresh tokens in one step; keeps them or aborts after the layers given.
  Status append(SequenceId id, std::uint32_t count, bool keep = true, std::uint32_t layers = kLayers) {
    const std::uint32_t first = next_token_;
    next_token_ += count;
    StepEntry entry;
    entry.sequence = id;
    entry.append = count;
    KVANT_ASSIGN(std::unique_ptr<Step> step, cache_->plan({&entry, 1}));
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      std::array<std::vector<float>, 2> tensors;
      for (std::uint32_t side = 0; side < 2; ++side)
        for (std::uint32_t i = 0; i < count; ++i) {
          const auto x = rows(first + i, layer, side);
          tensors[side].insert(tensors[side].end(), x.begin(), x.end());
          if (keep) bytes_[{first + i, layer, side}] = encode(formats_[layer][side], stored(x, side), dim(side));
        }
      RunArgs args;
      args.k = view(tensors[0], 0);
      args.v = view(tensors[1], 1);
      args.q_heads = c_.kv_heads * c_.group;
      KVANT_TRY(cache_->run(*step, layer, args));
    }
    if (!keep) {
      cache_->abort(std::move(step));
      return {};
    }
    KVANT_TRY(cache_->commit(std::move(step)));
    for (std::uint32_t i = 0; i < count; ++i) model_[id].push_back(first + i);
    return {};
  }

  TensorView view(std::vector<float>& x, std::uint32_t side) const {
    TensorView v;
    v.host = reinterpret_cast<std::byte*>(x.data());
    v.token_stride = std::uint64_t{c_.kv_heads} * dim(side);
    v.head_stride = dim(side);
    return v;
  }

  // Reads everything of every sequence, both ways, and notes it beside the model's bytes.
  Status check() {
    for (const auto& [id, tokens] : model_) {
      KVANT_ASSIGN(const std::uint64_t length, cache_->sequence_length(id));
      if (length != tokens.size())
        return Status(StatusCode::internal, "sequence holds " + std::to_string(length) + " tokens, expected " + std::to_string(tokens.size()));
      if (tokens.empty()) continue;
      for (std::uint32_t layer = 0; layer < kLayers; ++layer)
        for (std::uint32_t side = 0; side < 2; ++side) {
          const FormatId format = formats_[layer][side];
          const std::uint64_t token_bytes = canonical_row_bytes(format_info(format), dim(side)) * c_.kv_heads;
          Bytes read(static_cast<std::size_t>(token_bytes * length), kCanaryByte);
          KVANT_TRY(cache_->read_canonical(id, layer, static_cast<Side>(side), 0, length, read));
          actual.insert(actual.end(), read.begin(), read.end());
          const std::uint64_t begin = length / 3;
          std::vector<float> decoded((length - begin) * c_.kv_heads * dim(side));
          KVANT_TRY(cache_->read(id, layer, static_cast<Side>(side), begin, length - begin, view(decoded, side)));
          const Bytes decoded_bytes = to_bytes(std::span<const float>(decoded));
          actual.insert(actual.end(), decoded_bytes.begin(), decoded_bytes.end());
          for (const std::uint32_t token : tokens) {
            const Bytes& bytes = bytes_[{token, layer, side}];
            expected.insert(expected.end(), bytes.begin(), bytes.end());
          }
          for (std::uint64_t i = begin; i < length; ++i) {
            const std::vector<float> row = given_back(decode(format, bytes_[{tokens[i], layer, side}], dim(side)), side);
            const Bytes x = to_bytes(std::span<const float>(row));
            expected.insert(expected.end(), x.begin(), x.end());
          }
        }
    }
    return {};
  }

  Status fork() {
    KVANT_ASSIGN(const SequenceId a, create());
    KVANT_TRY(append(a, c_.length));
    const std::uint32_t half = c_.length / 2 + 3;
    KVANT_ASSIGN(const SequenceId b, cache_->fork_sequence(a, half));
    model_[b].assign(model_[a].begin(), model_[a].begin() + half);
    KVANT_ASSIGN(const SequenceId d, cache_->fork_sequence(a, c_.length));
    model_[d] = model_[a];
    KVANT_TRY(append(b, 5));
    KVANT_TRY(append(a, 7));  // must not reach the fork that shares its open page
    KVANT_TRY(check());
    KVANT_TRY(cache_->destroy_sequence(a));
    model_.erase(a);
    KVANT_TRY(append(d, 2));
    return check();
  }

  Status truncate() {
    KVANT_ASSIGN(const SequenceId a, create());
    KVANT_TRY(append(a, c_.length));
    KVANT_TRY(cut(a, c_.length - c_.page_tokens - 1));
    KVANT_TRY(append(a, 9));
    KVANT_TRY(check());
    KVANT_TRY(cut(a, c_.page_tokens));
    KVANT_TRY(append(a, 1));
    KVANT_TRY(cut(a, 0));
    KVANT_TRY(append(a, 3));
    return check();
  }

  Status cut(SequenceId id, std::uint32_t tokens) {
    KVANT_TRY(cache_->truncate_sequence(id, tokens));
    model_[id].resize(tokens);
    return {};
  }

  Status abort() {
    KVANT_ASSIGN(const SequenceId a, create());
    KVANT_TRY(append(a, c_.length));
    KVANT_ASSIGN(const SequenceId b, cache_->fork_sequence(a, c_.length - 1));
    model_[b].assign(model_[a].begin(), model_[a].end() - 1);
    KVANT_TRY(append(a, 6, false, 1));
    KVANT_TRY(append(b, c_.page_tokens + 1, false));
    KVANT_TRY(check());
    KVANT_TRY(append(a, 4));
    KVANT_TRY(append(b, 4));
    return check();
  }

  Status reuse() {
    KVANT_ASSIGN(const SequenceId a, create());
    KVANT_ASSIGN(const SequenceId b, create());
    KVANT_TRY(append(a, c_.length));
    KVANT_TRY(append(b, c_.length / 2));
    KVANT_TRY(cache_->destroy_sequence(a));
    model_.erase(a);
    KVANT_ASSIGN(const SequenceId d, create());
    KVANT_TRY(append(d, c_.length + 1));  // pages of the destroyed sequence
    KVANT_TRY(check());
    KVANT_TRY(convert(0, 0));
    KVANT_TRY(append(b, 3));
    return check();
  }

  Status convert(std::uint32_t layer, std::uint32_t side) {
    const FormatId from = formats_[layer][side];
    const FormatId to = formats()[(static_cast<std::size_t>(from) + 4) % formats().size()].id;
    KVANT_TRY(cache_->convert(layer, static_cast<Side>(side), to));
    for (auto& [key, bytes] : bytes_)
      if (key[1] == layer && key[2] == side) bytes = encode(to, decode(from, bytes, dim(side)), dim(side));
    formats_[layer][side] = to;
    return {};
  }

  Executor& executor_;
  const RunContext& context_;
  const Case& c_;
  std::unique_ptr<Cache> cache_;
  std::array<std::array<FormatId, 2>, kLayers> formats_;
  std::map<SequenceId, std::vector<std::uint32_t>> model_;
  std::map<std::array<std::uint32_t, 3>, Bytes> bytes_;  // token, layer, side
  std::uint32_t next_token_ = 0;
};

}  // namespace

CaseResult run_sequence_case(const RunContext& context, const Case& c) {
  CaseResult result;
  result.name = c.name;
  result.check = "exact";
  ProbeExecutor device(context.device);
  Script on_device(device, context, c);
  if (Status s = on_device.run(); !s.ok()) return error_result(c, s, "device");
  result.kernel = std::string(kernel_info(device.last_dispatch().kernel).name);
  reference::CpuExecutor cpu;
  cpu.set_limits(context.device.limits());
  Script on_cpu(cpu, context, c);
  if (Status s = on_cpu.run(); !s.ok()) return error_result(c, s, "CPU executor");
  result.figures = compare_bytes(on_device.actual, on_device.expected);
  conclude(result);
  if (const Comparison reference = compare_bytes(on_cpu.actual, on_cpu.expected); !reference.equal) {
    result.status = CaseStatus::fail;
    result.message = "the plan on the CPU executor: " + reference.message;
    return result;
  }
  Bytes shifted = on_device.expected;  // as if every read began one byte late
  std::rotate(shifted.begin(), shifted.begin() + 1, shifted.end());
  require_caught(result, !compare_bytes(on_device.actual, shifted).equal, "read one byte late");
  Bytes flipped = on_device.actual;
  flipped[flipped.size() / 2] ^= std::byte{1};
  require_caught(result, !compare_bytes(flipped, on_device.expected).equal, "flipped bit");
  return result;
}

}  // namespace kvant::conformance
