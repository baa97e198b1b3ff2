// A caller of the C ABI whose arguments come from a fuzz input: it keeps to what a caller must keep to (memory that it
// names is there, struct_size is that of memory), and to nothing else. Objects of one input: caches, steps, sequences,
// alive and gone.
#pragma once

#include <kvant/kvant_ext_manager.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz_input.hpp"

namespace kvant::fuzz {

inline constexpr std::size_t kArenaFloats = 1u << 15;

// A struct with bytes behind it that a larger struct_size may reach.
template <typename T>
struct Boxed {
  T value;
  unsigned char tail[64];
};

// The library, a context and a device: made once a process.
class AbiLibrary {
 public:
  AbiLibrary();
  ~AbiLibrary();
  AbiLibrary(const AbiLibrary&) = delete;
  AbiLibrary& operator=(const AbiLibrary&) = delete;

  const kvant_api* api = nullptr;
  const kvant_ext_manager* manager = nullptr;
  kvant_context* context = nullptr;
  kvant_device* device = nullptr;
  std::uint32_t formats = 0;
};

struct LiveCache {
  kvant_cache* handle = nullptr;
  std::uint32_t kv_heads = 1, dim_k = 32, dim_v = 32, layers = 1;  // of layer 0
  bool external = false, has_store = false, has_tiers = false;
  std::vector<kvant_sequence> sequences;
  kvant_step* step = nullptr;
  std::uint32_t next_layer = 0;          // of the step
  std::uint64_t fresh = 0, queries = 0;  // of the step
};

class AbiSession {
 public:
  AbiSession(const AbiLibrary& lib, const std::uint8_t* data, std::size_t size);
  ~AbiSession();  // destroys what is left, and checks that the device is as it was
  AbiSession(const AbiSession&) = delete;
  AbiSession& operator=(const AbiSession&) = delete;

  const AbiLibrary& library;
  const kvant_api& api;
  const kvant_ext_manager& m;
  FuzzInput in;
  std::vector<LiveCache> caches;
  std::vector<const void*> dead;  // handles of destroyed objects
  std::vector<kvant_sequence> dead_sequences;
  alignas(16) std::vector<float> arena;     // of all tensors: they overlap as they like
  std::string stream;                       // bytes of the last saved state
  std::map<std::string, std::string> tier;  // of the custom tier
  std::mutex tier_mutex;

  // ---- handles: mostly right ones ----
  LiveCache& own();  // never to be called without a cache
  const kvant_cache* any_cache(const LiveCache& usual);
  kvant_cache* cache(const LiveCache& usual) { return const_cast<kvant_cache*>(any_cache(usual)); }
  kvant_step* step(const LiveCache& usual);
  kvant_sequence sequence(const LiveCache& usual);
  std::uint32_t layer(const LiveCache& usual) { return in.one_in(16) ? in.magnitude32() : in.below(usual.layers); }
  std::uint32_t side() { return in.one_in(32) ? in.magnitude32() : in.below(2); }
  std::uint32_t format() { return in.one_in(16) ? in.magnitude32() : in.below(library.formats + 1); }

  // A number of tokens: mostly one that the sequence has.
  std::uint64_t tokens_of(const LiveCache& of, kvant_sequence sequence);

  // ---- structs ----
  // Zeroed, of its size; now and then another size or a chain.
  template <typename T>
  Boxed<T>& box() {
    auto made = std::make_shared<Boxed<T>>();
    std::memset(made.get(), 0, sizeof(Boxed<T>));
    std::memset(made->tail, 0xA5, sizeof made->tail);
    made->value.struct_size = sizeof(T);
    kept_.push_back(made);
    return *made;
  }
  template <typename T>
  T* spoil(Boxed<T>& boxed) {  // after it has been filled in; NULL now and then
    const std::uint8_t choice = in.u8();
    if (choice < 236) return &boxed.value;
    if (choice == 236) return nullptr;
    if (choice < 240) boxed.value.next = chain();
    if (choice >= 240 && choice < 252) {
      static constexpr std::size_t kSizes[] = {0, 3, 8, 15, 16, 17, 20, 24};
      boxed.value.struct_size = choice < 248 ? kSizes[choice - 240] : sizeof(T) - 8 * (choice - 247);
    }
    if (choice >= 252) boxed.value.struct_size = sizeof(T) + 16 * (choice - 251u);
    return &boxed.value;
  }
  const kvant_next* chain();
  // Memory that lives as long as the input, of exactly this size.
  template <typename T>
  T* array(std::size_t count) {
    auto made = std::make_shared<std::vector<T>>(count);
    made->shrink_to_fit();
    kept_.push_back(made);
    return made->data();
  }
  const std::int32_t* token_ids(std::size_t count);
  // A tensor in the arena with room for `floats`, if all is well.
  const kvant_tensor* tensor(std::uint64_t floats);
  float* floats(std::uint64_t count, std::uint64_t* bytes);

  // ---- calls ----
  // True: it succeeded. An error is freed after it has been found complete; `source` is the function's name.
  bool took(kvant_error* error, std::string_view source);
  std::uint32_t last_code = 0;
  // The figures of a cache, to see that a refused call changed nothing.
  kvant_cache_stats stats(const LiveCache& of);
  void unchanged(const LiveCache& of, const kvant_cache_stats& before, std::string_view source);
  void forget(LiveCache& of);  // its handles are dead from now on

 private:
  std::vector<std::shared_ptr<void>> kept_;
};

// One call each, of the group's functions.
void call_cache(AbiSession& s);    // cache_create and cache_destroy, sequences, conversion, the prefix cache
void call_step(AbiSession& s);     // steps and the engine's own page tables
void call_state(AbiSession& s);    // saving and loading, statistics, events
void call_store(AbiSession& s);    // the store, tiers
void call_tokens(AbiSession& s);   // tokens outside of steps, memory, pruning, rotation
void call_context(AbiSession& s);  // errors, formats, devices, stand-alone conversion, configuration

}  // namespace kvant::fuzz
