// What the ABI tests share: the library opened by dlopen, a session (context and device), short ways to fill structs, and the
// judgement of errors. Nothing of kvant but the public header.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <kvant/kvant.h>

namespace abi_test {

// The table of the library under test, opened once.
const kvant_api& api();
const std::string& library_path();

// A struct with only struct_size set.
template <typename T>
T make() {
  T value;
  std::memset(&value, 0, sizeof value);
  value.struct_size = sizeof value;
  return value;
}

// Code, message and source of an error, which is freed; code 0 for NULL.
struct Outcome {
  std::uint32_t code = 0;
  std::string message, source;
};
Outcome take(kvant_error* error, const kvant_api& table = api());

void check_ok(kvant_error* error);
void require_ok(kvant_error* error);
// The call failed with this code, in this function, and its message holds `part`.
void check_error(kvant_error* error, std::uint32_t code, const std::string& source, const std::string& part);

struct LogLine {
  std::uint32_t level;
  std::string text;
};

// A context, and the best device if the machine has one.
class Session {
 public:
  struct Options {
    bool profiling = false;
    bool validation = false;
    std::uint64_t memory_limit = 0;
    bool open_device = true;
  };
  Session() : Session(Options{}) {}
  explicit Session(Options options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  kvant_context* context = nullptr;
  kvant_device* device = nullptr;
  std::vector<LogLine> log;

  // False where there is no device; the test then returns. With KVANT_REQUIRE_DEVICE set that is a failure.
  bool has_device() const;
  std::uint32_t format(const char* name) const;
  // Messages that blame the host since the last call.
  std::vector<std::string> take_blame();
};

// One session for all tests that do not need their own: pipelines are compiled once. Closed at the end of the run.
Session& shared_session();

struct CacheShape {
  std::uint32_t layers = 1, kv_heads = 2, head_dim_k = 64, head_dim_v = 64;
  const char* format_k = "f32";
  const char* format_v = "f32";
  std::uint64_t capacity = 256;
  std::uint32_t page_tokens = 16;
  bool external = false;
};
kvant_cache* make_cache(const Session& session, const CacheShape& shape);

kvant_tensor tensor_of(std::vector<float>& data);
std::vector<float> random_floats(std::size_t count, std::uint32_t seed, float amplitude = 1.0F);
// The largest difference of two elements at the same place; not a number where one of them is none.
double distance(const std::vector<float>& a, const std::vector<float>& b);

kvant_cache_stats stats_of(kvant_cache* cache);

// One step of one sequence on all layers with the same tensors; empty vectors are absent ones.
struct StepData {
  std::vector<float> k, v, q, out, lse;
  std::uint32_t q_heads = 0;
  float scale = 0.0F, soft_cap = 0.0F;
  std::uint32_t flags = 0;
  std::vector<float> sinks, slopes;
};
kvant_run_args run_args_of(StepData& data, std::vector<kvant_tensor>& tensors);
void run_step(kvant_cache* cache, std::uint32_t layers, kvant_sequence sequence, std::uint32_t append, std::uint32_t queries,
              StepData& data);

}  // namespace abi_test
