// The library's decode attention beside attend_rows.comp, the kernel that one writes first, on one device and over the same codes: the same outputs;
// and, when asked for, the time of each:
//   baseline_tests --no-skip -tc='*speed*'
// Both are recorded into a command buffer; what is measured is its submit and the wait for it. For drivers on processors: the rows lie in memory that a
// GPU would reach over a bus.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "library.hpp"
#include "rows_kernel.hpp"

using namespace abi_test;

namespace {

struct Shape {
  const char* format = "q4_0";
  std::uint32_t head_dim = 128, kv_heads = 8, group = 4, tokens = 4096;
};

constexpr std::uint32_t kFill = 256;  // tokens appended a step

class Beside {
 public:
  explicit Beside(const Shape& shape) : shape_(shape) {
    const std::uint32_t q_bytes = shape.kv_heads * shape.group * shape.head_dim * 4;
    const Session& own = shared_session();
    if (!own.has_device()) return;
    format_ = own.format(shape.format);
    require_ok(api().row_bytes(own.context, format_, shape.head_dim, &row_bytes_));
    const std::uint64_t side = (row_bytes_ * shape.kv_heads * shape.tokens + 255) / 256 * 256;
    places_ = {0, static_cast<std::uint32_t>(side), static_cast<std::uint32_t>(2 * side), static_cast<std::uint32_t>(2 * side + q_bytes)};
    const std::string missing = engine_.start(2 * side + 2 * q_bytes);
    if (!missing.empty()) {
      MESSAGE(missing);
      return;
    }
    const auto* vulkan = static_cast<const kvant_ext_vulkan*>(api().get_extension(session_.context, KVANT_EXT_VULKAN));
    REQUIRE(vulkan != nullptr);
    vulkan_ = vulkan;
    const kvant_vulkan_device_args args = engine_.import_args();
    require_ok(vulkan->device_import(session_.context, &args, &session_.device));
    fill();
    ready_ = true;
  }
  ~Beside() {
    if (cache_ != nullptr) api().cache_destroy(cache_);
    if (session_.device != nullptr) api().device_close(std::exchange(session_.device, nullptr));
    for (const std::string& message : engine_.validation_messages()) FAIL_CHECK(message);
  }
  bool ready() const { return ready_; }

  // Seconds of one run, its outputs in `out`.
  double run_rows(const baseline::RowsKernel& kernel, std::vector<float>& out) {
    const VkCommandBuffer commands = engine_.begin();
    kernel.record(commands, places_);
    return finish(commands, out);
  }
  double run_library(std::vector<float>& out) {
    auto entry = make<kvant_step_entry>();
    entry.sequence = sequence_;
    entry.queries = 1;
    auto args = make<kvant_step_args>();
    args.entry_count = 1;
    args.entries = &entry;
    kvant_step* step = nullptr;
    require_ok(api().step_plan(cache_, &args, &step));
    kvant_tensor q = tensor_at(places_.q), result = tensor_at(places_.out);
    auto run = make<kvant_run_args>();
    run.q = &q;
    run.out = &result;
    run.q_heads = shape_.kv_heads * shape_.group;
    auto record = make<kvant_vulkan_record>();
    record.type = KVANT_NEXT_VULKAN_RECORD;
    const VkCommandBuffer commands = engine_.begin();
    record.command_buffer = commands;
    run.next = reinterpret_cast<const kvant_next*>(&record);
    require_ok(api().step_run(step, 0, &run));
    const double seconds = finish(commands, out);
    require_ok(vulkan_->device_wait(session_.device));
    require_ok(api().step_commit(step));
    return seconds;
  }
  std::string create(baseline::RowsKernel& kernel, std::uint32_t local_size) const {
    return kernel.create({format_, shape_.head_dim, shape_.group, shape_.kv_heads, shape_.tokens, static_cast<std::uint32_t>(row_bytes_)}, local_size);
  }
  VulkanEngine& engine() { return engine_; }

 private:
  std::size_t queries() const { return std::size_t{shape_.kv_heads} * shape_.group * shape_.head_dim; }

  kvant_tensor tensor_at(std::uint32_t offset) const {
    auto tensor = make<kvant_tensor>();
    tensor.buffer = engine_.buffer();
    tensor.offset = offset;
    tensor.type = KVANT_TYPE_F32;
    tensor.size = queries() * 4;
    return tensor;
  }

  double finish(VkCommandBuffer commands, std::vector<float>& out) {
    std::fill_n(engine_.floats(places_.out), queries(), NAN);
    const auto begin = std::chrono::steady_clock::now();
    REQUIRE(engine_.submit_and_wait(commands));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    out.assign(engine_.floats(places_.out), engine_.floats(places_.out) + queries());
    return taken.count();
  }

