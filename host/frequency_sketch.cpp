// Conservative counting in four rows; all counters are halved after ten additions a cell, so that the past fades.
#include "frequency_sketch.hpp"

#include <algorithm>
#include <bit>

namespace kvant {

namespace {

constexpr std::uint64_t kLeastWidth = 64, kMostWidth = std::uint64_t{1} << 20, kAgeingPeriod = 10;

// The finalizer of SplitMix64: fingerprints that differ in few bits fall into unrelated cells.
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

}  // namespace

FrequencySketch::FrequencySketch(std::uint64_t capacity_entries)
    : width_(std::bit_ceil(std::clamp(capacity_entries, kLeastWidth, kMostWidth))), counters_(kRows * width_) {}

std::array<std::size_t, FrequencySketch::kRows> FrequencySketch::cells(std::uint64_t fingerprint) const {
  std::array<std::size_t, kRows> cells{};
  std::uint64_t hash = fingerprint;
  for (std::uint32_t row = 0; row < kRows; ++row) {
    hash = mix(hash + 0x9e3779b97f4a7c15u);
    cells[row] = row * width_ + (hash & (width_ - 1));
  }
  return cells;
}

void FrequencySketch::add(std::uint64_t fingerprint) {
  const std::uint8_t before = estimate(fingerprint);
  if (before < kMost)
    for (const std::size_t cell : cells(fingerprint))
      if (counters_[cell] == before) ++counters_[cell];
  if (++added_ < kAgeingPeriod * width_) return;
  for (std::uint8_t& counter : counters_) counter /= 2;
  added_ /= 2;
}

std::uint8_t FrequencySketch::estimate(std::uint64_t fingerprint) const {
  std::uint8_t least = kMost;
  for (const std::size_t cell : cells(fingerprint)) least = std::min(least, counters_[cell]);
  return least;
}

}  // namespace kvant
