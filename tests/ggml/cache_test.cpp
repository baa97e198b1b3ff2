// KV cache tensors that lie in pages against twins that never do: after every step of a script (rows set, attention, bytes written and
// read at odd places, streams copied, rows looked up) both give the same bytes and the same attention, bit for bit. Graphs of the former lie in
// memory that the processor shares, those of the latter in the device's. Uses ggml's public functions alone. Run as: ggml_cache_test PATH/libggml-kvant.so [parts]; the latter on a device whose bindings are small.
// Exit status 0: all equal; 77: no device.
#include <dlfcn.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t kHeads = 2, kDim = 64, kStreams = 2, kQueryHeads = 4, kTokens = 7, kQueries = 3;
const ggml_type kTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,  GGML_TYPE_Q5_1,
                            GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};

std::int64_t rows_of_stream = 96;

int failures = 0;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "ggml_cache_test: %s\n", what.c_str());
}

std::string pages_log;
void on_log(ggml_log_level, const char* text, void*) { pages_log += text; }

// K and V of one cache, in a buffer of their own.
struct Cache {
  ggml_context* context = nullptr;
  ggml_backend_buffer_t buffer = nullptr;
  ggml_tensor *k = nullptr, *v = nullptr;

  Cache(ggml_type type_k, ggml_type type_v, bool twin) {
    context = ggml_init({ggml_tensor_overhead() * 4, nullptr, true});
    k = ggml_new_tensor_3d(context, type_k, kHeads * kDim, rows_of_stream, kStreams);
    v = ggml_new_tensor_3d(context, type_v, kHeads * kDim, rows_of_stream, kStreams);
    ggml_set_name(k, twin ? "twin_k" : "cache_k");
    ggml_set_name(v, twin ? "twin_v" : "cache_v");
  }
  Cache(ggml_backend_t backend, ggml_type type_k, ggml_type type_v, bool twin) : Cache(type_k, type_v, twin) {
    buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    ggml_backend_buffer_clear(buffer, 0);
    if (twin) ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_COMPUTE);
  }
  ~Cache() {
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
  }
};

std::vector<std::uint8_t> bytes_of(const ggml_tensor* tensor) {
  std::vector<std::uint8_t> bytes(ggml_nbytes(tensor));
  ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
  return bytes;
}

// A graph with tensors of its own; `build` fills it and returns what is read back.
struct Graph {
  ggml_context* context = ggml_init({ggml_tensor_overhead() * 64 + ggml_graph_overhead(), nullptr, true});
  ggml_cgraph* graph = ggml_new_graph(context);
  ggml_backend_buffer_t buffer = nullptr;

  ~Graph() {
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
  }
  // What the graph reads and makes lies in the device's memory, or in memory that it shares with the processor.
  void allocate(ggml_backend_t backend, bool shared) {
    ggml_backend_buffer_type_t type = ggml_backend_dev_host_buffer_type(ggml_backend_get_device(backend));
    expect(!shared || (type != nullptr && ggml_backend_buft_is_host(type)), "there is no host buffer type");
    buffer = shared ? ggml_backend_alloc_ctx_tensors_from_buft(context, type) : ggml_backend_alloc_ctx_tensors(context, backend);
    expect(!shared || ggml_backend_buffer_get_type(buffer) == type, "shared memory is not the device's");
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_COMPUTE);
  }
};

ggml_tensor* heads_view(ggml_context* context, ggml_tensor* t) {
  const std::size_t row = ggml_row_size(t->type, kHeads * kDim);
  ggml_tensor* view = ggml_view_4d(context, t, kDim, kHeads, rows_of_stream, kStreams, ggml_row_size(t->type, kDim), row, row * rows_of_stream, 0);
  return ggml_permute(context, view, 0, 2, 1, 3);
}

struct Inputs {
  std::vector<float> k, v, q;
  std::vector<std::int64_t> rows;
};

