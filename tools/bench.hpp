// What kvant bench measures: cases that repeat one piece of work, run in interleaved rounds, medians taken.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"
#include "format_pair.hpp"
#include "library.hpp"

namespace kvant::tools {

struct BenchShape {
  uint32_t head_dim = 128;
  uint32_t kv_heads = 8;
  uint32_t group = 4;  // query heads that share a KV head
  uint32_t tokens = 4096;
  uint32_t batch = 1;  // sequences
  bool mass = false;   // count what attention each token gets
  uint32_t queries = 1;  // of a sequence, in attend_case
  uint32_t page_tokens = 0;  // 0: the library's choice
  uint32_t shared = 0;   // of each sequence's tokens these first ones are one prefix, in attend_case
};

// One piece of work, ready to be repeated.
struct BenchCase {
  std::string format;
  std::string shape;
  double device_bytes = 0;  // read and written on the device by one repetition, at least
  double flops = 0;
  double held_bits = 0;  // bits per element of K and V as held; 0 where nothing is held
  std::function<Outcome<void>()> repeat;
};

// Seconds of one repetition, a value a round.
struct BenchSamples {
  std::vector<double> wall;
  std::vector<double> device;  // by timestamps; 0 where the device has none
  uint32_t repetitions = 1;    // a round
};
// First use compiles pipelines; the second run tells how often a sample must repeat.
Outcome<void> warm_up(const BenchCase& one, double least_seconds, BenchSamples& samples);
Outcome<void> sample(Device& device, const BenchCase& one, BenchSamples& samples);

struct BenchResult {
  std::string format;
  std::string shape;
  double wall_seconds = 0;    // median of the rounds
  double wall_spread = 0;     // (largest - smallest) / median
  double device_seconds = 0;  // by timestamps; 0 where the device has none
  double device_bytes = 0;
  double flops = 0;
  double held_bits = 0;

  double seconds() const { return device_seconds > 0 ? device_seconds : wall_seconds; }
};

// Medians of the rounds.
BenchResult result_of(const BenchCase& one, const BenchSamples& samples);

struct BenchReport {
  std::string what;
  DeviceFacts device;
  std::string commit;  // of the library
  uint32_t rounds = 0;
  double copy_bytes_per_second = 0;  // median of device_measure_copy, once a round
  std::vector<BenchResult> results;
};

struct BenchOptions {
  HostOptions host;
  std::string formats = "q4_0,nf4,q8_0,f16";
  std::string head_dims = "128";
  std::string tokens = "4096";
  std::string shared = "0";
  uint32_t kv_heads = 8;
  uint32_t group = 4;
  uint32_t batch = 1;
  uint32_t rounds = 7;
  double least_seconds = 0.05;  // a sample repeats the work for at least so long
  ReportOutput output;
};

// The makers of cases; everything they need lives as long as the case.
Outcome<BenchCase> quantize_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                 const BenchShape& shape);
Outcome<BenchCase> dequantize_case(const std::shared_ptr<Device>& device, const FormatPair& pair,
                                   const BenchShape& shape);
// Attention of the last `queries` tokens of each sequence over the cache.
Outcome<BenchCase> attend_case(const std::shared_ptr<Device>& device, const FormatPair& pair, const BenchShape& shape);
Outcome<BenchCase> decode_case(const std::shared_ptr<Device>& device, const FormatPair& pair, const BenchShape& shape);
Outcome<BenchCase> prefill_case(const std::shared_ptr<Device>& device, const FormatPair& pair, const BenchShape& shape);

std::string bench_text(const BenchReport& report);
std::string bench_json(const BenchReport& report);
std::string bench_html(const BenchReport& report);

// Middle value; of an even count the upper one.
double median(std::vector<double> values);

void add_bench_generate_command(CLI::App& bench);
void add_bench_reuse_command(CLI::App& bench);
void add_bench_mass_command(CLI::App& bench);
void add_bench_step_command(CLI::App& bench);
void add_bench_scaling_command(CLI::App& bench);
void add_bench_start_command(CLI::App& bench);

}  // namespace kvant::tools
