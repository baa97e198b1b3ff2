// bench_peer DEVICE [THREADS]: a backend of ggml that computes FLASH_ATTN_EXT when it is told to (tools/bench-peers tells it and takes turns between
// several). DEVICE is a name that ggml gives, or `reference`. Lines in, one line out for each:
//   case TYPE HEAD_DIM KV_HEADS GROUP KV QUERIES SEQUENCES    ready NAME | unsupported | error TEXT
//   run                                                     ms MILLISECONDS | error TEXT
//   reference FILE   (the device `reference`)                written | error TEXT
//   compare FILE                                            error_of VALUE: relative, of the sampled queries | error TEXT
// Ends with its input. Uses ggml's public functions alone.
#include <ggml-alloc.h>
#include <ggml-backend.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "attention_case.hpp"

namespace {

using namespace kvant::peers;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* what) const {
    Free(what);
  }
};
using Backend = std::unique_ptr<ggml_backend, Freed<ggml_backend_free>>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Freed<ggml_backend_buffer_free>>;
using Context = std::unique_ptr<ggml_context, Freed<ggml_free>>;

// K and V as llama.cpp's cache has them: a token's heads side by side, and a view of them by head.
struct Work {
  Context context{ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true})};
  Buffer buffer;
  ggml_cgraph* graph = nullptr;
  ggml_tensor* out = nullptr;
};

ggml_tensor* heads_view(ggml_context* context, const AttentionCase& c, ggml_tensor* t) {
  const std::size_t row = ggml_row_size(c.type, c.row());
  ggml_tensor* view = ggml_view_4d(context, t, c.head_dim, c.kv_heads, c.kv, c.sequences, ggml_row_size(c.type, c.head_dim), row,
                                   row * static_cast<std::size_t>(c.kv), 0);
  return ggml_permute(context, view, 0, 2, 1, 3);
}

// nullptr: the backend does not support it.
std::unique_ptr<Work> make_work(ggml_backend_t backend, const AttentionCase& c, const Inputs& in) {
  auto work = std::make_unique<Work>();
  ggml_context* g = work->context.get();
  ggml_tensor* k = ggml_new_tensor_3d(g, c.type, c.row(), c.kv, c.sequences);
  ggml_tensor* v = ggml_new_tensor_3d(g, c.type, c.row(), c.kv, c.sequences);
  ggml_tensor* q = ggml_new_tensor_4d(g, GGML_TYPE_F32, c.head_dim, c.queries, c.query_heads(), c.sequences);
  ggml_tensor* mask = ggml_new_tensor_2d(g, GGML_TYPE_F16, c.kv, c.queries);
  ggml_set_name(k, "cache_k_l0");
  ggml_set_name(v, "cache_v_l0");
  work->out = ggml_flash_attn_ext(g, q, heads_view(g, c, k), heads_view(g, c, v), mask, 1.0f / std::sqrt(static_cast<float>(c.head_dim)), 0.0f, 0.0f);
  ggml_prec_set_acc(work->out, GGML_PREC_F32);
  if (!ggml_backend_supports_op(backend, work->out)) return nullptr;
  work->graph = ggml_new_graph(g);
  ggml_build_forward_expand(work->graph, work->out);
  work->buffer.reset(ggml_backend_alloc_ctx_tensors(g, backend));
  if (!work->buffer) return nullptr;
  ggml_backend_tensor_set(k, in.k.data(), 0, in.k.size());
  ggml_backend_tensor_set(v, in.v.data(), 0, in.v.size());
  ggml_backend_tensor_set(q, in.q.data(), 0, ggml_nbytes(q));
  ggml_backend_tensor_set(mask, in.mask.data(), 0, ggml_nbytes(mask));
  return work;
}

ggml_backend_t make_backend(const std::string& device, int threads) {
  ggml_backend_load_all();
  ggml_backend_t backend = ggml_backend_init_by_name(device.c_str(), nullptr);
  if (backend == nullptr) return nullptr;
  ggml_backend_dev_t dev = ggml_backend_get_device(backend);
  const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_backend_set_n_threads"));
  if (set_threads != nullptr && threads > 0) set_threads(backend, threads);
  return backend;
}

std::vector<float> read_floats(const std::string& path, std::size_t count) {
  std::vector<float> values(count);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
  if (!file) values.clear();
  return values;
}

// The only words on standard output are answers: ggml's go to standard error.
void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

class Peer {
 public:
  Peer(std::string device, int threads) : device_(std::move(device)) {
    if (device_ != "reference") backend_.reset(make_backend(device_, threads));
  }
  bool good() const { return device_ == "reference" || backend_ != nullptr; }

  std::string answer(const std::string& line) {
    const std::size_t space = line.find(' ');
    const std::string verb = line.substr(0, space), rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (verb == "case") return take(rest);
    if (verb == "reference" && !backend_ && !inputs_.q.empty()) return write_reference(rest);
    if (verb == "run" && work_) return run();
    if (verb == "compare" && work_) return compare(rest);
    return "error '" + line + "' is not expected now";
  }

 private:
  std::string take(const std::string& text) {
    work_.reset();
    inputs_ = {};
    if (!parse_case(text, case_)) return "error '" + text + "' is no case";
    inputs_ = make_inputs(case_);
    if (!backend_) return "ready reference";
    work_ = make_work(backend_.get(), case_, inputs_);
    if (!work_) return "unsupported";
    return std::string("ready ") + ggml_backend_dev_description(ggml_backend_get_device(backend_.get()));
  }
  std::string run() {
    const auto begin = std::chrono::steady_clock::now();
    if (ggml_backend_graph_compute(backend_.get(), work_->graph) != GGML_STATUS_SUCCESS) return "error the graph was not computed";
    const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - begin;
    return "ms " + std::to_string(passed.count());
  }
  std::string write_reference(const std::string& path) {
    const std::vector<float> values = reference_output(case_, inputs_);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
    file.close();
    return file ? "written" : "error " + path + " cannot be written";
  }
  std::string compare(const std::string& path) {
    std::vector<float> output(case_.output_floats());
    ggml_backend_tensor_get(work_->out, output.data(), 0, output.size() * sizeof(float));
    const std::vector<float> own = sampled_output(case_, output), expected = read_floats(path, own.size());
    if (expected.empty()) return "error " + path + " cannot be read";
    char text[64];
    std::snprintf(text, sizeof text, "error_of %.3e", relative_error(own, expected));
    return text;
  }

  std::string device_;
  Backend backend_;
  AttentionCase case_;
  Inputs inputs_;
  std::unique_ptr<Work> work_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s DEVICE [THREADS]\n", argv[0]);
    return 2;
  }
  Peer peer(argv[1], argc > 2 ? std::atoi(argv[2]) : 0);
  if (!peer.good()) {
    std::fprintf(stderr, "bench_peer: ggml has no device %s here\n", argv[1]);
    return 77;
  }
  for (std::string line; std::getline(std::cin, line);) say(peer.answer(line));
  return 0;
}
