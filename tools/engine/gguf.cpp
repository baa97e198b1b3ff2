// GGUF parsing: header, metadata, tensor list, then the bounds of each tensor's data.
#include "gguf.hpp"

#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "gguf_cursor.hpp"
#include "half.hpp"

namespace kvant::engine {

using tools::bad_model;

namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kMaxDims = 4;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

uint64_t least_bytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
    case kString:
      return 8;
    default:
      return 0;
  }
}

GgufValue read_scalar(GgufCursor& cursor, uint32_t type, const std::string& field) {
  switch (type) {
    case kUint8:
      return uint64_t{cursor.read<uint8_t>(field)};
    case kInt8:
      return int64_t{cursor.read<int8_t>(field)};
    case kUint16:
      return uint64_t{cursor.read<uint16_t>(field)};
    case kInt16:
      return int64_t{cursor.read<int16_t>(field)};
    case kUint32:
      return uint64_t{cursor.read<uint32_t>(field)};
    case kInt32:
      return int64_t{cursor.read<int32_t>(field)};
    case kFloat32:
      return double{cursor.read<float>(field)};
    case kBool: {
      const uint8_t value = cursor.read<uint8_t>(field);
      if (value > 1) {
        cursor.fail(field + " (" + std::to_string(value) + ") is a boolean, and neither 0 nor 1");
      }
      return value == 1;
    }
    case kString:
      return cursor.read_string(field);
    case kUint64:
      return cursor.read<uint64_t>(field);
    case kInt64:
      return cursor.read<int64_t>(field);
    case kFloat64:
      return cursor.read<double>(field);
    default:
      cursor.fail("the type of " + field + " (" + std::to_string(type) + ") is none of GGUF's 13 value types");
      return uint64_t{0};
  }
}

double as_double(const GgufValue& value) {
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1.0 : 0.0;
  if (const auto* d = std::get_if<double>(&value)) return *d;
  return 0.0;
}

GgufValue read_array(GgufCursor& cursor, const std::string& field) {
  const uint32_t type = cursor.read<uint32_t>("the element type of " + field);
  const uint64_t least = least_bytes(type);
  if (cursor.ok() && least == 0) {
    cursor.fail("the element type of " + field + " (" + std::to_string(type) +
                ") is not a scalar or string type, as arrays here must have");
  }
  if (!cursor.ok()) {
    return uint64_t{0};
  }
  const uint64_t count = cursor.read_count("the length of " + field, least);
  if (type == kString) {
    std::vector<std::string> strings;
    strings.reserve(static_cast<size_t>(count));
    for (uint64_t i = 0; i < count && cursor.ok(); ++i) {
      strings.push_back(cursor.read_string("element " + std::to_string(i) + " of " + field));
    }
    return strings;
  }
  std::vector<double> numbers;
  numbers.reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count && cursor.ok(); ++i) {
    numbers.push_back(as_double(read_scalar(cursor, type, field)));
  }
  return numbers;
}

struct TypeSize {
  uint64_t block;
  uint64_t bytes;
};

TypeSize type_size(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
      return {1, 4};
    case GgufType::kF16:
    case GgufType::kBF16:
      return {1, 2};
    case GgufType::kQ8_0:
      return {32, 34};
  }
  return {0, 0};
}

