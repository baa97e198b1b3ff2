// Filling, limiting and reading on. Positions are those of the text: a pruned sequence is shorter than what it has
// seen.
#include "memory_curve_run.hpp"

#include <algorithm>

#include "distribution.hpp"
#include "engine/session.hpp"

namespace kvant::tools {

Outcome<void> LimitRun::fill(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t chunk) {
  chunk_ = &text_.chunk(chunk);
  const engine::AttentionShape attention = model_.llama.config().attention();
  CacheShape shape = cache_shape(pair, attention, uint64_t{report_.context} * (report_.idle + 1));
  shape.slab_bytes = report_.slab_bytes;
  shape.prefixes = report_.idle > 0;
  shape.model_id = report_.model;
  shape.mass = report_.prune;
  auto made = engine::CacheAttention::create(device, attention, shape, 1);
  if (!made.ok()) {
    return made.failure();
  }
  cache_ = std::move(*made);
  std::vector<float> logits;
  for (uint32_t i = 1; i <= report_.idle; ++i) {
    const std::vector<uint32_t>& text = text_.chunk((chunk + i) % text_.chunks());
    const std::span<const uint32_t> tokens = std::span(text).first(report_.context);
    const auto reused = cache_->open(0, {tokens.begin(), tokens.end()});
    if (!reused.ok()) {
      return reused.failure();
    }
    engine::Session session(model_.llama, *cache_, true);
    session.resume(tokens.first(*reused));
    KVANT_TRY(session.feed(tokens.subspan(*reused), logits));
  }
  if (const auto opened = cache_->open(0, {}); !opened.ok()) {
    return opened.failure();
  }
  cache_->count_mass(report_.prune);
  const uint32_t half = report_.context / 2;
  KVANT_TRY(feed(0, half, logits, half));
  return feed(half, report_.context - half, logits, report_.context);
}

Outcome<void> LimitRun::fill_half(const std::shared_ptr<Device>& device, const FormatPair& pair, uint32_t chunk) {
  chunk_ = &text_.chunk(chunk);
  const engine::AttentionShape attention = model_.llama.config().attention();
  CacheShape shape = cache_shape(pair, attention, report_.context);
  shape.slab_bytes = report_.slab_bytes;
  shape.mass = true;
  auto made = engine::CacheAttention::create(device, attention, shape, 1);
  if (!made.ok()) {
    return made.failure();
  }
  cache_ = std::move(*made);
  cache_->count_mass(true);
  const uint32_t half = report_.context / 2;
  std::vector<float> none;
  return feed(0, half, none, half);
}

Outcome<Cooled> LimitRun::cool(uint32_t percent, const std::vector<uint32_t>& formats, CoolOrder order) {
  tools::Cache& cache = cache_->cache();
  const auto manager = cache.manager();
  if (!manager.ok()) {
    return manager.failure();
  }
  if (order == CoolOrder::kAge) {
    KVANT_TRY(cache.check((*manager)->sequence_mass_clear(cache.handle(), cache_->sequence(0))));
  }
  cache_->count_mass(false);
  Cooled result;
  const auto before = pool_bytes();
  if (!before.ok()) {
    return before.failure();
  }
  const auto pages = cache.cool(*before * percent / 100, formats);
  if (!pages.ok()) {
    return pages.failure();
  }
  const auto after = pool_bytes();
  if (!after.ok()) {
    return after.failure();
  }
  result.met = pages->has_value();
  result.bytes_before = *before;
  result.bytes_after = *after;
  result.pages = pages->value_or(0);
  return result;
}

Outcome<void> LimitRun::limit(CurvePoint& point) {
  const auto before = pool_bytes();
  if (!before.ok()) {
    return before.failure();
  }
  point.bytes_before = *before;
  point.limit_bytes = *before * point.percent / 100;
  const auto plan = cache_->cache().memory_plan(point.limit_bytes, rules());
  if (!plan.ok()) {
    return plan.failure();
  }
  point.met = plan->possible;
  point.plan = plan->text;
  const auto limited = cache_->cache().memory_limit(point.limit_bytes, rules());
  if (point.met && !limited.ok()) {
    return limited.failure();
  }
  if (!point.met && limited.ok()) {
    return Failure{"memory_plan says that " + point.plan + ", and memory_limit takes it"};
  }
  KVANT_TRY(cache_->refresh_lengths());
  point.tokens = report_.context;
  point.tokens_kept = cache_->length(0);
  return watch(point, point.bytes_after);
}

Outcome<void> LimitRun::convert(uint32_t layer, uint32_t side, uint32_t format) {
  tools::Cache& cache = cache_->cache();
  return cache.check(cache.api().cache_convert(cache.handle(), layer, side, format));
}

Outcome<void> LimitRun::weigh(const Sensitivity& sensitivity) {
  for (const SideSensitivity& side : sensitivity.sides) {
    KVANT_TRY(cache_->cache().memory_weight(side.layer, side.side, side.weight));
  }
  return {};
}

Outcome<void> LimitRun::read_second_half(std::vector<float>& rows) {
  const uint32_t half = report_.context / 2;
  KVANT_TRY(cache_->truncate(half));
  return feed(half, report_.scored, rows, half);
}

Outcome<void> LimitRun::read_on(CurvePoint& point, std::vector<float>& rows) {
  KVANT_TRY(read_second_half(rows));
  uint64_t now = 0;
  return watch(point, now);
}

Outcome<void> LimitRun::read_again(CurvePoint& point, Keep keep, double& sum) {
  const uint32_t half = report_.context / 2, end = half + report_.scored;
  const uint32_t room = point.tokens_kept, least = report_.sinks + report_.recent;
  if (room <= least) {
    return Failure{"the limit of " + std::to_string(point.limit_bytes) + " bytes leaves " + std::to_string(room) +
                   " tokens, and " + std::to_string(least) +
                   " of them, sinks and newest, always stay: none can follow"};
  }
  const uint32_t step = std::min(report_.step, room - least);
  KVANT_TRY(cache_->truncate(0));
  cache_->count_mass(keep == Keep::kHeaviest);
  std::vector<float> rows;
  for (uint32_t begin = 0; begin < end;) {
    const uint32_t stop = begin < half ? half : end;  // scored tokens have steps of their own
    const uint32_t count = std::min(step, stop - begin);
    if (cache_->length(0) + count > room) {
      KVANT_TRY(keep == Keep::kHeaviest ? cache_->prune(0, room - count, report_.sinks, report_.recent)
                                        : cache_->keep_ends(0, room - count, report_.sinks));
    }
    KVANT_TRY(feed(begin, count, rows, half));
    if (begin >= half) {
      sum += negative_log(begin, rows);
    }
    uint64_t now = 0;
    KVANT_TRY(watch(point, now));
    begin += count;
  }
  return {};
}

// Tokens [begin, begin + count) of the chunk, with log-probabilities after those from `first_scored` on.
Outcome<void> LimitRun::feed(uint32_t begin, uint32_t count, std::vector<float>& rows, uint32_t first_scored) {
  engine::Batch batch;
  batch.entries = {{0, cache_->length(0), count}};
  batch.tokens.assign(chunk_->begin() + begin, chunk_->begin() + begin + count);
  for (uint32_t row = 0; row < count; ++row) {
    batch.positions.push_back(begin + row);
    if (begin + row >= first_scored) {
      batch.logit_rows.push_back(row);
    }
  }
  KVANT_TRY(model_.llama.forward(batch, *cache_, rows));
  const uint32_t vocabulary = model_.llama.config().vocabulary;
  for (size_t row = 0; row < rows.size(); row += vocabulary) {
    log_softmax({&rows[row], vocabulary});
  }
  return {};
}

double LimitRun::negative_log(uint32_t first, const std::vector<float>& rows) const {
  const uint32_t vocabulary = model_.llama.config().vocabulary;
  double sum = 0;
  for (size_t row = 0; row * vocabulary < rows.size(); ++row) {
    sum -= static_cast<double>(rows[row * vocabulary + (*chunk_)[first + row + 1]]);
  }
  return sum;
}

double LimitRun::divergence(const std::vector<float>& truth, const std::vector<float>& rows) const {
  const uint32_t vocabulary = model_.llama.config().vocabulary;
  double sum = 0;
  for (size_t at = 0; at < rows.size(); at += vocabulary) {
    sum += kl_divergence({&truth[at], vocabulary}, {&rows[at], vocabulary});
  }
  return sum;
}

Outcome<uint64_t> LimitRun::pool_bytes() {
  const auto stats = cache_->cache().stats();
  if (!stats.ok()) {
    return stats.failure();
  }
  return stats->pool_bytes;
}

// Keeps the pool's size and holds it against the limit, or where that was refused, against what it was.
Outcome<void> LimitRun::watch(CurvePoint& point, uint64_t& bytes) {
  const auto now = pool_bytes();
  if (!now.ok()) {
    return now.failure();
  }
  bytes = *now;
  point.bytes_largest = std::max(point.bytes_largest, bytes);
  if (point.met ? bytes > point.limit_bytes : bytes != point.bytes_before) {
    return Failure{"the pool has " + std::to_string(bytes) + " bytes after a limit of " +
                   std::to_string(point.limit_bytes) + (point.met ? "" : ", which was refused") + "; it had " +
                   std::to_string(point.bytes_before)};
  }
  return {};
}

MemoryRules LimitRun::rules() const {
  MemoryRules rules;
  for (const FormatPair& step : report_.ladder) {
    rules.formats.push_back(step.k.id);
  }
  if (report_.prune) {
    rules.prune = true;
    rules.sinks = report_.sinks;
    rules.recent = report_.recent;
  }
  return rules;
}

}  // namespace kvant::tools
