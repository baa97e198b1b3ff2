// Buckets of the latency histogram.
#include "histogram.hpp"

#include <algorithm>
#include <cmath>

namespace kvant {
namespace {

constexpr double kLongest = 1e9;  // seconds

constexpr std::array<double, LatencyHistogram::kBounds> make_bounds() {
  // Doubling is exact, so that every octave has the very same four steps.
  constexpr double kSteps[LatencyHistogram::kPerOctave] = {1.0, 1.1892071150027210667, 1.4142135623730950488,
                                                           1.6817928305074290861};
  std::array<double, LatencyHistogram::kBounds> bounds = {};
  double octave = 1e-6;
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    bounds[i] = octave * kSteps[i % LatencyHistogram::kPerOctave];
    if (i % LatencyHistogram::kPerOctave == LatencyHistogram::kPerOctave - 1) octave *= 2;
  }
  return bounds;
}
constexpr std::array<double, LatencyHistogram::kBounds> kUpper = make_bounds();

}  // namespace

double LatencyHistogram::bound(std::size_t bucket) { return kUpper[bucket]; }

void LatencyHistogram::add(double seconds) {
  const double value = seconds > 0 ? std::min(seconds, kLongest) : 0;  // false for what is no number
  const auto bucket = std::lower_bound(kUpper.begin(), kUpper.end(), value) - kUpper.begin();
  ++counts_[static_cast<std::size_t>(bucket)];
  least_ = count_ == 0 ? value : std::min(least_, value);
  greatest_ = count_ == 0 ? value : std::max(greatest_, value);
  ++count_;
  sum_ += value;
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  if (other.count_ == 0) return;
  least_ = count_ == 0 ? other.least_ : std::min(least_, other.least_);
  greatest_ = count_ == 0 ? other.greatest_ : std::max(greatest_, other.greatest_);
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
}

LatencyHistogram LatencyHistogram::since(const LatencyHistogram& earlier) const {
  LatencyHistogram result = *this;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    if (earlier.counts_[i] > counts_[i]) return *this;
    result.counts_[i] -= earlier.counts_[i];
  }
  result.count_ -= earlier.count_;
  result.sum_ = result.count_ == 0 ? 0 : std::max(0.0, sum_ - earlier.sum_);
  return result;
}

double LatencyHistogram::quantile(double q) const {
  if (count_ == 0) return 0;
  const double share = q > 0 ? std::min(q, 1.0) : 0;
  const double wanted = std::ceil(share * static_cast<double>(count_));
  // Rounding may carry the product past the count.
  const std::uint64_t rank =
      wanted >= static_cast<double>(count_) ? count_ : std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted));
  std::size_t bucket = 0;
  for (std::uint64_t below = counts_[0]; below < rank; below += counts_[bucket]) ++bucket;
  double value = greatest_;
  if (bucket == 0)
    value = kUpper[0];
  else if (bucket < kBounds)
    value = std::sqrt(kUpper[bucket - 1] * kUpper[bucket]);
  return std::clamp(value, least_, greatest_);
}

}  // namespace kvant
