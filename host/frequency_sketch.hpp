// FrequencySketch: about how often each fingerprint was seen of late, in memory that its size fixes (a count-min sketch
// that ages).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace kvant {

class FrequencySketch {
 public:
  static constexpr std::uint8_t kMost = 15;

  // Four bytes an entry, rounded up to a power of two and to at most 4 MiB.
  explicit FrequencySketch(std::uint64_t capacity_entries);

  void add(std::uint64_t fingerprint);
  // Never below what was added since the last ageing, up to kMost; above it where fingerprints collide in every row.
  std::uint8_t estimate(std::uint64_t fingerprint) const;

 private:
  static constexpr std::uint32_t kRows = 4;

  std::array<std::size_t, kRows> cells(std::uint64_t fingerprint) const;

  std::uint64_t width_;  // of a row, a power of two
  std::uint64_t added_ = 0;
  std::vector<std::uint8_t> counters_;
};

}  // namespace kvant
