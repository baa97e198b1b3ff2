// What the scenarios share: small caches, steps with fixed tensors, and names that end with their scope.
#pragma once

#include "sweep.hpp"

namespace faults {

constexpr std::uint32_t kHeads = 2, kDim = 32, kQueryHeads = 4, kPage = 16;
constexpr std::size_t kRow = kHeads * kDim, kQueryRow = kQueryHeads * kDim;

// One host for the scenarios that need no device of their own; closed at the end of the run.
Host& shared_host();

struct Shape {
  std::uint32_t layers = 2;
  std::uint64_t capacity = 128;
  std::uint32_t flags = 0;
  std::uint64_t slab_bytes = 4096;
  bool two_groups = false;  // the last layer has other heads
};

// A cache of a scenario. Destroyed with its scope, if the scenario has not done so.
class Scene {
 public:
  Scene(Pass& pass, Host& host, const Shape& shape = {});
  ~Scene();
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  kvant_cache* cache() const { return watched_.cache; }
  Host& host() const { return host_; }
  const kvant_ext_manager& manager() const { return *host_.manager(); }
  Watched& watched() { return watched_; }
  void hold(kvant_sequence sequence) { watched_.sequences.push_back(sequence); }
  void drop(kvant_sequence sequence);
  void adopt(kvant_cache* cache);  // instead of the one that was made
  void destroy();

  kvant_sequence create();
  kvant_sequence open(const std::vector<std::int32_t>& tokens, std::uint64_t* reused = nullptr, std::uint64_t leave = 0);
  // A step of one sequence; the answer of the last layer is a result of the pass.
  void step(kvant_sequence sequence, std::uint32_t append, std::uint32_t queries, const std::int32_t* tokens = nullptr,
            std::uint32_t run_flags = 0, bool commit = true);
  void results(kvant_sequence sequence);  // its contents

 private:
  Pass& pass_;
  Host& host_;
  Watched watched_;
  std::uint32_t seed_ = 1;
};

std::vector<kvant_layer_args> layers_of(const Host& host, const Shape& shape);
kvant_cache_args cache_args(const std::vector<kvant_layer_args>& layers, const Shape& shape);
std::vector<std::int32_t> token_ids(std::uint32_t count, std::int32_t first = 1);

}  // namespace faults
