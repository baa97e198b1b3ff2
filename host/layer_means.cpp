#include "layer_means.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "rotation.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kAlignment = 256;  // at least binding_alignment of any device

std::uint32_t bit_of(Side side) { return side == Side::k ? 1 : 2; }

}  // namespace

Status LayerMeans::create(const CacheSpec& spec) {
  layers_.resize(spec.layers.size());
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const LayerSpec& layer = spec.layers[i];
    if (!layer.centre_k && !layer.centre_v) continue;
    Layer& facts = layers_[i];
    const auto index = static_cast<std::uint32_t>(i);
    facts.centred = true;
    facts.measured = (layer.centre_k && layer.means_k.empty() ? 1 : 0) | (layer.centre_v && layer.means_v.empty() ? 2 : 0);
    facts.state = facts.measured != 0 ? State::open : State::settled;
    facts.offset = bytes_;
    const std::uint64_t k_bytes = (side_bytes(index, Side::k) + kAlignment - 1) / kAlignment * kAlignment;
    facts.v_offset = static_cast<std::uint32_t>(k_bytes / sizeof(float));
    bytes_ += k_bytes + (side_bytes(index, Side::v) + kAlignment - 1) / kAlignment * kAlignment;
  }
  if (bytes_ == 0) return {};
  KVANT_ASSIGN(buffer_, executor_.create_buffer(bytes_, BufferKind::device));
  CommandList list;
  list.add_fill({{buffer_, 0, bytes_}, 0}, "clear means", false);
  KVANT_TRY(executor_.submit(list).status());
  for (std::uint32_t i = 0; i < layers_.size(); ++i)
    for (const Side side : {Side::k, Side::v}) {
      std::vector<float> given = side == Side::k ? spec.layers[i].means_k : spec.layers[i].means_v;
      if (given.empty()) continue;
      const std::uint32_t dim = geometry_.layers[i].side(side).head_dim;
      if (side == Side::k ? spec.layers[i].rotate_k : spec.layers[i].rotate_v)
        for (std::size_t at = 0; at < given.size(); at += dim) rotate_row(std::span(given).subspan(at, dim));
      KVANT_TRY(upload(i, side, given));
    }
  return {};
}

std::uint64_t LayerMeans::side_bytes(std::uint32_t layer, Side side) const {
  return std::uint64_t{geometry_.group_of(layer).kv_heads} * geometry_.layers[layer].side(side).head_dim * sizeof(float);
}

BufferRange LayerMeans::range(std::uint32_t layer) const {
  const Layer& facts = layers_[layer];
  if (!facts.centred) return {};
  return {buffer_, facts.offset, facts.v_offset * sizeof(float) + side_bytes(layer, Side::v)};
}

BufferRange LayerMeans::range(std::uint32_t layer, Side side) const {
  const Layer& facts = layers_[layer];
  if (!facts.centred) return {};
  return {buffer_, facts.offset + (side == Side::v ? facts.v_offset * sizeof(float) : 0), side_bytes(layer, side)};
}

void LayerMeans::settle(std::uint32_t layer, bool measured) {
  Layer& facts = layers_[layer];
  if (facts.state != State::open) return;
  facts.state = measured ? State::settled : State::passed;
  waiting_ = waiting_ || !measured;
}

void LayerMeans::reopen() {
  for (Layer& layer : layers_)
    if (layer.state == State::passed) layer.state = State::open;
  waiting_ = false;
}

bool LayerMeans::any_measured() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const Layer& layer) { return layer.measured != 0; });
}

template <typename Visit>
Status LayerMeans::for_measured(Visit visit) const {
  std::uint64_t first = 0;
  for (std::uint32_t i = 0; i < layers_.size(); ++i)
    for (const Side side : {Side::k, Side::v}) {
      if ((layers_[i].measured & bit_of(side)) == 0) continue;
      const std::uint64_t count = side_bytes(i, side) / sizeof(float);
      KVANT_TRY(visit(i, side, first, count));
      first += count;
    }
  return {};
}

std::uint64_t LayerMeans::measured_floats() const {
  std::uint64_t floats = 0;
  for (std::uint32_t i = 0; i < layers_.size(); ++i)
    for (const Side side : {Side::k, Side::v})
      if ((layers_[i].measured & bit_of(side)) != 0) floats += side_bytes(i, side) / sizeof(float);
  return floats;
}

Result<std::vector<float>> LayerMeans::download(std::uint32_t layer, Side side) const {
  std::vector<float> means(side_bytes(layer, side) / sizeof(float), 0.0f);
  const BufferRange source = range(layer, side);
  if (source.buffer == BufferId::none) return means;
  KVANT_ASSIGN(const Staging staging, executor_.stage(source.size, BufferKind::readback));
  CommandList list;
  list.add_copy({source.buffer, source.offset, staging.range.buffer, staging.range.offset, source.size}, "download means", true);
  KVANT_ASSIGN(const Ticket ticket, executor_.submit(list));
  KVANT_TRY(executor_.wait(ticket));
  std::memcpy(means.data(), staging.data, source.size);
  return means;
}

Result<std::vector<float>> LayerMeans::download() const {
  std::vector<float> all;
  KVANT_TRY(for_measured([&](std::uint32_t layer, Side side, std::uint64_t, std::uint64_t) -> Status {
    KVANT_ASSIGN(const std::vector<float> means, download(layer, side));
    all.insert(all.end(), means.begin(), means.end());
    return {};
  }));
  return all;
}

Status LayerMeans::upload(std::uint32_t layer, Side side, std::span<const float> means) {
  const BufferRange target = range(layer, side);
  KVANT_ASSIGN(const Staging staging, executor_.stage(target.size, BufferKind::upload));
  std::memcpy(staging.data, means.data(), target.size);
  CommandList list;
  list.add_copy({staging.range.buffer, staging.range.offset, target.buffer, target.offset, target.size}, "upload means", true);
  return executor_.submit(list).status();
}

Status LayerMeans::check(std::span<const float> saved) const {
  return for_measured([&](std::uint32_t layer, Side side, std::uint64_t first, std::uint64_t count) -> Status {
    if (layers_[layer].state == State::open) return {};
    KVANT_ASSIGN(const std::vector<float> own, download(layer, side));
    if (std::memcmp(own.data(), saved.data() + first, count * sizeof(float)) == 0) return {};
    return {StatusCode::incompatible, std::string("the means of ") + (side == Side::k ? "K" : "V") + " of layer " + std::to_string(layer) +
                                          " of the saved state are others than those under which this cache holds rows"};
  });
}

Status LayerMeans::adopt(std::span<const float> saved) {
  std::vector<std::uint32_t> taken;
  KVANT_TRY(for_measured([&](std::uint32_t layer, Side side, std::uint64_t first, std::uint64_t count) -> Status {
    if (layers_[layer].state != State::open) return {};
    if (taken.empty() || taken.back() != layer) taken.push_back(layer);
    return upload(layer, side, saved.subspan(first, count));
  }));
  for (const std::uint32_t layer : taken) settle(layer, true);
  return {};
}

}  // namespace kvant
