#include "transforms.hpp"

#include "params/types.h"
#include "random.hpp"
#include "rotation.hpp"

namespace kvant::conformance {
namespace {

constexpr std::uint64_t kStream = 400;  // and the next

bool rotated(const Case& c, Side side) { return side == Side::k ? c.rotate_k : c.rotate_v; }
bool centred(const Case& c, Side side) { return side == Side::k ? c.centre_k : c.centre_v; }
std::uint32_t dim_of(const Case& c, Side side) { return side == Side::k ? c.dim_k : c.dim_v; }

std::string sides_name(const char* name, bool k, bool v) { return !k && !v ? "" : std::string(name) + (k ? "K" : "") + (v ? "V" : ""); }

}  // namespace

std::string transform_name(const Case& c) { return sides_name(".rot", c.rotate_k, c.rotate_v) + sides_name(".cen", c.centre_k, c.centre_v); }

std::uint32_t transform_flags(const Case& c) {
  return (c.rotate_k ? KVANT_ROTATE_K : 0) | (c.rotate_v ? KVANT_ROTATE_V : 0) | (c.centre_k ? KVANT_CENTRE_K : 0) |
         (c.centre_v ? KVANT_CENTRE_V : 0);
}

std::vector<float> given_means(std::uint64_t seed, const Case& c, Side side, std::uint32_t kv_heads) {
  if (!centred(c, side)) return {};
  return make_tensor(Random(seed, c.name, kStream + static_cast<std::uint64_t>(side)), DataClass::normal, 1, kv_heads, dim_of(c, side));
}

std::vector<float> stored_means(std::uint64_t seed, const Case& c, Side side, std::uint32_t kv_heads) {
  std::vector<float> means = given_means(seed, c, side, kv_heads);
  const std::size_t dim = dim_of(c, side);
  for (std::size_t at = 0; rotated(c, side) && at < means.size(); at += dim) rotate_row(std::span(means).subspan(at, dim));
  return means;
}

void store_rows(std::span<float> rows, const Case& c, Side side, std::span<const float> means) {
  const std::size_t dim = dim_of(c, side);
  for (std::size_t at = 0; rotated(c, side) && at < rows.size(); at += dim) rotate_row(rows.subspan(at, dim));
  for (std::size_t i = 0; !means.empty() && i < rows.size(); ++i) rows[i] -= means[i % means.size()];
}

void give_back_rows(std::span<float> rows, const Case& c, Side side, std::span<const float> means) {
  const std::size_t dim = dim_of(c, side);
  for (std::size_t i = 0; !means.empty() && i < rows.size(); ++i) rows[i] += means[i % means.size()];
  for (std::size_t at = 0; rotated(c, side) && at < rows.size(); at += dim) rotate_row_back(rows.subspan(at, dim));
}

}  // namespace kvant::conformance
