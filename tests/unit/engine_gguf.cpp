// The GGUF loader: a small file reads back; every truncation fails; no corrupt byte makes it misbehave; errors name the
// field.
#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "engine/gguf.hpp"

namespace {

using kvant::engine::GgufFile;

// Writes GGUF bytes as the format says, with no check of its own, so that broken files can be made too.
class Writer {
 public:
  template <typename T>
  Writer& put(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
    return *this;
  }
  Writer& text(const std::string& value) {
    put<uint64_t>(value.size());
    const auto* bytes = reinterpret_cast<const std::byte*>(value.data());
    bytes_.insert(bytes_.end(), bytes, bytes + value.size());
    return *this;
  }
  Writer& align(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  std::vector<std::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

struct Layout {
  uint32_t version = 3;
  uint64_t tensor_count = 2;
  uint32_t dims = 2;
  uint32_t type = 1;     // F16
  uint64_t offset = 32;  // of the second tensor
  uint32_t alignment = 32;
};

// Two tensors: "norm" [4] F32 and "matrix" [4, 2] of layout.type.
std::vector<std::byte> small_file(const Layout& layout = {}) {
  Writer w;
  w.put<uint32_t>(0x46554747).put(layout.version).put(layout.tensor_count).put<uint64_t>(5);
  w.text("general.alignment").put<uint32_t>(4).put(layout.alignment);
  w.text("general.architecture").put<uint32_t>(8).text("llama");
  w.text("epsilon").put<uint32_t>(6).put(0.5f);
  w.text("names").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(2).text("a").text("bc");
  w.text("kinds").put<uint32_t>(9).put<uint32_t>(5).put<uint64_t>(3).put<int32_t>(-1).put<int32_t>(0).put<int32_t>(7);
  w.text("norm").put<uint32_t>(1).put<uint64_t>(4).put<uint32_t>(0).put<uint64_t>(0);
  w.text("matrix").put(layout.dims);
  for (uint32_t i = 0; i < layout.dims; ++i) {
    w.put<uint64_t>(i == 0 ? 4 : 2);
  }
  w.put(layout.type).put(layout.offset);
  w.align(32);
  for (const float value : {1.0f, 2.0f, -3.0f, 0.25f}) {
    w.put(value);
  }
  w.align(32);
  for (const int half : {0x3C00, 0xC000, 0x3800, 0x0001, 0x8000, 0x7BFF, 0x4248, 0x0400}) {
    w.put(static_cast<uint16_t>(half));
  }
  return w.bytes();
}

std::string message_of(const Layout& layout) {
  const auto file = GgufFile::parse(small_file(layout), "small");
  return file.ok() ? "" : file.failure().message;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("gguf: a small file reads back") {
  const auto file = GgufFile::parse(small_file(), "small");
  REQUIRE_MESSAGE(file.ok(), file.failure().message);
  CHECK(*file->get_string("general.architecture") == "llama");
  CHECK(*file->get_float("epsilon") == 0.5);
  CHECK(*file->get_strings("names") == std::vector<std::string>{"a", "bc"});
  CHECK(*file->get_numbers("kinds") == std::vector<double>{-1, 0, 7});
  CHECK(file->get_integer_or("absent", 42) == 42);
  const uint64_t norm_dims[] = {4};
  const uint64_t matrix_dims[] = {4, 2};
  CHECK(*file->get_tensor("norm", norm_dims) == std::vector<float>{1.0f, 2.0f, -3.0f, 0.25f});
  CHECK(*file->get_tensor("matrix", matrix_dims) ==
        std::vector<float>{1.0f, -2.0f, 0.5f, 0x1p-24f, -0.0f, 65504.0f, 3.140625f, 0x1p-14f});
  CHECK(contains(file->get_tensor("matrix", norm_dims).failure().message, "has dimensions 4 x 2, not 4"));
  CHECK(contains(file->get_tensor("bias", norm_dims).failure().message, "tensor 'bias' is missing"));
  CHECK(contains(file->get_integer("epsilon").failure().message, "'epsilon' is not a non-negative integer"));
}

TEST_CASE("gguf: every truncation is an error") {
  const std::vector<std::byte> whole = small_file();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto file = GgufFile::parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}, "cut");
    CAPTURE(size);
    CHECK_FALSE(file.ok());
    CHECK(file.failure().message.size() > 10);
  }
}

TEST_CASE("gguf: a corrupt byte anywhere never misbehaves") {
  const std::vector<std::byte> whole = small_file();
  size_t refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned value : {0x00u, 0x01u, 0x7Fu, 0x80u, 0xFFu}) {
      std::vector<std::byte> bytes = whole;
      bytes[at] = static_cast<std::byte>(value);
      const auto file = GgufFile::parse(std::move(bytes), "corrupt");
      if (!file.ok()) {
        ++refused;
        continue;
      }
      // What was accepted must be readable within the file (address sanitizer watches).
      for (const auto& [name, tensor] : file->tensors()) {
        CHECK(file->get_tensor(name, tensor.dims).ok());
      }
    }
  }
  CHECK(refused > whole.size());  // most of the header's bytes matter
}

