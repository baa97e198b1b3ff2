// Writes the seed corpora: fuzz_seeds <folder>. What is committed under corpus/ beside these are inputs that once found something.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "cpu_executor.hpp"
#include "pipeline_blob.hpp"
#include "pipeline_list.hpp"
#include "tuned_configs.hpp"
#include "state_records.hpp"
#include "tier_entry.hpp"

namespace {

using namespace kvant;
namespace fs = std::filesystem;

class Corpus {
 public:
  Corpus(const fs::path& folder, const char* target) : folder_(folder / target) { fs::create_directories(folder_); }
  void add(const char* name, std::string_view bytes) const {
    std::ofstream file(folder_ / (std::string("seed_") + name), std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    KVANT_FUZZ_CHECK(!file.fail(), folder_.string());
  }

 private:
  fs::path folder_;
};

template <std::size_t n>
std::string_view raw(const char (&text)[n]) {
  return {text, n - 1};
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename T>
std::string little(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFF);
  return bytes;
}

// A state as a cache saves it, of two sequences that share a page.
std::string saved_state() {
  reference::CpuExecutor executor;
  auto cache = Cache::create(executor, fuzz::state_spec(), Log{});
  KVANT_FUZZ_CHECK(cache.ok());
  const auto parent = cache.value()->create_sequence();
  KVANT_FUZZ_CHECK(parent.ok() && cache.value()->extend_sequence(parent.value(), 19).ok());
  KVANT_FUZZ_CHECK(cache.value()->fork_sequence(parent.value(), 17).ok());
  StateSelection all;
  all.all_sequences = all.prefixes = true;
  std::string bytes;
  KVANT_FUZZ_CHECK(cache.value()
                       ->save_state(all,
                                    [&](std::span<const std::byte> piece) {
                                      bytes += text_of(piece);
                                      return Status();
                                    })
                       .ok());
  return bytes;
}

void write_states(const fs::path& folder) {
  const Corpus corpus(folder, "state");
  const std::string saved = saved_state();
  corpus.add("saved", std::string(1, '\0') + saved);
  corpus.add("saved_in_pieces_beside_another", std::string("\x0a") + saved);
  corpus.add("cut", std::string(1, '\0') + saved.substr(0, 600));
  // Header, a page of either group, and a sequence of 16 tokens of them; then one more that shares.
  const std::string parts = std::string(raw("\x01\x00\x01\x00\x10\x07\x01\x01\x10\x09"));
  const std::string sequence(raw("\x02\x05\x10\x0a\x00\x00\x00\x00\x10\x01\x00\x00"));
  corpus.add("sealed", parts + sequence);
  corpus.add("sealed_shared", parts + sequence + sequence);
  corpus.add("sealed_prefix", parts + std::string(raw("\x02\x00\x10\x0a\x00\x00\x00\x02"
                                                      "ab"
                                                      "\x10\x01\x00\x00")));
  corpus.add("sealed_end_in_the_midst", parts + "\x04" + sequence);
}

void write_tier_entries(const fs::path& folder) {
  const Corpus corpus(folder, "tier_entry");
  TierKey key;
  key.bytes.fill(std::byte{0x5A});
  const std::string value = "some bytes";
  const std::string entry = text_of(make_entry(key, std::as_bytes(std::span(value))));
  corpus.add("raw", "\x10\xff\xff" + entry);
  corpus.add("raw_cut", "\x10\xff\xff" + entry.substr(0, 84));
  corpus.add("sealed", raw("\x11\xff\xff\xff\x00"
                           "some bytes"));
  corpus.add("parts", raw("\x13\xff\xff\x03\x10\x01\x02\x03\x04\x05\x06\x07\x08\xff\x00"
                          "some bytes"));
  corpus.add("pages", raw("\x39\xff\xff\xff\x00\x07\x09\xff\xff"));
  corpus.add("pages_narrow", raw("\x39\x03\x04\xff\x00\x07\x09\x03\x04"));
  corpus.add("pages_of_one_group", raw("\x39\xff\xff\xff\x00\x07\xff\xff\xff"));
  corpus.add("spoilt_size", raw("\x15\xff\xff\x38\xff"
                                "some bytes"));
}

std::string gguf_string(std::string_view text) { return little(std::uint64_t{text.size()}) + std::string(text); }
std::string gguf_u32(std::string_view key, std::uint32_t value) {
  return gguf_string(key) + little(std::uint32_t{4}) + little(value);
}

// A Llama of one layer of width 8, with the tokens that a byte-level vocabulary needs left out.
void write_ggufs(const fs::path& folder) {
  const Corpus corpus(folder, "gguf");
  const std::string head = "GGUF" + little(std::uint32_t{3});
  corpus.add("empty", head + little(std::uint64_t{0}) + little(std::uint64_t{0}));
  std::string kinds;
  const std::uint32_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  std::uint64_t pairs = 0;
  for (std::uint32_t type = 0; type < 13; ++type) {
    if (type == 8 || type == 9) continue;
    ++pairs;
    kinds += gguf_string("k" + std::to_string(type)) + little(type) + std::string(widths[type], '\1');
    ++pairs;
    kinds += gguf_string("a" + std::to_string(type)) + little(std::uint32_t{9}) + little(type) +
             little(std::uint64_t{2}) + std::string(2 * widths[type], '\1');
  }
  kinds += gguf_string("s") + little(std::uint32_t{8}) + gguf_string("text");
  kinds += gguf_string("l") + little(std::uint32_t{9}) + little(std::uint32_t{8}) + little(std::uint64_t{2}) +
           gguf_string("x") + gguf_string("");
  corpus.add("every_type", head + little(std::uint64_t{0}) + little(pairs + 2) + kinds);

  std::string meta = gguf_string("general.architecture") + little(std::uint32_t{8}) + gguf_string("llama");
  for (const char* key : {"block_count", "attention.head_count"}) meta += gguf_u32(std::string("llama.") + key, 1);
  for (const char* key : {"embedding_length", "feed_forward_length", "context_length"})
    meta += gguf_u32(std::string("llama.") + key, 8);
  meta += gguf_string("llama.attention.layer_norm_rms_epsilon") + little(std::uint32_t{6}) +
          little(std::uint32_t{0x3727C5AC});
  meta += gguf_string("tokenizer.ggml.model") + little(std::uint32_t{8}) + gguf_string("llama");
  meta += gguf_string("tokenizer.ggml.tokens") + little(std::uint32_t{9}) + little(std::uint32_t{8}) +
          little(std::uint64_t{2}) + gguf_string("<s>") + gguf_string("a");
  std::string tensors;
  const char* names[] = {"token_embd.weight",        "output_norm.weight",    "blk.0.attn_norm.weight",
                         "blk.0.attn_q.weight",      "blk.0.attn_k.weight",   "blk.0.attn_v.weight",
                         "blk.0.attn_output.weight", "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight",
                         "blk.0.ffn_up.weight",      "blk.0.ffn_down.weight"};
  for (const std::string_view name : names) {
    const bool vector = name.find("norm") != std::string_view::npos;
    tensors += gguf_string(name) + little(std::uint32_t{vector ? 1u : 2u}) + little(std::uint64_t{8});
    if (!vector) tensors += little(name == "token_embd.weight" ? std::uint64_t{2} : std::uint64_t{8});
    tensors += little(std::uint32_t{1}) + little(std::uint64_t{0});  // all of them the same bytes
  }
  std::string file = head + little(std::uint64_t{std::size(names)}) + little(std::uint64_t{9}) + meta + tensors;
  file.resize((file.size() + 31) / 32 * 32 + 128, '\0');
  corpus.add("llama", file);
}

void write_texts(const fs::path& folder) {
  const Corpus config(folder, "config");
  config.add("empty", "c{}");
  config.add("preset", R"(c{"preset": "llm", "capacity_tokens": 4096})");
  config.add("all", R"(c{"capacity_tokens": 1024, "page_tokens": 32, "memory_limit_bytes": 1048576, "format_k": "q8_0",
"format_v": "q4_0", "window": 64, "window_sinks": 4, "prefix_cache": true, "model_id": "m\u00e4", "events": 16,
"attention_mass": true, "policy": {"kind": "window", "ttl_ms": 1000, "sink_pages": 1}, "tiers": {"host_bytes": 4096,
"format": "q8_0/q4_0", "min_tokens": 16, "compare_recompute": false}, "monitor": {"history": 8, "interval_ms": 0}})");
  config.add(
      "hybrid",
      R"(c{"preset": "research", "prefix_cache": true, "hybrid": {"hot_format": "f16", "cold_format": "q4_0", "promote_uses": 3}})");
  config.add("numbers",
             R"(c{"capacity_tokens": 18446744073709551615, "slab_bytes": -1, "events": 1e9, "page_tokens": 1.5})");
  config.add(
      "snapshot",
      R"(s{"fp16": false, "subgroup_size": 4, "max_binding_bytes": 65536, "heaps": [{"size": 1048576, "device_local": true}]})");