  // The same rows into the cache, and as canonical bytes into the engine's buffer.
  void fill() {
    cache_ = make_cache(session_, {.kv_heads = shape_.kv_heads,
                                   .head_dim_k = shape_.head_dim,
                                   .head_dim_v = shape_.head_dim,
                                   .format_k = shape_.format,
                                   .format_v = shape_.format,
                                   .capacity = shape_.tokens});
    require_ok(api().sequence_create(cache_, &sequence_));
    const std::size_t row = std::size_t{shape_.kv_heads} * shape_.head_dim;
    for (std::uint32_t done = 0; done < shape_.tokens;) {
      const std::uint32_t count = std::min(kFill, shape_.tokens - done);
      StepData data;
      data.k = random_floats(count * row, 2 * done + 1, 2.0F);
      data.v = random_floats(count * row, 2 * done + 2, 2.0F);
      run_step(cache_, 1, sequence_, count, 0, data);
      const std::uint64_t rows = std::uint64_t{count} * shape_.kv_heads, at = std::uint64_t{done} * shape_.kv_heads * row_bytes_;
      auto* bytes = reinterpret_cast<unsigned char*>(engine_.floats(0));
      require_ok(api().quantize(session_.device, format_, shape_.head_dim, rows, data.k.data(), data.k.size() * 4, bytes + places_.k + at, rows * row_bytes_));
      require_ok(api().quantize(session_.device, format_, shape_.head_dim, rows, data.v.data(), data.v.size() * 4, bytes + places_.v + at, rows * row_bytes_));
      done += count;
    }
    const std::vector<float> q = random_floats(queries(), 7, 3.0F);
    std::copy(q.begin(), q.end(), engine_.floats(places_.q));
  }

  Shape shape_;
  VulkanEngine engine_;
  Session session_{{.open_device = false}};
  const kvant_ext_vulkan* vulkan_ = nullptr;
  std::uint32_t format_ = 0;
  std::uint64_t row_bytes_ = 0;
  baseline::RowsPlaces places_;
  kvant_cache* cache_ = nullptr;
  kvant_sequence sequence_ = 0;
  bool ready_ = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE("baseline: one thread a row gives what the library gives") {
  for (const char* format : {"q4_0", "q8_0", "q5_0"}) {
    CAPTURE(format);
    Beside beside({format, 64, 2, 3, 300});
    if (!beside.ready()) return;
    baseline::RowsKernel kernel(beside.engine());
    REQUIRE(beside.create(kernel, 4) == "");
    std::vector<float> rows, library;
    beside.run_rows(kernel, rows);
    beside.run_library(library);
    CHECK(distance(rows, library) < 1e-5);
    CHECK(*std::max_element(rows.begin(), rows.end()) > 0.01);
  }
}

TEST_CASE("baseline: speed" * doctest::skip()) {
  constexpr int kRounds = 9;
  std::printf("%-6s %-34s %10s %12s %s\n", "format", "shape", "library ms", "one row ms", "times as fast");
  double product = 1.0;
  int cases = 0;
  for (const char* format : {"q4_0", "q8_0"}) {
    for (const Shape& shape : {Shape{format, 128, 8, 4, 4096}, Shape{format, 64, 8, 4, 4096}, Shape{format, 128, 16, 1, 4096}, Shape{format, 128, 2, 8, 4096},
                               Shape{format, 128, 8, 4, 512}}) {
      Beside beside(shape);
      if (!beside.ready()) return;
      std::vector<float> out;
      // Workgroups of so many rows, and the best of them.
      std::vector<std::unique_ptr<baseline::RowsKernel>> kernels;
      for (const std::uint32_t local_size : {1u, 4u, 8u, 16u, 64u}) {
        kernels.push_back(std::make_unique<baseline::RowsKernel>(beside.engine()));
        REQUIRE(beside.create(*kernels.back(), local_size) == "");
        beside.run_rows(*kernels.back(), out);
      }
      beside.run_library(out);
      std::vector<double> library;
      std::vector<std::vector<double>> rows(kernels.size());
      for (int round = 0; round < kRounds; ++round) {
        library.push_back(beside.run_library(out));
        for (std::size_t i = 0; i < kernels.size(); ++i) rows[i].push_back(beside.run_rows(*kernels[i], out));
      }
      double best = median(rows[0]);
      for (const auto& times : rows) best = std::min(best, median(times));
      const double ratio = best / median(library);
      product *= ratio;
      ++cases;
      char text[64];
      std::snprintf(text, sizeof text, "d %u, %u KV heads, GQA %u, %u tokens", shape.head_dim, shape.kv_heads, shape.group, shape.tokens);
      std::printf("%-6s %-34s %10.2f %12.2f %.2f\n", format, text, 1e3 * median(library), 1e3 * best, ratio);
      std::fflush(stdout);
    }
  }
  std::printf("geometric mean %.2f, medians of %d rounds, in turn\n", std::pow(product, 1.0 / cases), kRounds);
}
