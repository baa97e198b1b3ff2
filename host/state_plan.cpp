#include "state_plan.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "cache_key.hpp"

namespace kvant {
namespace {

struct LayerField {
  const char* name;
  std::uint32_t LayerSpec::*member;
};
constexpr LayerField kLayerFields[] = {{"kv_heads", &LayerSpec::kv_heads},         {"head_dim_k", &LayerSpec::head_dim_k},
                                       {"head_dim_v", &LayerSpec::head_dim_v},     {"window", &LayerSpec::window},
                                       {"window_sinks", &LayerSpec::window_sinks}};

Status differs(const std::string& what, const std::string& saved, const std::string& own) {
  return {StatusCode::incompatible, what + " of the saved state is " + saved + "; this cache has " + own};
}

}  // namespace

void StatePlan::add(SavedSequence sequence, std::uint32_t page_tokens) {
  for (std::size_t g = 0; g < sequence.tables.size(); ++g)
    for (std::size_t i = 0; i < sequence.tables[g].size(); ++i) {
      std::int32_t& page = sequence.tables[g][i];
      if (page == kNoPage) continue;
      const auto [place, added] = numbers_[g].emplace(page, static_cast<std::int32_t>(pages_[g].size()));
      if (added) pages_[g].push_back({static_cast<std::uint32_t>(page), 0});
      FilledPage& held = pages_[g][static_cast<std::size_t>(place->second)];
      held.tokens = std::max(
          held.tokens, static_cast<std::uint32_t>(std::min<std::uint64_t>(page_tokens, sequence.length - i * page_tokens)));
      page = place->second;
    }
  sequences_.push_back(std::move(sequence));
}

void write_state_header(const CacheSpec& spec, const PrefixKey& content, std::span<const float> means, RecordFields& fields) {
  fields.text(spec.model_id);
  fields.text(spec.rope);
  fields.u32(spec.page_tokens);
  fields.u32(static_cast<std::uint32_t>(spec.layers.size()));
  for (const LayerSpec& layer : spec.layers) {
    for (const LayerField& field : kLayerFields) fields.u32(layer.*field.member);
    for (const Side side : {Side::k, Side::v}) fields.text(side_text(layer, side));
  }
  for (const float mean : means) fields.u32(std::bit_cast<std::uint32_t>(mean));
  fields.bytes(content.bytes);
}

Status check_state_header(const CacheSpec& spec, const PrefixKey& content, FieldReader fields, std::span<float> means) {
  if (const std::string model = fields.text(); fields.ok() && model != spec.model_id)
    return differs("model_id", "\"" + model + "\"", "\"" + spec.model_id + "\"");
  if (const std::string rope = fields.text(); fields.ok() && rope != spec.rope)
    return differs("rope", "\"" + rope + "\"", "\"" + spec.rope + "\"");
  if (const std::uint32_t tokens = fields.u32(); fields.ok() && tokens != spec.page_tokens)
    return differs("page_tokens", std::to_string(tokens), std::to_string(spec.page_tokens));
  if (const std::uint32_t layers = fields.u32(); fields.ok() && layers != spec.layers.size())
    return differs("the number of layers", std::to_string(layers), std::to_string(spec.layers.size()));
  for (std::size_t i = 0; i < spec.layers.size() && fields.ok(); ++i) {
    const std::string of_layer = " of layer " + std::to_string(i);
    for (const LayerField& field : kLayerFields)
      if (const std::uint32_t value = fields.u32(); fields.ok() && value != spec.layers[i].*field.member)
        return differs(field.name + of_layer, std::to_string(value), std::to_string(spec.layers[i].*field.member));
    for (const Side side : {Side::k, Side::v}) {
      const std::string saved = fields.text(), own = side_text(spec.layers[i], side);
      if (fields.ok() && saved != own) return differs("a format" + of_layer, saved, own);
    }
  }
  for (float& mean : means) mean = std::bit_cast<float>(fields.u32());
  const std::span<const std::byte> key = fields.bytes(content.bytes.size());
  if (!fields.finished()) return {StatusCode::data_loss, "the header of the saved state is not whole"};
  if (std::memcmp(key.data(), content.bytes.data(), key.size()) != 0)
    return {StatusCode::data_loss, "the header of the saved state does not have the key of its own content"};
  return {};
}

void write_state_sequence(const SavedSequence& sequence, RecordFields& fields) {
  fields.u64(sequence.id);
  fields.u64(sequence.length);
  fields.u32(sequence.publish.priority);
  fields.u64(sequence.publish.ttl_ms);
  fields.u32(sequence.pruned ? 1 : 0);
  fields.u64(sequence.least_length);
  fields.text(sequence.salt);
  fields.u64(sequence.tokens.size());
  for (const std::int32_t token : sequence.tokens) fields.u32(static_cast<std::uint32_t>(token));
  for (const std::vector<std::int32_t>& table : sequence.tables) {
    fields.u64(table.size());
    for (const std::int32_t page : table) fields.u32(static_cast<std::uint32_t>(page));
  }
}

bool read_state_sequence(FieldReader& fields, std::size_t groups, SavedSequence& sequence) {
  const auto numbers = [&](std::vector<std::int32_t>& out) {
    const std::uint64_t count = fields.u64();
    if (!fields.ok() || count > fields.left() / 4) return false;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) out.push_back(static_cast<std::int32_t>(fields.u32()));
    return true;
  };
  sequence.id = fields.u64();
  sequence.length = fields.u64();
  sequence.publish.priority = fields.u32();
  sequence.publish.ttl_ms = fields.u64();
  sequence.pruned = fields.u32() != 0;
  sequence.least_length = fields.u64();
  sequence.salt = fields.text();
  if (!numbers(sequence.tokens)) return false;
  sequence.tables.resize(groups);
  for (std::vector<std::int32_t>& table : sequence.tables)
    if (!numbers(table)) return false;
  return fields.finished();
}

}  // namespace kvant