// llama.cpp's order: rows of K, rows of V, attention over both streams. V has indices of its own: K's from last to first.
std::vector<std::uint8_t> step(ggml_backend_t backend, Cache& cache, const Inputs& in, ggml_type source, bool shared) {
  Graph g;
  ggml_tensor* k = ggml_new_tensor_2d(g.context, GGML_TYPE_F32, kHeads * kDim, kTokens);
  ggml_tensor* v = ggml_new_tensor_2d(g.context, source, kHeads * kDim, kTokens);
  ggml_tensor* rows = ggml_new_tensor_1d(g.context, GGML_TYPE_I64, kTokens);
  ggml_tensor* rows_v = ggml_new_tensor_1d(g.context, GGML_TYPE_I64, kTokens);
  ggml_tensor* q = ggml_new_tensor_4d(g.context, GGML_TYPE_F32, kDim, kQueries, kQueryHeads, kStreams);
  ggml_tensor* set_k = ggml_set_rows(g.context, ggml_reshape_2d(g.context, cache.k, kHeads * kDim, rows_of_stream * kStreams), k, rows);
  ggml_tensor* set_v = ggml_set_rows(g.context, ggml_reshape_2d(g.context, cache.v, kHeads * kDim, rows_of_stream * kStreams), v, rows_v);
  ggml_tensor* out =
      ggml_flash_attn_ext(g.context, q, heads_view(g.context, cache.k), heads_view(g.context, cache.v), nullptr, 0.125f, 0.0f, 0.0f);
  for (ggml_tensor* node : {set_k, set_v, out}) ggml_build_forward_expand(g.graph, node);
  g.allocate(backend, shared);
  ggml_backend_tensor_set(k, in.k.data(), 0, ggml_nbytes(k));
  std::vector<ggml_fp16_t> half(in.v.size());
  ggml_fp32_to_fp16_row(in.v.data(), half.data(), static_cast<std::int64_t>(half.size()));
  ggml_backend_tensor_set(v, source == GGML_TYPE_F16 ? static_cast<const void*>(half.data()) : in.v.data(), 0, ggml_nbytes(v));
  ggml_backend_tensor_set(rows, in.rows.data(), 0, ggml_nbytes(rows));
  const std::vector<std::int64_t> reversed(in.rows.rbegin(), in.rows.rend());
  ggml_backend_tensor_set(rows_v, reversed.data(), 0, ggml_nbytes(rows_v));
  ggml_backend_tensor_set(q, in.q.data(), 0, ggml_nbytes(q));
  expect(ggml_backend_graph_compute(backend, g.graph) == GGML_STATUS_SUCCESS, "the step was not computed");
  return bytes_of(out);
}

// An operation that knows no pages, on a part of K.
std::vector<std::uint8_t> lookup(ggml_backend_t backend, Cache& cache, bool shared) {
  Graph g;
  ggml_tensor* rows = ggml_new_tensor_1d(g.context, GGML_TYPE_I32, 2);
  ggml_tensor* out = ggml_get_rows(g.context, ggml_reshape_2d(g.context, cache.k, kHeads * kDim, rows_of_stream * kStreams), rows);
  ggml_build_forward_expand(g.graph, out);
  g.allocate(backend, shared);
  const std::int32_t which[] = {5, static_cast<std::int32_t>(rows_of_stream * kStreams - 3)};
  ggml_backend_tensor_set(rows, which, 0, sizeof which);
  expect(ggml_backend_graph_compute(backend, g.graph) == GGML_STATUS_SUCCESS, "the lookup was not computed");
  return bytes_of(out);
}

void copy_stream(Cache& cache) {
  for (ggml_tensor* t : {cache.k, cache.v}) {
    ggml_context* context = ggml_init({ggml_tensor_overhead() * 4, nullptr, true});
    ggml_tensor* from = ggml_view_2d(context, t, t->ne[0], rows_of_stream, t->nb[1], 0);
    ggml_tensor* to = ggml_view_2d(context, t, t->ne[0], rows_of_stream, t->nb[1], t->nb[2]);
    ggml_backend_view_init(from);
    ggml_backend_view_init(to);
    ggml_backend_tensor_copy(from, to);
    ggml_free(context);
  }
}

