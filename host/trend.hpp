// Trend of a noisy series, by a robust line: up to 29 % of the points may be anything without moving it.
#pragma once

#include <cstddef>
#include <span>

namespace kvant {

struct TrendPoint {
  double time = 0, value = 0;
};

struct TrendLine {
  double first = 0, last = 0;  // of the line, at the first and last point's time
  double median = 0;           // of the values
  double noise = 0;            // standard deviation about the line, as 1.4826 times the median absolute deviation
};

// Theil-Sen: the median of the slopes of all pairs of points with different times, through the median of the residuals.
// Takes n^2 / 2 slopes. Points in order of time; nothing but finite numbers.
TrendLine fit_trend(std::span<const TrendPoint> points);

// A change below this is none: noise * max(2, 4 * sqrt(12 / n)). Of n points of pure noise, a line's ends differ with a
// standard deviation of about noise * sqrt(12 / n): four of them keep few points from being read as a trend, and two
// whole noises keep a drift out that nobody would see among many points.
double noise_band(double noise, std::size_t points);

}  // namespace kvant
