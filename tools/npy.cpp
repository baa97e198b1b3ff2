// The header is a Python dictionary in text; only the three keys that numpy writes are read.
#include "npy.hpp"

#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/half.hpp"

namespace kvant::tools {

namespace {

constexpr size_t kMagicBytes = 10;  // "\x93NUMPY", version (2 bytes), header length (2 bytes)

Outcome<std::vector<uint64_t>> parse_shape(const std::string& path, const std::string& header) {
  std::vector<uint64_t> shape;
  size_t at = header.find("'shape': (");
  if (at == std::string::npos) {
    return bad_model(path + ": the header has no shape");
  }
  at += std::strlen("'shape': (");
  while (at < header.size() && header[at] != ')') {
    if (header[at] == ',' || header[at] == ' ') {
      ++at;
      continue;
    }
    uint64_t dim = 0;
    const auto [end, error] = std::from_chars(header.data() + at, header.data() + header.size(), dim);
    if (error != std::errc() || dim == 0 || dim > (uint64_t{1} << 32)) {
      return bad_model(path + ": the header's shape is not a list of positive integers");
    }
    shape.push_back(dim);
    at = static_cast<size_t>(end - header.data());
  }
  return shape;
}

}  // namespace

Outcome<NpyArray> read_npy(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    return bad_model(path + ": cannot be opened");
  }
  const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (bytes.size() < kMagicBytes || std::memcmp(bytes.data(), "\x93NUMPY\x01", 7) != 0) {
    return bad_model(path + ": is not a .npy file of format 1");
  }
  const size_t header_bytes =
      static_cast<unsigned char>(bytes[8]) | (size_t{static_cast<unsigned char>(bytes[9])} << 8);
  const size_t begin = kMagicBytes + header_bytes;
  if (begin > bytes.size()) {
    return bad_model(path + ": the header's length (" + std::to_string(header_bytes) +
                     ") is beyond the end of the file");
  }
  const std::string header(bytes.data() + kMagicBytes, header_bytes);
  const bool half = header.find("'<f2'") != std::string::npos;
  if ((!half && header.find("'<f4'") == std::string::npos) ||
      header.find("'fortran_order': False") == std::string::npos) {
    return bad_model(path + ": is not little-endian float16 or float32 in C order");
  }
  auto shape = parse_shape(path, header);
  if (!shape.ok()) {
    return shape.failure();
  }
  const size_t element = half ? 2 : 4;
  uint64_t count = 1;
  for (const uint64_t dim : *shape) {
    if (count > bytes.size() / dim) {
      return bad_model(path + ": the shape has more elements than the file has bytes");
    }
    count *= dim;
  }
  if (bytes.size() - begin != count * element) {
    return bad_model(path + ": holds " + std::to_string(bytes.size() - begin) + " bytes of data, and its shape needs " +
                     std::to_string(count * element));
  }
  NpyArray array{std::move(*shape), std::vector<float>(static_cast<size_t>(count))};
  for (size_t i = 0; i < array.values.size(); ++i) {
    if (half) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + begin + 2 * i, 2);
      array.values[i] = engine::half_to_float(bits);
    } else {
      std::memcpy(&array.values[i], bytes.data() + begin + 4 * i, 4);
    }
  }
  return array;
}

}  // namespace kvant::tools
