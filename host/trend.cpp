// Theil-Sen line and its dead band.
#include "trend.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvant {
namespace {

// Of two middle values their mean. Reorders `values`; 0 if there are none.
double take_median(std::vector<double>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

TrendLine fit_trend(std::span<const TrendPoint> points) {
  TrendLine line;
  if (points.empty()) return line;
  std::vector<double> numbers;
  numbers.reserve(points.size() * (points.size() - 1) / 2);
  for (std::size_t i = 0; i < points.size(); ++i)
    for (std::size_t j = i + 1; j < points.size(); ++j)
      if (points[j].time > points[i].time)
        numbers.push_back((points[j].value - points[i].value) / (points[j].time - points[i].time));
  const double slope = take_median(numbers);

  const auto each = [&](auto&& number_of) {
    numbers.clear();
    for (const TrendPoint& point : points) numbers.push_back(number_of(point));
    return take_median(numbers);
  };
  line.median = each([](const TrendPoint& point) { return point.value; });
  const double begin = points.front().time;
  line.first = each([&](const TrendPoint& point) { return point.value - slope * (point.time - begin); });
  line.last = line.first + slope * (points.back().time - begin);
  line.noise = 1.4826 * each([&](const TrendPoint& point) {
                 return std::abs(point.value - line.first - slope * (point.time - begin));
               });
  return line;
}

double noise_band(double noise, std::size_t points) {
  if (points == 0) return 0;
  return noise * std::max(2.0, 4 * std::sqrt(12 / static_cast<double>(points)));
}

}  // namespace kvant