GgufTensor read_tensor(GgufCursor& cursor, uint64_t index) {
  GgufTensor tensor;
  tensor.name = cursor.read_string("the name of tensor " + std::to_string(index));
  const std::string field = "tensor '" + tensor.name + "'";
  const uint32_t dim_count = cursor.read<uint32_t>(field + ": number of dimensions");
  if (cursor.ok() && (dim_count == 0 || dim_count > kMaxDims)) {
    cursor.fail(field + ": number of dimensions (" + std::to_string(dim_count) + ") is not between 1 and 4");
  }
  tensor.elements = 1;
  for (uint32_t i = 0; i < dim_count && cursor.ok(); ++i) {
    const uint64_t dim = cursor.read<uint64_t>(field + ": dimension " + std::to_string(i));
    if (cursor.ok() && (dim == 0 || dim > (uint64_t{1} << 40) / tensor.elements)) {
      cursor.fail(field + ": dimension " + std::to_string(i) + " (" + std::to_string(dim) +
                  ") is zero, or makes the tensor larger than 2^40 elements");
      break;
    }
    tensor.elements *= dim;
    tensor.dims.push_back(dim);
  }
  const uint32_t type = cursor.read<uint32_t>(field + ": type");
  const TypeSize size = type_size(type);
  if (cursor.ok() && size.block == 0) {
    cursor.fail(field + ": type (" + std::to_string(type) + ") is none of F32 (0), F16 (1), Q8_0 (8), BF16 (30)");
  }
  if (cursor.ok() && tensor.dims[0] % size.block != 0) {
    cursor.fail(field + ": dimension 0 (" + std::to_string(tensor.dims[0]) +
                ") is not a multiple of its type's block (" + std::to_string(size.block) + ")");
  }
  tensor.offset = cursor.read<uint64_t>(field + ": offset");
  if (cursor.ok()) {
    tensor.type = static_cast<GgufType>(type);
    tensor.bytes = tensor.elements / size.block * size.bytes;
  }
  return tensor;
}

}  // namespace

Outcome<GgufFile> GgufFile::load(const std::string& path) {
  // A directory opens as a stream and has a size beyond any memory.
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
    return bad_model(path + ": is a directory, not a GGUF file");
  }
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream) {
    return bad_model(path + ": cannot be opened: " + std::strerror(errno));
  }
  const std::streamoff size = stream.tellg();
  if (size < 0) {
    return bad_model(path + ": is not a regular file");
  }
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  stream.seekg(0);
  if (!stream.read(reinterpret_cast<char*>(bytes.data()), size)) {
    return bad_model(path + ": " + std::to_string(size) + " bytes cannot be read");
  }
  return parse(std::move(bytes), path);
}

Outcome<GgufFile> GgufFile::parse(std::vector<std::byte> bytes, const std::string& name) {
  GgufFile file;
  file.name_ = name;
  file.bytes_ = std::move(bytes);
  GgufCursor cursor(file.bytes_);
  const auto problem = [&](const std::string& text) { return bad_model(name + ": " + text); };

  const uint32_t magic = cursor.read<uint32_t>("the magic number");
  if (cursor.ok() && magic != kMagic) {
    return problem("is not a GGUF file: it does not start with the bytes GGUF");
  }
  const uint32_t version = cursor.read<uint32_t>("the version");
  if (cursor.ok() && version != 3) {
    return problem("the version (" + std::to_string(version) + ") is not 3");
  }
  // A tensor takes at least name length, dimension count, one dimension, type and offset; a pair: length, type, one
  // byte.
  const uint64_t tensor_count = cursor.read_count("the tensor count", 8 + 4 + 8 + 4 + 8);
  const uint64_t pair_count = cursor.read_count("the metadata count", 8 + 4 + 1);
  for (uint64_t i = 0; i < pair_count && cursor.ok(); ++i) {
    const std::string key = cursor.read_string("the key of metadata entry " + std::to_string(i));
    const std::string field = "metadata '" + key + "'";
    const uint32_t type = cursor.read<uint32_t>("the type of " + field);
    GgufValue value = type == kArray ? read_array(cursor, field) : read_scalar(cursor, type, field);
    if (cursor.ok() && !file.metadata_.emplace(key, std::move(value)).second) {
      return problem(field + " appears twice");
    }
  }
  std::vector<GgufTensor> tensors;
  for (uint64_t i = 0; i < tensor_count && cursor.ok(); ++i) {
    tensors.push_back(read_tensor(cursor, i));
  }
  if (!cursor.ok()) {
    return problem(cursor.problem());
  }

  if (file.metadata_.contains("general.alignment")) {
    KVANT_TRY(file.get_integer("general.alignment"));
  }
  const uint64_t alignment = file.get_integer_or("general.alignment", 32);
  if (!std::has_single_bit(alignment) || alignment > 65536) {
    return problem("metadata 'general.alignment' (" + std::to_string(alignment) +
                   ") is not a power of two up to 65536");
  }
  const uint64_t data_begin = (cursor.position() + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : tensors) {
    const std::string field = "tensor '" + tensor.name + "'";
    if (tensor.offset % alignment != 0) {
      return problem(field + ": offset (" + std::to_string(tensor.offset) + ") is not a multiple of the alignment (" +
                     std::to_string(alignment) + ")");
    }
    const uint64_t size = file.bytes_.size();
    if (data_begin > size || tensor.offset > size - data_begin || tensor.bytes > size - data_begin - tensor.offset) {
      return problem(field + ": data of " + std::to_string(tensor.bytes) + " bytes at offset " +
                     std::to_string(tensor.offset) + " of the data section (which begins at " +
                     std::to_string(data_begin) + ") does not fit the file of " + std::to_string(size) + " bytes");
    }
    tensor.offset += data_begin;
    if (!file.tensors_.emplace(tensor.name, tensor).second) {
      return problem(field + " appears twice");
    }
  }
  return file;
}

