#include "dense_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvant::reference {

namespace {

constexpr double kU32 = 0x1p-24;  // unit roundoff of f32
constexpr double kU16 = 0x1p-11;  // of f16
constexpr double kNormal16 = 0x1p-14;  // the smallest normal f16: below it, devices may take zero

// Rounding of an n-term sum: the probabilistic law sqrt(n) u with factor 4, never above the certain law n u.
double sum_rounding(double n) { return std::min(n, 4.0 * std::sqrt(n) + 4.0) * kU32; }

double bias_of(const DenseProblem& problem, const DenseSequence& seq, std::uint32_t query, std::uint32_t head, std::uint32_t kv) {
  if (seq.bias.empty()) return 0.0;
  const std::size_t row = std::size_t{query} * problem.bias_heads + head % problem.bias_heads;
  return static_cast<double>(seq.bias[row * seq.kv_len + kv]);
}

bool may_see(const DenseProblem& problem, const DenseSequence& seq, std::uint32_t query, std::uint32_t head, std::uint32_t kv) {
  if (seq.mapped[kv] == 0 || bias_of(problem, seq, query, head, kv) == -std::numeric_limits<double>::infinity()) return false;
  const std::int64_t distance = seq.q_position + query - static_cast<std::int64_t>(kv);
  if (!seq.mask.empty() && kv >= seq.mask_kv_begin) {
    const std::uint32_t bit = kv - seq.mask_kv_begin;
    if (bit >= seq.mask_row_words * 32) return false;
    const std::uint32_t word = seq.mask[std::size_t{query} * seq.mask_row_words + bit / 32];
    if (((word >> (bit % 32)) & 1u) == 0) return false;
  } else if (problem.causal && distance < 0) {
    return false;
  }
  return problem.window == 0 || kv < problem.window_sinks || distance < static_cast<std::int64_t>(problem.window);
}

double mean_of(const std::vector<float>& means, std::uint32_t kv_head, std::uint32_t dim, std::uint32_t d) {
  return means.empty() ? 0.0 : static_cast<double>(means[std::size_t{kv_head} * dim + d]);
}

// A key's logit and the bound on its error: the certain one of f32, and six standard deviations of what narrower arithmetic
// adds, whose certain bound would be so wide that faults pass.
struct Score {
  std::uint32_t kv;
  double logit, error;
  double drawn;         // of the error: six standard deviations of what is drawn with the query's rounding
  double weight = 0.0;  // softmax
};

// Variance of the dot product's error in modules that do not round to f32, before the scale.
double dot_variance(const DenseProblem& problem, const float* q, const float* k, std::uint32_t kv_head) {
  double variance = 0.0;
  if (problem.arithmetic == Arithmetic::f32) return variance;
  double quantum = 0.0;  // int_dot: step of the query's block of 32
  for (std::uint32_t d = 0; d < problem.dim_k; ++d) {
    const double kd = static_cast<double>(k[d]), qd = static_cast<double>(q[d]);
    if (problem.arithmetic == Arithmetic::f16) {
      // q, k, their product and the running sum of at most 32 of them are each rounded to f16.
      variance += qd * qd * kd * kd * (3.0 + 32.0) * kU16 * kU16;
    } else if (problem.arithmetic == Arithmetic::matrix) {
      // q and k are rounded to f16; so is q where it meets the mean. What may count as zero is added by itself (lost_products).
      const double mean = mean_of(problem.mean_k, kv_head, problem.dim_k, d);
      variance += 2.0 * qd * qd * (kd * kd + mean * mean) * kU16 * kU16;
    } else {
      if (d % 32 == 0) {
        double largest = 0.0;
        for (std::uint32_t i = d; i < std::min(d + 32, problem.dim_k); ++i)
          largest = std::max(largest, std::fabs(static_cast<double>(q[i])));
        quantum = largest / 127.0;
      }
      variance += quantum * quantum / 12.0 * kd * kd;
    }
  }
  return variance;
}

double lost_part(double x) { return std::fabs(x) < kNormal16 ? std::fabs(x) : 0.0; }

// Of a dot product by matrices: elements that are denormal in f16.
double lost_products(const DenseProblem& problem, const float* q, const float* k, std::uint32_t kv_head) {
  double lost = 0.0;
  if (problem.arithmetic != Arithmetic::matrix) return lost;
  for (std::uint32_t d = 0; d < problem.dim_k; ++d) {
    const double kd = static_cast<double>(k[d]), qd = static_cast<double>(q[d]);
    const double other = std::fabs(kd) + std::fabs(mean_of(problem.mean_k, kv_head, problem.dim_k, d));
    lost += std::fabs(qd) * lost_part(kd) + lost_part(qd) * other;
  }
  return lost;
}

Score score(const DenseProblem& problem, const DenseSequence& seq, const float* q, std::uint32_t head, std::uint32_t kv_head,
            std::uint32_t query, std::uint32_t kv) {
  const float* k = &seq.k[(std::size_t{kv} * problem.kv_heads + kv_head) * problem.dim_k];
  double dot = 0.0, magnitude = 0.0;
  for (std::uint32_t d = 0; d < problem.dim_k; ++d) {
    const double term = static_cast<double>(q[d]) * static_cast<double>(k[d]);
    const double shift = static_cast<double>(q[d]) * mean_of(problem.mean_k, kv_head, problem.dim_k, d);
    dot += term + shift;
    magnitude += std::fabs(term) + std::fabs(shift);
  }
  const double drawn = 6.0 * std::sqrt(dot_variance(problem, q, k, kv_head));
  const double dot_error = (sum_rounding(problem.dim_k) + 4 * kU32) * magnitude + drawn + lost_products(problem, q, k, kv_head);
  Score s{kv, dot * problem.scale, dot_error * std::fabs(problem.scale), drawn * std::fabs(problem.scale)};
  if (problem.soft_cap != 0.0) {
    // Where tanh is flat it takes the error away with the logit: a bound without that would accept any fault there.
    const auto capped = [&](double x) { return problem.soft_cap * std::tanh(x / problem.soft_cap); };
    const double exact = s.logit, error = s.error;
    s.logit = capped(exact);
    s.error = std::max(std::fabs(capped(exact + error) - s.logit), std::fabs(capped(exact - error) - s.logit));
    if (error > 0.0) s.drawn *= s.error / error;
    s.error += std::fabs(problem.soft_cap) * 16 * kU32;  // tanh made of exp: a few roundings of values up to one
  }
  if (!problem.slopes.empty() || !seq.bias.empty()) {
    const double slope = problem.slopes.empty() ? 1.0 : static_cast<double>(problem.slopes[head]);
    const double bias = slope * (seq.bias.empty() ? static_cast<double>(std::int64_t{kv} - (seq.q_position + query))
                                                  : bias_of(problem, seq, query, head, kv));
    s.logit += bias;
    s.error += (2 * std::fabs(bias) + std::fabs(s.logit)) * kU32;
  }
  s.error += 2 * std::fabs(s.logit) * kU32;
  return s;
}

// What rounding V and the weights to f16 does to an element of the output, by the certain law: where tokens share a value or a weight, they
// share its error. A conversion may round toward zero. The smallest weights (below 2^-24 of the largest) may be lost, and
// what is denormal of V: `lost`, weighted.
double value_rounding(double magnitude, double all_values, double lost) {
  return 2.02 * 2 * kU16 * magnitude + all_values * 0x1p-24 + lost;
}

// Of the errors that logits draw: what each key brings to the row, as the norm of its elements, in the sum over keys and in the sum of squares.
struct DrawnErrors {
  double sum = 0.0, squares = 0.0;
  void add(double norm) {
    sum += norm;
    squares += norm * norm;
  }
  // sum^2 / squares keys of equal weight would draw the same; the deviation of their sum is that of one divided by the root of how many
  // they are. So half of the row's bound holds the six standard deviations of four keys or more, and the whole those of one.
  double share(double row_bound) const {
    if (sum == 0.0 || row_bound == 0.0) return 0.5;
    const double keys = sum * sum / squares;
    return 0.5 + std::max(1.0 / std::sqrt(keys) - 0.5, 0.0) * std::min(1.05 * sum / row_bound, 1.0);
  }
};

// Relative error of exp(x) for x <= 0: 3 + 2|x| ulp by the Vulkan specification, an ulp being two roundoffs; x itself is the
// difference of two rounded numbers.
double exp_error(double x) { return (2 * (3 + 2 * std::fabs(x)) + std::fabs(x)) * kU32; }

}  // namespace

