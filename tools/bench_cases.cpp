// The work that kvant bench repeats, through the same calls that an engine makes.
#include <algorithm>
#include <random>

#include "bench.hpp"

namespace kvant::tools {

namespace {

std::vector<float> normal_data(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> data(count);
  std::generate(data.begin(), data.end(), [&] { return normal(random); });
  return data;
}

std::string shape_text(const BenchShape& shape, bool with_queries) {
  std::string text = "d " + std::to_string(shape.head_dim) + ", " + std::to_string(shape.kv_heads) + " KV heads";
  if (with_queries) {
    text += ", GQA " + std::to_string(shape.group);
  }
  text += ", " + std::to_string(shape.tokens) + " tokens";
  if (shape.batch > 1) {
    text += " x " + std::to_string(shape.batch);
  }
  return shape.shared > 0 ? text + ", " + std::to_string(shape.shared) + " shared" : text;
}

struct Conversion {
  std::shared_ptr<Device> device;
  uint32_t format = 0;
  uint32_t head_dim = 0;
  uint64_t rows = 0;
  std::vector<float> floats;
  std::vector<unsigned char> bytes;

  Outcome<void> quantize() {
    return device->check(device->api().quantize(device->handle(), format, head_dim, rows, floats.data(),
                                                floats.size() * sizeof(float), bytes.data(), bytes.size()));
  }
  Outcome<void> dequantize() {
    return device->check(device->api().dequantize(device->handle(), format, head_dim, rows, bytes.data(), bytes.size(),
                                                  floats.data(), floats.size() * sizeof(float)));
  }
};

Outcome<BenchCase> conversion_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                   const BenchShape& shape, bool quantize) {
  auto work = std::make_shared<Conversion>();
  work->device = device;
  work->format = pair.k.id;
  work->head_dim = shape.head_dim;
  work->rows = uint64_t{shape.tokens} * shape.kv_heads * shape.batch;
  work->floats = normal_data(static_cast<size_t>(work->rows) * shape.head_dim, 1);
  uint64_t row_bytes = 0;
  KVANT_TRY(
      device->check(device->api().row_bytes(device->library()->context(), pair.k.id, shape.head_dim, &row_bytes)));
  work->bytes.resize(static_cast<size_t>(row_bytes * work->rows));
  KVANT_TRY(work->quantize());  // so that dequantize reads real codes
  BenchCase one;
  one.format = pair.k.name;
  one.shape = shape_text(shape, false);
  one.device_bytes = static_cast<double>(work->bytes.size() + work->floats.size() * sizeof(float));
  one.held_bits = 8.0 * static_cast<double>(row_bytes) / shape.head_dim;
  one.repeat = [work, quantize] { return quantize ? work->quantize() : work->dequantize(); };
  return one;
}

constexpr uint32_t kFill = 256;  // tokens appended a step while filling

// A one-layer cache with a sequence for each of the batch.
struct AttentionWork {
  std::shared_ptr<Cache> cache;
  BenchShape shape;
  std::vector<kvant_sequence> sequences;
  std::vector<float> k, v, q, out;

  size_t kv_row() const { return size_t{shape.kv_heads} * shape.head_dim; }
  size_t q_row() const { return kv_row() * shape.group; }

  // Appends `append` tokens to every sequence and attends with its last `queries`.
  Outcome<void> step(uint32_t append, uint32_t queries) {
    std::vector<kvant_step_entry> entries;
    for (const kvant_sequence sequence : sequences) {
      kvant_step_entry entry{};
      entry.struct_size = sizeof(entry);
      entry.sequence = sequence;
      entry.append = append;
      entry.queries = queries;
      entries.push_back(entry);
    }
    kvant_step_args args{};
    args.struct_size = sizeof(args);
    args.entry_count = static_cast<uint32_t>(entries.size());
    args.entries = entries.data();
    kvant_step* planned = nullptr;
    KVANT_TRY(cache->check(cache->api().step_plan(cache->handle(), &args, &planned)));
    const uint64_t fresh = uint64_t{append} * entries.size();
    const uint64_t rows = uint64_t{queries} * entries.size();
    const kvant_tensor k_tensor = float_tensor(k.data(), fresh * kv_row());
    const kvant_tensor v_tensor = float_tensor(v.data(), fresh * kv_row());
    const kvant_tensor q_tensor = float_tensor(q.data(), rows * q_row());
    const kvant_tensor out_tensor = float_tensor(out.data(), rows * q_row());
    kvant_run_args run{};
    run.struct_size = sizeof(run);
    run.k = append > 0 ? &k_tensor : nullptr;
    run.v = append > 0 ? &v_tensor : nullptr;
    run.q = queries > 0 ? &q_tensor : nullptr;
    run.out = queries > 0 ? &out_tensor : nullptr;
    run.q_heads = queries > 0 ? shape.kv_heads * shape.group : 0;
    run.flags = queries > 0 && shape.mass ? KVANT_RUN_MASS : 0;
    auto ran = cache->check(cache->api().step_run(planned, 0, &run));
    if (ran.ok()) {
      ran = cache->check(cache->api().step_commit(planned));
    }
    if (!ran.ok()) {
      cache->api().step_abort(planned);
    }
    return ran;
  }