TEST_CASE("gguf: errors name the field and the value") {
  Layout layout;
  CHECK(message_of(layout).empty());
  layout.version = 2;
  CHECK(contains(message_of(layout), "the version (2) is not 3"));
  layout = {};
  layout.tensor_count = uint64_t{1} << 60;
  CHECK(contains(message_of(layout), "the tensor count (1152921504606846976) needs at least 32 bytes each"));
  layout = {};
  layout.dims = 5;
  CHECK(contains(message_of(layout), "tensor 'matrix': number of dimensions (5) is not between 1 and 4"));
  layout = {};
  layout.type = 99;
  CHECK(contains(message_of(layout), "tensor 'matrix': type (99) is none of F32"));
  layout = {};
  layout.type = 8;
  CHECK(contains(message_of(layout), "dimension 0 (4) is not a multiple of its type's block (32)"));
  layout = {};
  layout.offset = 33;
  CHECK(contains(message_of(layout), "tensor 'matrix': offset (33) is not a multiple of the alignment (32)"));
  layout = {};
  layout.offset = 64;
  CHECK(contains(message_of(layout), "tensor 'matrix': data of 16 bytes at offset 64"));
  layout = {};
  layout.offset = ~uint64_t{31};
  CHECK(contains(message_of(layout), "does not fit the file"));
  layout = {};
  layout.alignment = 24;
  CHECK(contains(message_of(layout), "'general.alignment' (24) is not a power of two"));
  CHECK(contains(GgufFile::parse(std::vector<std::byte>(64), "zeros").failure().message, "is not a GGUF file"));
  CHECK(contains(GgufFile::load("/nowhere/model.gguf").failure().message, "cannot be opened"));
  CHECK(contains(GgufFile::load(KVANT_SOURCE_DIR "/models").failure().message, "is a directory"));
}

TEST_CASE("gguf: the shipped model cut at many offsets") {
  const auto whole = GgufFile::load(KVANT_SOURCE_DIR "/models/tiny.gguf");
  REQUIRE_MESSAGE(whole.ok(), whole.failure().message);
  FILE* stream = std::fopen(KVANT_SOURCE_DIR "/models/tiny.gguf", "rb");
  REQUIRE(stream != nullptr);
  std::vector<std::byte> head(1 << 16);
  REQUIRE(std::fread(head.data(), 1, head.size(), stream) == head.size());
  std::fclose(stream);
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    const size_t size = random() % head.size();
    CAPTURE(size);
    CHECK_FALSE(GgufFile::parse({head.begin(), head.begin() + static_cast<std::ptrdiff_t>(size)}, "cut").ok());
  }
}