  const Corpus trace(folder, "trace");
  trace.add("mooncake",
            std::string(raw("\x02\x00\x10\x03"
                            "50%")) +
                "{\"timestamp\": 0, \"input_length\": 900, \"output_length\": 5, \"hash_ids\": [1, 2]}\n"
                "{\"timestamp\": 7.5, \"input_length\": 1200, \"output_length\": 5, \"hash_ids\": [1, 2, 3]}\n");
  trace.add("csv", std::string(raw("\x03\x00\x10\x05"
                                   "3,20%")) +
                       "time,id,size\n0.0,a,100\n0.5,b,50,x\n# no\n1.25,a,100\n2,c,7\n");
  trace.add("csv_large", std::string(raw("\x05\x00\x10\x04"
                                         "1TiB")) +
                             "0,a,281474976710656\n1,b,281474976710656\n1e9,a,1\n");
  trace.add("mooncake_edges", std::string(raw("\x04\xff\xff\x04"
                                              "100%")) +
                                  "{\"timestamp\": 9007199254740992, \"input_length\": 18446744073709551615, "
                                  "\"hash_ids\": [18446744073709551615, 0]}\n");
}

void write_blobs(const fs::path& folder) {
  const Corpus corpus(folder, "pipeline_blob");
  DeviceSnapshot device;
  device.vendor_id = 0x1234;
  device.driver_version = 7;
  const std::string payload = "pipelines";
  const std::string blob = text_of(encode_blob(device, "sha256:00", std::as_bytes(std::span(payload))));
  corpus.add("raw", std::string(1, '\0') + blob);
  corpus.add("raw_cut", std::string(1, '\0') + blob.substr(0, 75));
  device.device_id = 1;
  corpus.add("of_another_device", std::string(1, '\0') + text_of(encode_blob(device, "sha256:00", {})));
  corpus.add("sealed", raw("\x01\xff\x00\x00"
                           "pipelines"));
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = 64;
  const PipelineList list{{make_pipeline_key(KernelId::copy, spec, false), make_pipeline_key(KernelId::append, spec, false)}, {std::byte{7}}};
  corpus.add("of_two_pipelines", std::string(raw("\x01\xff\x00\x00")) + text_of(encode_pipelines(list)));
  corpus.add("claims_more", raw("\x13\xff\x00\xff"
                                "pipelines"));
  corpus.add("spoilt", raw("\x19\x04\x02\x00"
                           "pipelines"));
}

void write_tuned(const fs::path& folder) {
  const Corpus corpus(folder, "tuned_configs");
  const std::string call(13, '\0');  // mode, device and call, as the target reads them
  AttendShape shape;
  shape.head_dim_k = shape.head_dim_v = 8;
  DevicePlan plan;
  plan.snapshot.max_shared_bytes = 16384;
  plan.snapshot.max_invocations = 256;
  plan.snapshot.max_local_size = {256, 256, 64};
  TunedConfigs configs;
  configs.set(tuning_key(shape), {choose_attend_config(shape, plan), 8, 1.5, 2});
  const std::string text = encode_tuned(configs, plan.snapshot, "shaders");
  corpus.add("raw", call + text);
  corpus.add("raw_cut", call + text.substr(0, text.size() / 2));
  corpus.add("raw_of_other_shaders", call + encode_tuned(configs, plan.snapshot, "others"));
  corpus.add("raw_without_configs", call + encode_tuned({}, plan.snapshot, "shaders"));
  corpus.add("as_chosen", "\x01" + call.substr(1));
  corpus.add("other_numbers", "\x01" + call.substr(1) + std::string("\x01\x0a\x01\x40\x01\x20\x01\x02\x01\x02\x01\x40\x01\x10\x01\x10\x01\x40\x01\x10\x08", 21));
  corpus.add("spoilt", "\x03" + call.substr(1) + std::string(40, '\x07'));
}

// Calls in a row whose bytes are small, so that most arguments are right ones.
void write_calls(const fs::path& folder) {
  for (const char* target : {"abi", "abi_cpu"}) {
    const Corpus corpus(folder, target);
    std::uint32_t state = 1;
    for (int i = 0; i < 4; ++i) {
      std::string bytes;
      for (int k = 0; k < 400; ++k) {
        state = state * 1664525u + 1013904223u;
        bytes += static_cast<char>(state >> 24 & (k % 3 == 0 ? 0x0Fu : 0x7Fu));
      }
      corpus.add(("calls_" + std::to_string(i)).c_str(), bytes);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "fuzz_seeds <folder of the corpora>\n");
    return 2;
  }
  const fs::path folder = argv[1];
  write_states(folder);
  write_tier_entries(folder);
  write_ggufs(folder);
  write_texts(folder);
  write_blobs(folder);
  write_tuned(folder);
  write_calls(folder);
  return 0;
}