DenseResult dense_attention(const DenseProblem& problem) {
  DenseResult result;
  const std::size_t rows = problem.q.size() / (std::size_t{problem.q_heads} * problem.dim_k);
  const std::size_t cells = rows * problem.q_heads;
  result.out.assign(cells * problem.dim_v, 0.0);
  result.out_bound.assign(cells * problem.dim_v, 0.0);
  result.weight.assign(cells * problem.dim_v, 0.0);
  result.lse.assign(cells, -std::numeric_limits<double>::infinity());
  result.lse_bound.assign(cells, 0.0);
  result.row_share.assign(cells, 0.5);
  const std::uint32_t group = problem.q_heads / problem.kv_heads;
  std::vector<double> spread(problem.dim_v), magnitude(problem.dim_v), values(problem.dim_v), lost(problem.dim_v);

  for (const DenseSequence& seq : problem.sequences) {
    std::vector<double>& mass = result.mass.emplace_back(std::size_t{seq.kv_len} * problem.kv_heads, 0.0);
    std::vector<double>& mass_bound = result.mass_bound.emplace_back(mass.size(), 0.0);
    for (std::uint32_t query = 0; query < seq.q_len; ++query) {
      for (std::uint32_t head = 0; head < problem.q_heads; ++head) {
        const std::size_t cell = (std::size_t{seq.q_begin} + query) * problem.q_heads + head;
        std::vector<Score> scores;
        double largest = -std::numeric_limits<double>::infinity();
        for (std::uint32_t kv = 0; kv < seq.kv_len; ++kv) {
          if (!may_see(problem, seq, query, head, kv)) continue;
          scores.push_back(score(problem, seq, &problem.q[cell * problem.dim_k], head, head / group, query, kv));
          largest = std::max(largest, scores.back().logit);
        }
        const bool sink = !problem.sinks.empty();
        if (sink) largest = std::max(largest, static_cast<double>(problem.sinks[head]));
        if (scores.empty() && !sink) continue;  // zeros and minus infinity
        double sum = sink ? std::exp(static_cast<double>(problem.sinks[head]) - largest) : 0.0;
        for (const Score& s : scores) sum += std::exp(s.logit - largest);
        double* out = &result.out[cell * problem.dim_v];
        double* bound = &result.out_bound[cell * problem.dim_v];
        double* weight = &result.weight[cell * problem.dim_v];
        const auto v_row = [&](const Score& s) {
          return &seq.v[(std::size_t{s.kv} * problem.kv_heads + head / group) * problem.dim_v];
        };
        double mean_error = 0.0;
        for (Score& s : scores) {
          s.weight = std::exp(s.logit - largest) / sum;
          s.error += exp_error(s.logit - largest);
          mean_error += s.weight * s.error;
          const float* v = v_row(s);
          for (std::uint32_t d = 0; d < problem.dim_v; ++d) {
            const double x = static_cast<double>(v[d]), mean = mean_of(problem.mean_v, head / group, problem.dim_v, d);
            out[d] += s.weight * (x + mean);
            weight[d] += s.weight * (std::fabs(x) + std::fabs(mean));
          }
        }
        const double sink_error =
            sink ? std::exp(static_cast<double>(problem.sinks[head]) - largest) / sum *
                       exp_error(static_cast<double>(problem.sinks[head]) - largest)
                 : 0.0;
        mean_error += sink_error;
        // d out / d logit_i = p_i (v_i - out). The errors are added up: a rounded query is shared by all keys, so that they
        // are not independent.
        for (auto* sums : {&spread, &magnitude, &values, &lost}) std::fill(sums->begin(), sums->end(), 0.0);
        DrawnErrors drawn;
        for (const Score& s : scores) {
          const float* v = v_row(s);
          double away = 0.0;
          for (std::uint32_t d = 0; d < problem.dim_v; ++d) {
            const double x = static_cast<double>(v[d]);
            const double distance = std::fabs(x + mean_of(problem.mean_v, head / group, problem.dim_v, d) - out[d]);
            away += distance * distance;
            spread[d] += s.weight * distance * s.error;
            magnitude[d] += s.weight * std::fabs(x);
            values[d] += std::fabs(x);
            lost[d] += s.weight * lost_part(x);
          }
          drawn.add(s.weight * s.drawn * std::sqrt(away));
        }
        const double rounding = 2 * sum_rounding(static_cast<double>(scores.size())) + 16 * kU32;
        for (std::uint32_t d = 0; d < problem.dim_v; ++d)
          bound[d] = 1.05 * (spread[d] + std::fabs(out[d]) * sink_error) +
                     std::fabs(out[d]) * problem.out_rounding + rounding * weight[d] + problem.out_step + 0x1p-126 +
                     (problem.arithmetic == Arithmetic::matrix ? value_rounding(magnitude[d], values[d], lost[d]) : 0.0);
        double squares = 0.0;
        for (std::uint32_t d = 0; d < problem.dim_v; ++d) squares += bound[d] * bound[d];
        result.row_share[cell] = drawn.share(std::sqrt(squares));
        result.lse[cell] = largest + std::log(sum);
        result.lse_bound[cell] = 1.05 * mean_error + rounding +
                                 4 * (std::fabs(largest) + std::fabs(std::log(sum)) + 1) * kU32;
        // A weight by its logit and the log-sum-exp, added in f32 to those of other rows and rounded to units of 2^-32. Where a
        // query sees one key alone the errors of both cancel in the attention, but not here.
        for (const Score& s : scores) {
          const std::size_t at = std::size_t{s.kv} * problem.kv_heads + head / group;
          mass[at] += s.weight;
          mass_bound[at] += 1.05 * s.weight * (s.error + exp_error(s.logit - result.lse[cell]) + result.lse_bound[cell] + 8 * kU32) + 0x1p-32;
        }
      }
    }
  }
  return result;
}

}  // namespace kvant::reference
