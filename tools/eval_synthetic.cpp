// The figures of kvant eval by format: errors of made-up data after one trip through the stand-alone conversion, and
// the memory of a large cache.
#include "eval.hpp"
#include "made_up.hpp"

namespace kvant::tools {

namespace {

constexpr uint64_t kVectors = 4096;
constexpr uint32_t kHeadDim = 128, kSmallHeadDim = 64;

// One page of a cache with 64 heads of 128, as held; a cache of 80 layers and 2048 tokens is so many of them.
Outcome<uint64_t> bytes_of_65b(const std::shared_ptr<Device>& device, const FormatFacts& format) {
  constexpr uint32_t kHeads = 64, kDim = 128, kTokens = 16;
  constexpr uint64_t kLayers = 80, kContext = 2048;
  TensorSet page;
  page.layers = 1;
  page.tokens = kTokens;
  page.kv_heads = kHeads;
  page.head_dim = kDim;
  page.k.assign(page.kv_size(), 1.0f);
  page.v = page.k;
  auto held = HeldSet::fill(device, {format, format}, page);
  if (!held.ok()) {
    return held.failure();
  }
  const auto bytes = held->used_bytes();
  if (!bytes.ok()) {
    return bytes.failure();
  }
  return *bytes * (kContext / kTokens) * kLayers;
}

Outcome<std::vector<float>> there_and_back(const Device& device, const FormatFacts& format, uint32_t head_dim,
                                           const std::vector<float>& data) {
  const kvant_api& api = device.api();
  const uint64_t rows = data.size() / head_dim;
  uint64_t row_bytes = 0;
  KVANT_TRY(device.check(api.row_bytes(device.library()->context(), format.id, head_dim, &row_bytes)));
  std::vector<unsigned char> encoded(static_cast<size_t>(row_bytes * rows));
  std::vector<float> decoded(data.size());
  KVANT_TRY(device.check(api.quantize(device.handle(), format.id, head_dim, rows, data.data(),
                                      data.size() * sizeof(float), encoded.data(), encoded.size())));
  KVANT_TRY(device.check(api.dequantize(device.handle(), format.id, head_dim, rows, encoded.data(), encoded.size(),
                                        decoded.data(), decoded.size() * sizeof(float))));
  return decoded;
}

}  // namespace

Outcome<SyntheticFigures> eval_synthetic(const std::shared_ptr<Device>& device, const FormatFacts& format) {
  SyntheticFigures figures;
  figures.format = format;
  const auto add = [&](const std::string& name, bool keys, uint32_t head_dim,
                       const std::vector<float>& data) -> Outcome<void> {
    const auto decoded = there_and_back(*device, format, head_dim, data);
    if (!decoded.ok()) {
      return decoded.failure();
    }
    figures.sets.push_back({name, compare(data, *decoded), keys, keys ? centred_error(data, *decoded, head_dim) : 0.0});
    return {};
  };
  for (const MadeUp& data : made_up()) {
    KVANT_TRY(add(data.name, data.keys, kHeadDim, draw(data, kVectors, kHeadDim)));
    if (data.keys) {
      KVANT_TRY(add(data.name + ", d 64", data.keys, kSmallHeadDim, draw(data, kVectors, kSmallHeadDim)));
    }
  }
  KVANT_TRY(add("normal [2,32,512,64]", false, kSmallHeadDim, normal_values(5, size_t{2} * 32 * 512 * kSmallHeadDim)));
  const auto bytes = bytes_of_65b(device, format);
  if (!bytes.ok()) {
    return bytes.failure();
  }
  figures.bytes_65b = *bytes;
  return figures;
}

}  // namespace kvant::tools
