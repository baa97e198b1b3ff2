// Saved states: any bytes, or records that are sealed with their checksums, into a cache on the CPU executor. A load
// that fails changes nothing; what loads can be read, continued, saved and loaded again.
#include <algorithm>
#include <memory>
#include <vector>

#include "cache.hpp"
#include "cpu_executor.hpp"
#include "fuzz_input.hpp"
#include "state_records.hpp"

namespace {

using namespace kvant;
using fuzz::FuzzInput;
using Bytes = std::vector<std::byte>;

struct Loaded {
  reference::CpuExecutor executor;
  std::unique_ptr<Cache> cache;

  explicit Loaded(const CacheSpec& spec) {
    auto made = Cache::create(executor, spec, Log{});
    KVANT_FUZZ_CHECK(made.ok(), made.status().message());
    cache = std::move(made).value();
  }
};

StateSource source_of(std::span<const std::byte> bytes, std::size_t piece) {
  return [bytes, piece](std::span<std::byte> out) mutable -> Result<std::size_t> {
    const std::size_t size = std::min({piece, out.size(), bytes.size()});
    std::copy_n(bytes.begin(), size, out.begin());
    bytes = bytes.subspan(size);
    return size;
  };
}

bool same(const MemoryUse& a, const MemoryUse& b) {
  return a.pool_bytes == b.pool_bytes && a.used_bytes == b.used_bytes && a.used_pages == b.used_pages &&
         a.total_pages == b.total_pages && a.sequence_tokens == b.sequence_tokens;
}

// Every token that is there can be read; a window's may have left.
void read_all(Cache& cache, SequenceId sequence) {
  const auto length = cache.sequence_length(sequence);
  KVANT_FUZZ_CHECK(length.ok(), length.status().message());
  if (length.value() == 0) return;
  const std::uint64_t begin = length.value() > 40 ? length.value() - 40 : 0, count = length.value() - begin;
  for (std::uint32_t layer = 0; layer < cache.spec().layers.size(); ++layer) {
    const LayerSpec& facts = cache.spec().layers[layer];
    std::vector<float> rows(count * facts.kv_heads * facts.head_dim_k);
    TensorView out;
    out.host = reinterpret_cast<std::byte*>(rows.data());
    out.head_stride = facts.head_dim_k;
    out.token_stride = std::uint64_t{facts.kv_heads} * facts.head_dim_k;
    const Status status = cache.read(sequence, layer, Side::k, begin, count, out);
    KVANT_FUZZ_CHECK(status.ok() || status.code() == StatusCode::failed_precondition, status.message());
  }
}

void use(Cache& cache, const std::vector<LoadedSequence>& loaded) {
  for (const LoadedSequence& one : loaded) {
    read_all(cache, one.sequence);
    const std::uint64_t length = cache.sequence_length(one.sequence).value();
    if (const auto child = cache.fork_sequence(one.sequence, length); child.ok()) {
      const Status grown = cache.extend_sequence(child.value(), length + 3);
      KVANT_FUZZ_CHECK(grown.ok() || grown.code() == StatusCode::resource_exhausted, grown.message());
      KVANT_FUZZ_CHECK(cache.destroy_sequence(child.value()).ok());
    } else {
      KVANT_FUZZ_CHECK(child.status().code() == StatusCode::resource_exhausted ||
                           child.status().code() == StatusCode::failed_precondition,
                       child.status().message());
    }
  }
}

void save_and_load(Cache& cache, std::size_t sequences) {
  StateSelection all;
  all.all_sequences = all.prefixes = true;
  Bytes saved;
  const Status status = cache.save_state(all, [&](std::span<const std::byte> piece) {
    saved.insert(saved.end(), piece.begin(), piece.end());
    return Status();
  });
  KVANT_FUZZ_CHECK(status.ok(), status.message());
  Loaded again(cache.spec());
  const auto loaded = again.cache->load_state(source_of(saved, SIZE_MAX));
  KVANT_FUZZ_CHECK(loaded.ok(), loaded.status().message());
  KVANT_FUZZ_CHECK(loaded.value().size() == sequences);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput in(data, size);
  const std::uint8_t mode = in.u8();
  Loaded owner(fuzz::state_spec());
  Cache& cache = *owner.cache;
  std::size_t before_sequences = 0;
  if ((mode & 8) != 0) {
    const auto own = cache.create_sequence();
    KVANT_FUZZ_CHECK(own.ok() && cache.extend_sequence(own.value(), 20).ok());
    before_sequences = 1;
  }
  Bytes stream;
  if ((mode & 1) != 0) {
    stream = fuzz::sealed_state(in);
  } else {
    const auto raw = fuzz::as_bytes(in.rest());
    stream.assign(raw.begin(), raw.end());
  }
  const MemoryUse before = cache.memory_use();
  const auto loaded = cache.load_state(source_of(stream, (mode & 2) != 0 ? 7 : SIZE_MAX));
  if (!loaded.ok()) {
    KVANT_FUZZ_CHECK(loaded.status().code() != StatusCode::internal, loaded.status().message());
    KVANT_FUZZ_CHECK(!loaded.status().message().empty());
    const MemoryUse after = cache.memory_use();
    KVANT_FUZZ_CHECK(before.used_pages == after.used_pages && before.sequence_tokens == after.sequence_tokens);
    KVANT_FUZZ_CHECK(cache.sequences().size() == before_sequences);
  } else {
    use(cache, loaded.value());
    save_and_load(cache, cache.sequences().size());
  }
  for (const SequenceId sequence : cache.sequences()) KVANT_FUZZ_CHECK(cache.destroy_sequence(sequence).ok());
  KVANT_FUZZ_CHECK(cache.clear_prefixes().ok());
  const MemoryUse end = cache.memory_use();
  KVANT_FUZZ_CHECK(end.used_pages == 0 && end.used_bytes == 0 && end.sequence_tokens == 0);
  KVANT_FUZZ_CHECK(same(end, cache.memory_use()));
  return 0;
}
