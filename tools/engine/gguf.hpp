// GGUF version 3 files: metadata and tensors, with every size and offset checked before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "../outcome.hpp"

namespace kvant::engine {

using tools::Failure;
using tools::Outcome;

enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<uint64_t> dims;  // fastest first, as in the file
  uint64_t elements = 0;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

// Integers are held as 64 bits, floats and arrays of numbers as doubles.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<std::string>, std::vector<double>>;

class GgufFile {
 public:
  static Outcome<GgufFile> load(const std::string& path);
  static Outcome<GgufFile> parse(std::vector<std::byte> bytes, const std::string& name);

  const std::string& name() const { return name_; }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }

  // Values by key; a missing key or another type is an error that names the key.
  Outcome<uint64_t> get_integer(const std::string& key) const;
  Outcome<double> get_float(const std::string& key) const;
  Outcome<std::string> get_string(const std::string& key) const;
  Outcome<std::vector<std::string>> get_strings(const std::string& key) const;
  Outcome<std::vector<double>> get_numbers(const std::string& key) const;
  uint64_t get_integer_or(const std::string& key, uint64_t fallback) const;
  double get_float_or(const std::string& key, double fallback) const;

  // The tensor as floats; its dimensions (fastest first) must be `dims`.
  Outcome<std::vector<float>> get_tensor(const std::string& tensor_name, std::span<const uint64_t> dims) const;

 private:
  std::string name_;
  std::vector<std::byte> bytes_;
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufTensor> tensors_;
};

// Elements of a tensor's type as floats; `bytes` holds exactly `count` of them.
void tensor_to_f32(GgufType type, const std::byte* bytes, uint64_t count, float* out);

}  // namespace kvant::engine
