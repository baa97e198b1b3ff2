// The one list of conformance cases. A case's name is its stable key: it tells the operation and every axis, and with the seed
// it makes all inputs. docs/conformance.md explains the axes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache.hpp"
#include "executor.hpp"
#include "formats.hpp"
#include "random.hpp"

namespace kvant::conformance {

enum class Op : std::uint32_t {
  append,    // quantize and scatter: every byte of the planes
  read,      // gather and dequantize
  copy,      // whole pages
  convert,   // format to format in the pool
  quantize,  // stand-alone rows to canonical bytes and back
  attend,    // append and attend through the cache, one module and config
  merge,     // partial results by log-sum-exp
  sequence,  // fork, truncate, convert, read through the cache
  relation,  // metamorphic: two ways that must agree
  gather,    // tokens of a slab together into pages
  rotate,    // pairs of elements by angles
  score,     // attention masses, through the cache
  transfer,  // an engine's tensor to another, any format to any
  import,    // canonical rows into pages
  extract,   // and back
  rope,      // pairs of elements by positions, in an engine's tensors
  hadamard,  // rows by the Hadamard matrix
  means,     // of the rows of a step
  count
};
std::string_view op_name(Op op);

enum class Tables : std::uint32_t { identity, shuffled, sequence };    // the engine's page tables, or the cache's own
enum class Placement : std::uint32_t { host, buffer, strided };        // tensors: host memory, device buffers, with gaps
// cross: not causal, explicit positions, nothing fresh; custom: random bits; tree: a draft's nodes see their ancestors.
enum class MaskRule : std::uint32_t { causal, cross, custom, tree };
std::string_view rule_name(MaskRule rule);
enum class Relation : std::uint32_t { shuffle, twice, splits, batch_order, slabs, pipelines, count };
std::string_view relation_name(Relation relation);

// Subsets of the list, each within the next: compiling the pipelines takes nearly all of the time on software devices.
enum class Subset : std::uint32_t { smoke, quick, full };

// Bits of a rope case's variant.
inline constexpr std::uint32_t kRopeHalves = 1, kRopeStreams = 2, kRopeFactors = 4, kRopeInPlace = 8, kRopePart = 16;

struct Case {
  std::string name;
  Op op = Op::append;
  Subset subset = Subset::full;           // the smallest subset that holds it
  FormatId format_k = FormatId::f16, format_v = FormatId::f16;
  std::uint32_t dim_k = 64, dim_v = 64, kv_heads = 1, group = 1;
  std::uint32_t batch = 1, queries = 1, length = 1;
  std::uint32_t page_tokens = 16;
  Tables tables = Tables::identity;
  Placement placement = Placement::host;
  MaskRule rule = MaskRule::causal;
  std::uint32_t window = 0, window_sinks = 0;
  bool sinks = false, alibi = false, soft_cap = false, lse = false, holes = false;
  bool rotate_k = false, rotate_v = false;  // rows lie rotated in pages
  bool centre_k = false, centre_v = false;  // and less means that are given
  IoType in = IoType::f32, out = IoType::f32;
  DataClass data = DataClass::normal;
  AttendConfig config;                    // attend, relation, score: forced; the kernel it names is the module under test
  std::uint32_t splits = 1;               // merge: partials of a row
  Relation relation = Relation::shuffle;
  std::uint32_t variant = 0;              // sequence: which script; rotate: pairs; transfer: which side has indices; rope: kRope*

  bool operator==(const Case&) const = default;
};

// All cases, in order of operation. Built once; the same on every machine.
const std::vector<Case>& all_cases();

// Shape of a case's attention as tuning sees it.
AttendShape attend_shape(const Case& c);
// Key lengths and query counts of the case's sequences.
struct SequenceShape {
  std::uint32_t kv_len = 0, q_len = 0;
};
std::vector<SequenceShape> sequence_shapes(const Case& c);

// Identity of the list for reports: 16 hex digits over all names in order.
std::string case_list_hash();

// Parts of the list, one function per file.
void add_page_cases(std::vector<Case>& out);
void add_attend_cases(std::vector<Case>& out);
void add_sweep_cases(std::vector<Case>& out);
void add_cache_cases(std::vector<Case>& out);
void add_score_cases(std::vector<Case>& out);
void add_strided_cases(std::vector<Case>& out);

std::string_view io_name(IoType type);
// Every quick-th case is quick, every smoke-th smoke; smoke is a multiple of quick.
Subset subset_of(std::uint32_t number, std::uint32_t quick, std::uint32_t smoke);

}  // namespace kvant::conformance
