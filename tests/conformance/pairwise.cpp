#include "pairwise.hpp"

#include <cstddef>

#include "random.hpp"

namespace kvant::conformance {

namespace {

// Which pairs of (axis, value) are still to be covered.
class Uncovered {
 public:
  explicit Uncovered(const std::vector<std::uint32_t>& sizes) : first_(sizes.size()) {
    for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
      first_[axis] = total_;
      total_ += sizes[axis];
    }
    open_.assign(total_ * total_, false);
    for (std::size_t a = 0; a < sizes.size(); ++a)
      for (std::size_t b = a + 1; b < sizes.size(); ++b)
        for (std::uint32_t x = 0; x < sizes[a]; ++x)
          for (std::uint32_t y = 0; y < sizes[b]; ++y) set(a, x, b, y, true);
  }

  bool open(std::size_t a, std::uint32_t x, std::size_t b, std::uint32_t y) const {
    return open_[(first_[a] + x) * total_ + first_[b] + y];
  }
  void close(std::size_t a, std::uint32_t x, std::size_t b, std::uint32_t y) { set(a, x, b, y, false); }
  std::size_t left() const { return left_; }

 private:
  void set(std::size_t a, std::uint32_t x, std::size_t b, std::uint32_t y, bool value) {
    const std::size_t i = (first_[a] + x) * total_ + first_[b] + y, j = (first_[b] + y) * total_ + first_[a] + x;
    if (open_[i] == value) return;
    open_[i] = open_[j] = value;
    left_ += value ? 1u : static_cast<std::size_t>(-1);
  }

  std::vector<std::size_t> first_;
  std::vector<bool> open_;
  std::size_t total_ = 0, left_ = 0;
};

}  // namespace

std::vector<std::vector<std::uint32_t>> pairwise_rows(const std::vector<std::uint32_t>& sizes) {
  constexpr std::uint32_t kUnset = 0xFFFFFFFFu;
  const Random random(0, "pairwise", 0);
  Uncovered uncovered(sizes);
  std::vector<std::vector<std::uint32_t>> rows;
  std::uint64_t draw = 0;
  while (uncovered.left() > 0) {
    std::vector<std::uint32_t> row(sizes.size(), kUnset);
    // Start from an open pair, then give each axis in turn the value that closes the most pairs with the axes already set.
    [&] {
      for (std::size_t a = 0; a < sizes.size(); ++a)
        for (std::size_t b = a + 1; b < sizes.size(); ++b)
          for (std::uint32_t x = 0; x < sizes[a]; ++x)
            for (std::uint32_t y = 0; y < sizes[b]; ++y)
              if (uncovered.open(a, x, b, y)) {
                row[a] = x;
                row[b] = y;
                return;
              }
    }();
    for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
      if (row[axis] != kUnset) continue;
      const std::uint32_t start = random.below(draw++, sizes[axis]);  // ties go to a varying value
      std::uint32_t best = start;
      std::size_t best_gain = 0;
      for (std::uint32_t i = 0; i < sizes[axis]; ++i) {
        const std::uint32_t value = (start + i) % sizes[axis];
        std::size_t gain = 0;
        for (std::size_t other = 0; other < sizes.size(); ++other)
          if (other != axis && row[other] != kUnset && uncovered.open(axis, value, other, row[other])) ++gain;
        if (gain > best_gain) {
          best_gain = gain;
          best = value;
        }
      }
      row[axis] = best;
    }
    for (std::size_t a = 0; a < sizes.size(); ++a)
      for (std::size_t b = a + 1; b < sizes.size(); ++b) uncovered.close(a, row[a], b, row[b]);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kvant::conformance
