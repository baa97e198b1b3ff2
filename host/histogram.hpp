// LatencyHistogram: durations in fixed buckets, four an octave from 1 microsecond to 134 s. Fixed buckets merge and
// subtract exactly, whoever counted; four an octave keep quantiles within 9.1 %, and every fourth bound is a whole
// octave, so that a coarser export of 27 buckets needs no guess. Thread rule: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kvant {

class LatencyHistogram {
 public:
  static constexpr std::size_t kPerOctave = 4;
  static constexpr std::size_t kOctaves = 27;
  static constexpr std::size_t kBounds = kPerOctave * kOctaves + 1;  // 1 us, ..., 2^27 us
  static constexpr std::size_t kBuckets = kBounds + 1;               // the last one: longer than every bound
  // Largest relative error of quantile() for values between the first bound and the last one: 2^(1/8) - 1.
  static constexpr double kRelativeError = 0.0906;

  // Upper bound of a bucket, in seconds, which belongs to the bucket; `bucket` below kBounds.
  static double bound(std::size_t bucket);

  // What is negative or no number counts as 0, what is longer than 10^9 s as that: a broken clock must not spoil the
  // sum.
  void add(double seconds);
  void merge(const LatencyHistogram& other);
  // What was added since `earlier`, a former state of this histogram. All of it if `earlier` is none (it was reset
  // since).
  LatencyHistogram since(const LatencyHistogram& earlier) const;

  std::uint64_t count() const { return count_; }
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket]; }
  double sum() const { return sum_; }
  // Both exact; 0 without values. After since() they are those of the whole.
  double least() const { return count_ == 0 ? 0 : least_; }
  double greatest() const { return count_ == 0 ? 0 : greatest_; }
  // The value of nearest rank: the smallest one that at least q of all values do not exceed, as the geometric middle of
  // its bucket, never outside of the least and greatest values. q is cut to 0..1; 0 without values. Values up to 1 us
  // read as at most 1 us, values past the last bound as the greatest.
  double quantile(double q) const;

 private:
  std::array<std::uint64_t, kBuckets> counts_ = {};
  std::uint64_t count_ = 0;
  double sum_ = 0, least_ = 0, greatest_ = 0;
};

}  // namespace kvant
