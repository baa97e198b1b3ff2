// The reference kernels: one plain function per kernel of kernels.def, in double, written from shaders/params/*.h and the
// format documents. They share no code with the shaders.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "cpu_memory.hpp"
#include "executor.hpp"

namespace kvant::reference {

// Deliberate faults. Negative controls run the reference with one of them and require the comparison to fail.
enum class Mutation : std::uint32_t {
  none,
  drop_token,   // attention: every row ignores its heaviest key
  drop_half,    // attention: every row ignores the older half of its item's keys, rounded up
  swap_heads,   // attention: a query head reads the K and V of the next KV head (of the only one: negated queries)
  page_entry,   // attention: the second half of the pages is looked up one entry early (of a single page: keys in reverse)
  scale,        // attention: the decoded V row of each sequence's first visible key is half as large again
  scales,       // attention: every decoded V row is half as large again
  count
};

// What KVANT_SPEC_PAGE_TOKENS may be. Caches have pages of 16 or 32; ggml's cache tensors of 32, 64 or 128.
inline bool is_page_size(std::uint32_t tokens) { return tokens == 16 || tokens == 32 || tokens == 64 || tokens == 128; }

// What a kernel gets: constants, push block and checked bindings.
struct KernelCall {
  SpecValues spec{};
  const std::byte* push = nullptr;
  std::array<View, kMaxBindings> bindings;
  std::array<std::uint32_t, 3> groups{1, 1, 1};
  FaultLog* log = nullptr;
  Mutation mutation = Mutation::none;

  template <typename Params>
  Params params() const {
    Params p;
    std::memcpy(&p, push, sizeof(p));
    return p;
  }
};

void run_append(KernelCall& call);
void run_read(KernelCall& call);
void run_means(KernelCall& call);
void run_copy(KernelCall& call);
void run_convert(KernelCall& call);
void run_gather(KernelCall& call);
void run_rotate(KernelCall& call);
void run_transfer(KernelCall& call);
void run_import(KernelCall& call);
void run_extract(KernelCall& call);
void run_rope(KernelCall& call);
void run_hadamard(KernelCall& call);
void run_attend(KernelCall& call);
void run_merge(KernelCall& call);
void run_score(KernelCall& call);

}  // namespace kvant::reference
