// A step in steady state allocates no host memory: everything between the engine's call and the driver is reused from the step before.
#include <doctest/doctest.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "test_device.hpp"

#ifdef KVANT_SANITIZED

TEST_CASE("a decoding step of 32 layers allocates nothing") { MESSAGE("skipped: a sanitizer's own new cannot be counted"); }

#else

// The library's `new` is this one too: its own is bound when it is loaded. Only what this thread allocates while it is asked counts, so the driver's
// threads and the driver's own malloc do not.
namespace {

thread_local bool counting = false;
thread_local uint64_t allocations = 0;

void* counted(std::size_t size) noexcept {
  if (counting) ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* memory = counted(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace kvant::tools;

constexpr uint32_t kLayers = 32, kHeads = 2, kGroup = 2, kHeadDim = 32, kPageTokens = 16;
constexpr uint32_t kWarmUp = 128;  // until protected tokens have left the window, and every pipeline is there


class Decoder {
 public:
  Decoder(std::shared_ptr<Cache> cache, uint32_t sequences) : cache_(std::move(cache)), lengths_(sequences) {
    for (uint32_t i = 0; i < sequences; ++i) {
      const auto sequence = cache_->create_sequence();
      REQUIRE(sequence.ok());
      kvant_step_entry entry{};
      entry.struct_size = sizeof entry;
      entry.sequence = *sequence;
      entries_.push_back(entry);
    }
    rows_.assign(size_t{64} * kHeads * kGroup * kHeadDim, 0.25F);
    out_ = rows_;
  }

  void append_prompt(uint32_t which, uint32_t tokens) { run({which}, tokens); }

  // One token of every sequence; the allocations it took.
  uint64_t decode() {
    allocations = 0;
    counting = true;
    run({}, 1);
    counting = false;
    return allocations;
  }
  // The next token of some sequence begins a page.
  bool at_page_end() const {
    for (const uint32_t length : lengths_)
      if (length % kPageTokens == 0) return true;
    return false;
  }

 private:
  void run(std::initializer_list<uint32_t> which, uint32_t tokens) {
    const uint32_t first = which.size() != 0 ? *which.begin() : 0;
    const uint32_t count = which.size() != 0 ? 1 : static_cast<uint32_t>(entries_.size());
    for (uint32_t i = first; i < first + count; ++i) {
      entries_[i].append = tokens;
      entries_[i].queries = 1;
      lengths_[i] += tokens;
    }
    kvant_step_args args{};
    args.struct_size = sizeof args;
    args.entry_count = count;
    args.entries = &entries_[first];
    kvant_step* step = nullptr;
    const kvant_api& api = cache_->api();
    must(api.step_plan(cache_->handle(), &args, &step));
    const kvant_tensor kv = float_tensor(rows_.data(), uint64_t{count} * tokens * kHeads * kHeadDim);
    const kvant_tensor q = float_tensor(rows_.data(), uint64_t{count} * kHeads * kGroup * kHeadDim);
    const kvant_tensor out = float_tensor(out_.data(), uint64_t{count} * kHeads * kGroup * kHeadDim);
    kvant_run_args run{};
    run.struct_size = sizeof run;
    run.k = run.v = &kv;
    run.q = &q;
    run.out = &out;
    run.q_heads = kHeads * kGroup;
    for (uint32_t layer = 0; layer < kLayers; ++layer) must(api.step_run(step, layer, &run));
    must(api.step_commit(step));
  }

  void must(kvant_error* error) {
    if (error == nullptr) return;  // an assertion would allocate
    counting = false;
    const auto failed = cache_->check(error);
    FAIL(failed.failure().message);
  }

  std::shared_ptr<Cache> cache_;
  std::vector<kvant_step_entry> entries_;
  std::vector<uint32_t> lengths_;
  std::vector<float> rows_, out_;
};

void check_steady(CacheShape shape) {
  const auto device = open_test_device(false);  // validation layers allocate with every call
  if (device == nullptr) return;
  const auto q4_0 = device->library()->format("q4_0"), q8_0 = device->library()->format("q8_0");
  REQUIRE((q4_0.ok() && q8_0.ok()));
  shape.layers = kLayers;
  shape.kv_heads = kHeads;
  shape.head_dim = kHeadDim;
  shape.format_k = q8_0->id;
  shape.format_v = q4_0->id;
  shape.capacity_tokens = 3 * 512;
  const auto cache = Cache::create(device, shape);
  REQUIRE_MESSAGE(cache.ok(), cache.failure().message);
  Decoder decoder(*cache, 3);
  decoder.append_prompt(0, 5);
  decoder.append_prompt(1, 20);
  decoder.append_prompt(2, 50);
  for (uint32_t step = 0; step < kWarmUp; ++step) decoder.decode();
  uint64_t within_pages = 0, with_new_pages = 0, steps = 0;
  for (uint32_t step = 0; step < 2 * kPageTokens; ++step) {
    const bool new_page = decoder.at_page_end();
    (new_page ? with_new_pages : within_pages) += decoder.decode();
    steps += new_page ? 0 : 1;
  }
  CHECK(steps > kPageTokens);
  CHECK(within_pages == 0);
  CHECK(with_new_pages <= 12);  // a sequence's table may have to grow
  check_quiet(*device);
}

}  // namespace

TEST_SUITE_BEGIN("long");  // not on SwiftShader, whose pipelines take minutes: the host is the same

TEST_CASE("a decoding step of 32 layers allocates nothing") {
  SUBCASE("plain") { check_steady({}); }
  SUBCASE("with a prefix cache") {
    CacheShape shape;
    shape.prefixes = true;
    check_steady(shape);
  }
  SUBCASE("with protected tokens") {
    CacheShape shape;
    shape.protect = KVANT_PROTECT_K | KVANT_PROTECT_V;
    check_steady(shape);
  }
  SUBCASE("rotated and centred") {
    CacheShape shape;
    shape.transform_k = shape.transform_v = KVANT_TRANSFORM_ROTATE | KVANT_TRANSFORM_CENTRE;
    check_steady(shape);
  }
}

TEST_SUITE_END();

#endif