void run_pair(ggml_backend_t backend, ggml_type type_k, ggml_type type_v) {
  const std::string name = std::string(ggml_type_name(type_k)) + "/" + ggml_type_name(type_v) + ": ";
  std::mt19937 random(static_cast<std::uint32_t>(type_k) * 64 + static_cast<std::uint32_t>(type_v));
  std::normal_distribution<float> normal;
  Cache cache(backend, type_k, type_v, false), twin(backend, type_k, type_v, true);
  auto inputs = [&] {
    Inputs in;
    for (auto* values : {&in.k, &in.v}) {
      values->resize(kHeads * kDim * kTokens);
      for (float& x : *values) x = normal(random);
    }
    in.q.resize(kDim * kQueries * kQueryHeads * kStreams);
    for (float& x : in.q) x = normal(random);
    std::vector<std::int64_t> all(rows_of_stream * kStreams);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    std::shuffle(all.begin(), all.end(), random);
    in.rows.assign(all.begin(), all.begin() + kTokens);
    return in;
  };
  auto same = [&](const char* when) {
    expect(bytes_of(cache.k) == bytes_of(twin.k), name + "K differs after " + when);
    expect(bytes_of(cache.v) == bytes_of(twin.v), name + "V differs after " + when);
  };
  auto both_step = [&](const char* when, ggml_type source) {
    const Inputs in = inputs();
    expect(step(backend, cache, in, source, true) == step(backend, twin, in, source, false), name + "attention differs after " + when);
    same(when);
  };
  both_step("the first step", GGML_TYPE_F32);
  both_step("the second step", GGML_TYPE_F16);
  // Bytes at odd places: inside a row, over the ends of pages, in both streams.
  const std::size_t row = ggml_row_size(type_k, kHeads * kDim);
  const std::pair<std::size_t, std::size_t> ranges[] = {{row * 3 + 10, row * 40 + 4}, {row * 32, row * 32}, {row * 95 + 2, row * 3}};
  for (const auto& [offset, size] : ranges) {
    // Bytes of a row that is there already: codes of any kind, scales that are numbers.
    std::vector<std::uint8_t> bytes = bytes_of(twin.k);
    std::rotate(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(row), bytes.end());
    for (Cache* c : {&cache, &twin}) ggml_backend_tensor_set(c->k, bytes.data() + offset, offset, size);
    std::vector<std::uint8_t> a(size + 6), b(size + 6);
    ggml_backend_tensor_get(cache.k, a.data(), offset - 2, a.size());
    ggml_backend_tensor_get(twin.k, b.data(), offset - 2, b.size());
    expect(a == b, name + "bytes around those written differ");
  }
  same("bytes were written");
  both_step("bytes were written", GGML_TYPE_F32);
  for (Cache* c : {&cache, &twin}) ggml_backend_tensor_memset(c->v, 0, c->v->nb[1] * 31, c->v->nb[1] * 2);
  same("rows were cleared");
  for (Cache* c : {&cache, &twin}) copy_stream(*c);
  same("a stream was copied");
  both_step("a stream was copied", GGML_TYPE_F32);
  expect(lookup(backend, cache, true) == lookup(backend, twin, false), name + "rows looked up differ");
  same("rows were looked up");
  both_step("rows were looked up", GGML_TYPE_F32);
  for (Cache* c : {&cache, &twin}) ggml_backend_buffer_clear(c->buffer, 0);
  same("all was cleared");
}