  Outcome<void> append(uint32_t count) {
    for (uint32_t done = 0; done < count; done += kFill) {
      KVANT_TRY(step(std::min(kFill, count - done), 0));
    }
    return {};
  }

  // The other sequences of the batch, with what the first one holds.
  Outcome<void> add_forks() {
    while (sequences.size() < shape.batch) {
      kvant_sequence fork = 0;
      KVANT_TRY(cache->check(cache->api().sequence_fork(cache->handle(), sequences[0], shape.shared, &fork)));
      sequences.push_back(fork);
    }
    return {};
  }

  Outcome<void> clear() {
    for (const kvant_sequence sequence : sequences) {
      KVANT_TRY(cache->check(cache->api().sequence_truncate(cache->handle(), sequence, 0)));
    }
    return {};
  }
};

Outcome<std::shared_ptr<AttentionWork>> attention_work(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                                       const BenchShape& shape, uint32_t fresh, uint32_t queries) {
  auto work = std::make_shared<AttentionWork>();
  work->shape = shape;
  const uint64_t page_tokens = shape.page_tokens != 0 ? shape.page_tokens : 16;  // each sequence fills whole pages
  const auto whole_pages = [page_tokens](uint64_t tokens) { return (tokens + page_tokens - 1) / page_tokens * page_tokens; };
  const uint64_t shared = shape.shared / page_tokens * page_tokens;
  const uint64_t capacity = whole_pages(shape.tokens - shared) * shape.batch + shared;
  CacheShape held = cache_shape(pair, 1, shape.kv_heads, shape.head_dim, capacity);
  held.mass = shape.mass;
  held.page_tokens = shape.page_tokens;
  auto cache = Cache::create(device, held);
  if (!cache.ok()) {
    return cache.failure();
  }
  work->cache = *cache;
  const auto sequence = work->cache->create_sequence();
  if (!sequence.ok()) {
    return sequence.failure();
  }
  work->sequences.push_back(*sequence);
  work->k = normal_data(size_t{fresh} * shape.batch * work->kv_row(), 1);
  work->v = normal_data(work->k.size(), 2);
  work->q = normal_data(size_t{queries} * shape.batch * work->q_row(), 3);
  work->out.resize(work->q.size());
  KVANT_TRY(work->append(shape.shared));
  KVANT_TRY(work->add_forks());
  return work;
}

Outcome<double> held_bytes(AttentionWork& work) {
  const auto stats = work.cache->stats();
  if (!stats.ok()) {
    return stats.failure();
  }
  return static_cast<double>(stats->used_bytes);
}

}  // namespace

Outcome<BenchCase> quantize_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                 const BenchShape& shape) {
  return conversion_case(device, pair, shape, true);
}

Outcome<BenchCase> dequantize_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                   const BenchShape& shape) {
  return conversion_case(device, pair, shape, false);
}

Outcome<BenchCase> attend_case(const std::shared_ptr<Device>& device, const FormatPair& pair, const BenchShape& shape) {
  auto made = attention_work(device, pair, shape, kFill, shape.queries);
  if (!made.ok()) {
    return made.failure();
  }
  const std::shared_ptr<AttentionWork> work = *made;
  KVANT_TRY(work->append(shape.tokens - shape.shared));
  const auto held = held_bytes(*work);
  if (!held.ok()) {
    return held.failure();
  }
  const double tokens = static_cast<double>(shape.tokens) * shape.batch;
  BenchCase one;
  one.format = pair.name();
  one.shape = shape_text(shape, true);
  one.device_bytes = *held + 2.0 * static_cast<double>(work->q.size() * sizeof(float));
  one.flops = 4.0 * shape.head_dim * shape.kv_heads * shape.group * tokens * shape.queries;
  one.held_bits = 8.0 * *held / (2.0 * tokens * static_cast<double>(work->kv_row()));
  one.repeat = [work, queries = shape.queries] { return work->step(0, queries); };
  return one;
}

Outcome<BenchCase> decode_case(const std::shared_ptr<Device>& device, const FormatPair& pair, const BenchShape& shape) {
  BenchShape one_query = shape;
  one_query.queries = 1;
  return attend_case(device, pair, one_query);
}

Outcome<BenchCase> prefill_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                const BenchShape& shape) {
  auto made = attention_work(device, pair, shape, shape.tokens, shape.tokens);
  if (!made.ok()) {
    return made.failure();
  }
  const std::shared_ptr<AttentionWork> work = *made;
  KVANT_TRY(work->step(shape.tokens, 0));
  const auto held = held_bytes(*work);
  if (!held.ok()) {
    return held.failure();
  }
  const double tokens = static_cast<double>(shape.tokens);
  BenchCase one;
  one.format = pair.name();
  one.shape = shape_text(shape, true);
  one.device_bytes = *held + static_cast<double>((work->k.size() * 2 + work->q.size() * 2) * sizeof(float));
  one.flops = 4.0 * shape.head_dim * shape.kv_heads * shape.group * tokens * (tokens + 1.0) / 2.0 * shape.batch;
  one.held_bits = 8.0 * *held / (2.0 * tokens * shape.batch * static_cast<double>(work->kv_row()));
  one.repeat = [work]() -> Outcome<void> {
    KVANT_TRY(work->clear());
    return work->step(work->shape.tokens, work->shape.tokens);
  };
  return one;
}

}  // namespace kvant::tools