namespace {

template <typename T>
Outcome<T> get_as(const GgufFile& file, const std::string& key, const char* what) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    return bad_model(file.name() + ": metadata '" + key + "' is missing");
  }
  if (const T* value = std::get_if<T>(&found->second)) {
    return *value;
  }
  return bad_model(file.name() + ": metadata '" + key + "' is not " + what);
}

}  // namespace

Outcome<uint64_t> GgufFile::get_integer(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) {
    if (const auto* value = std::get_if<int64_t>(&found->second); value != nullptr && *value >= 0) {
      return static_cast<uint64_t>(*value);
    }
  }
  return get_as<uint64_t>(*this, key, "a non-negative integer");
}

Outcome<double> GgufFile::get_float(const std::string& key) const { return get_as<double>(*this, key, "a float"); }
Outcome<std::string> GgufFile::get_string(const std::string& key) const {
  return get_as<std::string>(*this, key, "a string");
}
Outcome<std::vector<std::string>> GgufFile::get_strings(const std::string& key) const {
  return get_as<std::vector<std::string>>(*this, key, "an array of strings");
}
Outcome<std::vector<double>> GgufFile::get_numbers(const std::string& key) const {
  return get_as<std::vector<double>>(*this, key, "an array of numbers");
}

uint64_t GgufFile::get_integer_or(const std::string& key, uint64_t fallback) const {
  const auto value = get_integer(key);
  return value.ok() ? *value : fallback;
}

double GgufFile::get_float_or(const std::string& key, double fallback) const {
  const auto value = get_float(key);
  return value.ok() ? *value : fallback;
}

Outcome<std::vector<float>> GgufFile::get_tensor(const std::string& tensor_name, std::span<const uint64_t> dims) const {
  const auto found = tensors_.find(tensor_name);
  if (found == tensors_.end()) {
    return bad_model(name_ + ": tensor '" + tensor_name + "' is missing");
  }
  const GgufTensor& tensor = found->second;
  if (!std::equal(dims.begin(), dims.end(), tensor.dims.begin(), tensor.dims.end())) {
    const auto words = [](std::span<const uint64_t> list) {
      std::string text;
      for (const uint64_t dim : list) {
        text += (text.empty() ? "" : " x ") + std::to_string(dim);
      }
      return text;
    };
    return bad_model(name_ + ": tensor '" + tensor_name + "' has dimensions " + words(tensor.dims) + ", not " +
                     words(dims));
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements));
  tensor_to_f32(tensor.type, bytes_.data() + tensor.offset, tensor.elements, values.data());
  return values;
}

void tensor_to_f32(GgufType type, const std::byte* bytes, uint64_t count, float* out) {
  const auto word = [&](uint64_t offset) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + offset, 2);
    return bits;
  };
  switch (type) {
    case GgufType::kF32:
      std::memcpy(out, bytes, static_cast<size_t>(count) * 4);
      return;
    case GgufType::kF16:
      for (uint64_t i = 0; i < count; ++i) out[i] = half_to_float(word(2 * i));
      return;
    case GgufType::kBF16:
      for (uint64_t i = 0; i < count; ++i) out[i] = bfloat_to_float(word(2 * i));
      return;
    case GgufType::kQ8_0:
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t block = i / 32 * 34;
        out[i] = half_to_float(word(block)) * static_cast<float>(static_cast<int8_t>(bytes[block + 2 + i % 32]));
      }
      return;
  }
}

}  // namespace kvant::engine