Inputs plain_inputs() {
  Inputs in;
  for (std::int64_t i = 0; i < kHeads * kDim * kTokens; ++i) in.k.push_back(static_cast<float>(i % 17) / 8.0f - 1.0f);
  in.v = in.k;
  for (std::int64_t i = 0; i < kDim * kQueries * kQueryHeads * kStreams; ++i) in.q.push_back(static_cast<float>(i % 11) / 5.0f - 1.0f);
  for (std::int64_t i = 0; i < kTokens; ++i) in.rows.push_back(i * 3);
  return in;
}

// Of a device whose bindings take 64 KiB: tensors that can be bound whole though sixteen of their pages cannot, and tensors bound in parts.
void run_parts(ggml_backend_t backend) {
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0}) run_pair(backend, type, type);
  rows_of_stream = 480;
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_1}) run_pair(backend, type, type);
}

// Tensors of one type after the other at the same place of one buffer, of which the first lay in pages.
void run_reuse(ggml_backend_t backend) {
  const Inputs in = plain_inputs();
  ggml_backend_buffer_t buffer = ggml_backend_alloc_buffer(backend, 1 << 20);
  auto* base = static_cast<char*>(ggml_backend_buffer_get_base(buffer));
  const std::pair<ggml_type, std::size_t> places[] = {{GGML_TYPE_F16, 0}, {GGML_TYPE_BF16, 0}, {GGML_TYPE_Q4_0, 0}, {GGML_TYPE_IQ4_NL, 0}, {GGML_TYPE_Q8_0, 512}};
  for (const auto& [type, offset] : places) {
    const std::string name = std::string(ggml_type_name(type)) + ": ";
    Cache cache(type, type, false), twin(backend, type, type, true);
    ggml_backend_tensor_alloc(buffer, cache.k, base + offset);
    ggml_backend_tensor_alloc(buffer, cache.v, base + (1 << 19) + offset);
    const std::vector<std::uint8_t> zeros(ggml_nbytes(cache.k));
    for (ggml_tensor* t : {cache.k, cache.v}) ggml_backend_tensor_set(t, zeros.data(), 0, zeros.size());
    expect(step(backend, cache, in, GGML_TYPE_F32, false) == step(backend, twin, in, GGML_TYPE_F32, false), name + "attention differs where another type lay");
    expect(bytes_of(cache.k) == bytes_of(twin.k), name + "K differs where another type lay");
  }
  ggml_backend_buffer_free(buffer);
}

// A cache in memory that the processor sees is never turned.
void run_shared(ggml_backend_t backend) {
  const Inputs in = plain_inputs();
  Cache cache(GGML_TYPE_Q8_0, GGML_TYPE_F16, false), twin(backend, GGML_TYPE_Q8_0, GGML_TYPE_F16, true);
  ggml_set_name(cache.k, "shared_k");
  cache.buffer = ggml_backend_alloc_ctx_tensors_from_buft(cache.context, ggml_backend_dev_host_buffer_type(ggml_backend_get_device(backend)));
  ggml_backend_buffer_clear(cache.buffer, 0);
  expect(step(backend, cache, in, GGML_TYPE_F32, true) == step(backend, twin, in, GGML_TYPE_F32, false), "attention over shared memory differs");
  const auto* bytes = static_cast<const std::uint8_t*>(cache.k->data);
  expect(std::vector<std::uint8_t>(bytes, bytes + ggml_nbytes(cache.k)) == bytes_of(twin.k), "the processor sees other bytes of a shared K");
}

