#include "made_up.hpp"

#include <algorithm>
#include <cmath>

namespace kvant::tools {

namespace {

template <typename Value>
std::vector<float> fill(uint64_t rows, uint32_t head_dim, Value value) {
  std::vector<float> data(static_cast<size_t>(rows) * head_dim);
  std::generate(data.begin(), data.end(), value);
  return data;
}

float normal_value(std::mt19937_64& random) { return std::normal_distribution<float>()(random); }

std::vector<float> normal(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  return fill(rows, head_dim, [&] { return normal_value(random); });
}

std::vector<float> small(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  return fill(rows, head_dim, [&] { return 0.01f * normal_value(random); });
}

std::vector<float> uniform(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  return fill(rows, head_dim, [&] { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random); });
}

std::vector<float> bimodal(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  return fill(rows, head_dim, [&] { return ((random() & 1) != 0 ? 2.0f : -2.0f) + 0.5f * normal_value(random); });
}

// Student's t with 3 degrees of freedom: a finite variance, and values far outside it.
std::vector<float> heavy_tailed(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  return fill(rows, head_dim, [&] { return std::student_t_distribution<float>(3.0f)(random); });
}

// One channel of 32 lies around +8 or -8 with 2.5 times the others' deviation.
std::vector<float> outlier_keys(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  std::vector<float> data = normal(random, rows, head_dim);
  std::vector<uint32_t> channels;
  while (channels.size() < std::max(head_dim / 32, 1u)) {
    const auto channel = static_cast<uint32_t>(random() % head_dim);
    if (std::find(channels.begin(), channels.end(), channel) == channels.end()) {
      channels.push_back(channel);
    }
  }
  for (const uint32_t channel : channels) {
    const float mean = (random() & 1) != 0 ? 8.0f : -8.0f;
    for (uint64_t row = 0; row < rows; ++row) {
      float& value = data[row * head_dim + channel];
      value = mean + 2.5f * value;
    }
  }
  return data;
}

// A bias on four slow pairs before RoPE, which then turns all pairs (i, i + d / 2) by position and base 10^6: the
// biased pairs hardly move over the rows and stay as offsets.
std::vector<float> rope_keys(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  std::vector<float> data = normal(random, rows, head_dim);
  const uint32_t half = head_dim / 2;
  for (uint64_t row = 0; row < rows; ++row) {
    float* key = &data[row * head_dim];
    for (uint32_t i = half - 6; i < half - 2; ++i) {
      key[i] = 1.5f * (key[i] + 8.0f);
      key[i + half] -= 6.0f;
    }
    for (uint32_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(row) * std::pow(1e6, -static_cast<double>(i) / half);
      const double cosine = std::cos(angle), sine = std::sin(angle);
      const double x = static_cast<double>(key[i]), y = static_cast<double>(key[i + half]);
      key[i] = static_cast<float>(x * cosine - y * sine);
      key[i + half] = static_cast<float>(x * sine + y * cosine);
    }
  }
  return data;
}

// One channel far from zero in every key, as the bias of a key projection leaves it.
std::vector<float> biased_keys(std::mt19937_64& random, uint64_t rows, uint32_t head_dim) {
  std::vector<float> data = normal(random, rows, head_dim);
  for (uint64_t row = 0; row < rows; ++row) {
    data[row * head_dim + head_dim / 3] += 60.0f;
  }
  return data;
}

}  // namespace

const std::vector<MadeUp>& made_up() {
  static const std::vector<MadeUp> all = {{"normal", 1, false, normal},
                                          {"small (x 0.01)", 2, false, small},
                                          {"uniform", 3, false, uniform},
                                          {"bimodal", 4, false, bimodal},
                                          {"heavy-tailed (t3)", 6, false, heavy_tailed},
                                          {"K-outlier", 7, true, outlier_keys},
                                          {"K-rope", 8, true, rope_keys},
                                          {"K-bias (+60)", 9, true, biased_keys}};
  return all;
}

std::vector<float> draw(const MadeUp& data, uint64_t rows, uint32_t head_dim) {
  std::mt19937_64 random(data.seed);
  return data.values(random, rows, head_dim);
}

std::vector<float> normal_values(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  return normal(random, count, 1);
}

}  // namespace kvant::tools
