// What the fuzz targets share: a reader that turns an input into values, sizes that tend to be wrong by orders of
// magnitude, and the check that ends the process when a promise is broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

// Every target defines this; libFuzzer calls it, or run_corpus.cpp.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Stays in every build, unlike assert.
#define KVANT_FUZZ_CHECK(condition, ...)                                                                \
  do {                                                                                                  \
    if (!(condition)) ::kvant::fuzz::broken(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)

namespace kvant::fuzz {

[[noreturn]] inline void broken(const char* file, int line, const char* condition, const std::string& detail = {}) {
  std::fprintf(stderr, "%s:%d: broken promise: %s%s%s\n", file, line, condition, detail.empty() ? "" : ": ",
               detail.c_str());
  std::abort();
}

// An input from front to back. Beyond its end everything reads as zero, which every target takes for the plain case.
class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size) : data_(data, size) {}

  bool empty() const { return data_.empty(); }
  std::size_t left() const { return data_.size(); }

  std::uint8_t u8() {
    if (data_.empty()) return 0;
    const std::uint8_t value = data_.front();
    data_ = data_.subspan(1);
    return value;
  }
  // Operands and arguments are read one by one: compilers order them as they like.
  std::uint16_t u16() {
    const std::uint16_t low = u8();
    return static_cast<std::uint16_t>(low | u8() << 8);
  }
  std::uint32_t u32() {
    const std::uint32_t low = u16();
    return low | std::uint32_t{u16()} << 16;
  }
  std::uint64_t u64() {
    const std::uint64_t low = u32();
    return low | std::uint64_t{u32()} << 32;
  }
  std::uint32_t below(std::uint32_t bound) { return bound == 0 ? 0 : u8() % bound; }
  bool one_in(std::uint32_t n) { return u8() % n == n - 1; }  // never at the end of the input

  std::span<const std::uint8_t> bytes(std::size_t size) {
    const auto taken = data_.first(size < data_.size() ? size : data_.size());
    data_ = data_.subspan(taken.size());
    return taken;
  }
  std::span<const std::uint8_t> rest() { return bytes(data_.size()); }
  std::string text(std::size_t size) {
    const auto taken = bytes(size);
    return {taken.begin(), taken.end()};
  }

  // Mostly a small number; else one that a product or a sum carries beyond 32 or 64 bits.
  std::uint64_t magnitude() {
    const std::uint8_t choice = u8();
    if (choice < 216) return choice;
    const std::uint64_t near = static_cast<std::uint64_t>(std::int64_t{u8()} - 128);
    static constexpr std::uint64_t kEdges[] = {std::uint64_t{1} << 8,  std::uint64_t{1} << 16, std::uint64_t{1} << 24,
                                               std::uint64_t{1} << 27, std::uint64_t{1} << 28, std::uint64_t{1} << 29,
                                               std::uint64_t{1} << 30, std::uint64_t{1} << 31, std::uint64_t{1} << 32,
                                               std::uint64_t{1} << 33, std::uint64_t{1} << 40, std::uint64_t{1} << 48,
                                               std::uint64_t{1} << 53, std::uint64_t{1} << 60, std::uint64_t{1} << 61,
                                               std::uint64_t{1} << 62, std::uint64_t{1} << 63, 0};
    if (const std::size_t edge = choice - 216u; edge < std::size(kEdges)) return kEdges[edge] + near;
    return choice == 255 ? ~std::uint64_t{0} : u64();
  }
  std::uint32_t magnitude32() { return static_cast<std::uint32_t>(magnitude()); }

 private:
  std::span<const std::uint8_t> data_;
};

inline std::span<const std::byte> as_bytes(std::span<const std::uint8_t> data) { return std::as_bytes(data); }

}  // namespace kvant::fuzz