// A graph that reaches beyond the device is refused as a whole; what was set before stays. States are cleared by a scale of 0.
void run_refusals(ggml_backend_t backend) {
  Graph g, far;
  ggml_tensor* state = ggml_new_tensor_1d(g.context, GGML_TYPE_F32, 64);
  ggml_tensor* other = ggml_new_tensor_1d(far.context, GGML_TYPE_F32, 64);
  far.buffer = ggml_backend_alloc_ctx_tensors_from_buft(far.context, ggml_backend_cpu_buffer_type());
  ggml_build_forward_expand(g.graph, ggml_cpy(g.context, other, state));
  g.allocate(backend, false);
  const std::vector<float> threes(64, 3.0f);
  ggml_backend_tensor_set(state, threes.data(), 0, ggml_nbytes(state));
  expect(ggml_backend_graph_compute(backend, g.graph) != GGML_STATUS_SUCCESS, "a graph with memory of the processor was computed");
  std::vector<float> seen(64);
  ggml_backend_tensor_get(state, seen.data(), 0, ggml_nbytes(state));
  expect(seen == threes, "a refused graph changed a tensor");
  Graph zero;
  ggml_tensor* view = ggml_view_1d(zero.context, state, 32, 16 * sizeof(float));
  ggml_tensor* cleared = ggml_scale_inplace(zero.context, view, 0.0f);
  expect(ggml_backend_supports_op(backend, cleared), "states cannot be cleared");
  expect(!ggml_backend_supports_op(backend, ggml_scale_inplace(zero.context, view, 2.0f)), "a scale by 2 is no operation of this device");
  ggml_build_forward_expand(zero.graph, cleared);
  ggml_backend_view_init(view);
  ggml_backend_view_init(cleared);
  expect(ggml_backend_graph_compute(backend, zero.graph) == GGML_STATUS_SUCCESS, "states were not cleared");
  ggml_backend_tensor_get(state, seen.data(), 0, ggml_nbytes(state));
  for (std::size_t i = 0; i < seen.size(); ++i) expect(seen[i] == (i >= 16 && i < 48 ? 0.0f : 3.0f), "state " + std::to_string(i) + " is wrong after clearing");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[2] : "";
  if (argc < 2 || argc > 3 || (argc == 3 && mode != "parts")) {
    std::fprintf(stderr, "usage: ggml_cache_test PATH/libggml-kvant.so [parts]\n");
    return 2;
  }
  ggml_log_set(on_log, nullptr);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  auto init = library == nullptr ? nullptr : reinterpret_cast<ggml_backend_reg_t (*)()>(dlsym(library, "ggml_backend_init"));
  if (init == nullptr) {
    std::fprintf(stderr, "ggml_cache_test: %s cannot be loaded: %s\n", argv[1], dlerror());
    return 1;
  }
  ggml_backend_reg_t reg = init();
  if (reg == nullptr || ggml_backend_reg_dev_count(reg) == 0) return 77;
  ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr);
  expect(backend != nullptr, "no backend");
  if (backend == nullptr) return 1;
  if (mode == "parts") {
    run_parts(backend);
    expect(pages_log.find("cache_k lies in pages now") != std::string::npos, "no cache lay in pages");
    ggml_backend_free(backend);
    std::printf("parts, %d failures\n", failures);
    return failures == 0 ? 0 : 1;
  }
  for (const ggml_type type : kTypes) run_pair(backend, type, type);
  run_pair(backend, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0);
  run_pair(backend, GGML_TYPE_F16, GGML_TYPE_IQ4_NL);
  expect(pages_log.find(", 32 rows a page") != std::string::npos, "no pages of 32 rows");
  // Larger pages where the device likes them: llvmpipe does.
  rows_of_stream = 256;
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) run_pair(backend, type, type);
  expect(pages_log.find(", 128 rows a page") != std::string::npos, "no pages of 128 rows");
  rows_of_stream = 96;
  run_reuse(backend);
  run_shared(backend);
  run_refusals(backend);
  expect(pages_log.find("shared_k lies in pages now") == std::string::npos, "shared memory lay in pages");
  expect(pages_log.find("cache_k lies in pages now") != std::string::npos, "no cache lay in pages");
  expect(pages_log.find("twin_k lies in pages now") == std::string::npos, "a twin lay in pages");
  ggml_backend_free(backend);
  std::printf("%zu pairs of types, %d failures\n", std::size(kTypes) + 5, failures);
  return failures == 0 ? 0 : 1;
}
