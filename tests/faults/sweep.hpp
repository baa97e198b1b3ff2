// A sweep: a scenario runs again and again, and in every call of the library that it makes the first, second, ... n-th event of a
// kind fails. A call that says so must have changed nothing and is made again; what the scenario gives is what it gives undisturbed.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <kvant/kvant_ext_manager.h>

#include "../abi/library.hpp"
#include "injector.hpp"

namespace faults {

using abi_test::api;
using abi_test::make;

// A context and a device that log without being seen by the injector.
class Host {
 public:
  struct Empty {};  // neither yet
  explicit Host(const char* pipeline_folder = nullptr);
  explicit Host(Empty) {}
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  kvant_context* context = nullptr;
  kvant_device* device = nullptr;
  const kvant_ext_manager* manager() const;
  bool has_device() const;
  std::uint32_t format(const char* name) const;
};

kvant_context_args context_args();

// What is watched of a cache: all sequences, their lengths and contents on all layers, and the statistics of pages.
struct Watched {
  kvant_cache* cache = nullptr;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> layers;  // KV heads, head dimension
  bool prefixes = false;
  std::vector<kvant_sequence> sequences;
};
// Of floats, to be compared: what was never written may be no number.
using Bits = std::vector<std::uint32_t>;
Bits bits_of(const std::vector<float>& values);
struct State {
  std::vector<std::uint64_t> numbers;
  std::vector<Bits> contents;
  bool operator==(const State&) const = default;
};
State state_of(const Watched& watched);

// What a call promises when it fails.
enum class Promise {
  unchanged,  // everything is as it was; made again, it succeeds
  midway,     // documented to stop midway: this run of the scenario ends here
};

class Sweep;

class Pass {
 public:
  explicit Pass(Sweep& sweep) : sweep_(sweep) {}

  void call(const std::string& name, const std::function<kvant_error*()>& function, Promise promise = Promise::unchanged);
  // Functions without an error.
  void call_void(const std::string& name, const std::function<void()>& function);
  // What the scenario gives: equal in every run.
  void result(const std::vector<float>& values) { results.push_back(bits_of(values)); }
  void result(Bits bits) { results.push_back(std::move(bits)); }

  // Nothing fails in this run.
  bool undisturbed() const;

  std::vector<Watched*> watched;
  std::vector<Bits> results;

 private:
  Sweep& sweep_;
  std::size_t index_ = 0;
};

struct Options {
  bool results_may_vary = false;         // where a fault costs a hit
  std::uint64_t dense = 64, stride = 1;  // of a call the first `dense` events, then every stride-th; all: KVANT_FAULTS_FULL=1
  std::uint64_t most_passes = 4000;
  std::vector<Kind> unreached = {};      // kinds without an event in this scenario; of any other one there must be some
};
using Scenario = std::function<void(Pass&)>;

// Runs the sweep, checks, and prints a line of counts.
void sweep(const char* name, Kind kind, const Scenario& scenario, const Options& options = {});
const char* kind_name(Kind kind);
// For a call that is to be refused as an invalid argument: that is its success.
kvant_error* expect_refusal(kvant_error* error);

// Ends a run of the scenario from within a call.
struct EndOfPass {};

class Sweep {
 public:
  Sweep(const char* name, Kind kind, const Options& options) : name_(name), kind_(kind), options_(options) {}
  void run(const Scenario& scenario);

 private:
  friend class Pass;
  struct Call {
    std::string name;
    std::uint64_t next = 1;
    bool done = false;
  };
  Call& call_at(std::size_t index, const std::string& name);
  void advance(Call& call) const;

  const char* name_;
  Kind kind_;
  Options options_;
  bool injecting_ = false;
  bool tolerated_in_pass_ = false;
  std::vector<Call> calls_;
  std::uint64_t refused_ = 0, tolerated_ = 0, passes_ = 0;
};

}  // namespace faults
