// row_bytes, quantize, dequantize: stand-alone conversion of rows, on the device; of interchange formats on the host.
#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

struct ConvertSizes {
  RowFormat format;
  std::uint64_t float_bytes = 0, canonical_bytes = 0;
};

// Bytes of a row of head_dim elements, for a head_dim that the format can have.
Result<std::uint64_t> check_row(const RowFormat& format, std::uint32_t head_dim) {
  if (format.interchange == nullptr) {
    KVANT_TRY(check_head_dim(head_dim, "head_dim"));
    return canonical_row_bytes(kvant::format_info(format.held), head_dim);
  }
  if (head_dim == 0 || head_dim % kInterchangeBlock != 0 || head_dim > kInterchangeMaxRow)
    return invalid("head_dim (", head_dim, ") is not a multiple of ", kInterchangeBlock, " up to ", kInterchangeMaxRow, ", as rows of ",
                   format.interchange->name, " are");
  return interchange_bytes(*format.interchange, head_dim);
}

Result<ConvertSizes> convert_sizes(std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows) {
  ConvertSizes sizes;
  KVANT_ASSIGN(sizes.format, check_row_format(format, "format"));
  KVANT_ASSIGN(const std::uint64_t row, check_row(sizes.format, head_dim));
  if (!multiply(rows, head_dim, sizeof(float), sizes.float_bytes) || !multiply(rows, row, 1, sizes.canonical_bytes))
    return invalid("rows (", rows, ") of head_dim (", head_dim, ") exceed 64-bit sizes");
  return sizes;
}

Status check_exact(std::uint64_t given, std::uint64_t expected, std::string_view name) {
  if (given != expected) return invalid(name, " (", given, ") is not the ", expected, " bytes that rows and head_dim need");
  return {};
}

Status check_block(const void* data, std::uint64_t bytes, std::size_t alignment, std::string_view name) {
  if (bytes == 0) return {};
  KVANT_TRY(check_pointer(data, name, text(bytes, " bytes")));
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  if (address % alignment != 0) return invalid(name, " (", hex(address), ") is not aligned to ", alignment, " bytes");
  return {};
}

Status check_apart(const void* a, std::uint64_t a_bytes, const void* b, std::uint64_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
  if (a_bytes != 0 && b_bytes != 0 && first < second + b_bytes && second < first + a_bytes)
    return invalid("input (", hex(first), ", ", a_bytes, " bytes) and output (", hex(second), ", ", b_bytes, " bytes) overlap");
  return {};
}

}  // namespace

kvant_error* row_bytes(kvant_context* context, std::uint32_t format, std::uint32_t head_dim, std::uint64_t* out_bytes) {
  return guard("row_bytes", [&]() -> Status {
    KVANT_TRY(find<ContextObject>(context, "context").status());
    KVANT_ASSIGN(const RowFormat row, check_row_format(format, "format"));
    KVANT_ASSIGN(const std::uint64_t bytes, check_row(row, head_dim));
    KVANT_TRY(check_pointer(out_bytes, "out_bytes", "a place for the size"));
    *out_bytes = bytes;
    return {};
  });
}

kvant_error* quantize(kvant_device* device, std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows, const float* input,
                      std::uint64_t input_size, void* output, std::uint64_t output_size) {
  return guard("quantize", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_ASSIGN(const ConvertSizes sizes, convert_sizes(format, head_dim, rows));
    KVANT_TRY(check_exact(input_size, sizes.float_bytes, "input_size"));
    KVANT_TRY(check_exact(output_size, sizes.canonical_bytes, "output_size"));
    KVANT_TRY(check_block(input, input_size, alignof(float), "input"));
    KVANT_TRY(check_block(output, output_size, 1, "output"));
    KVANT_TRY(check_apart(input, input_size, output, output_size));
    if (rows == 0) return {};
    const std::span<const float> from{input, rows * head_dim};
    const std::span<std::byte> to{static_cast<std::byte*>(output), output_size};
    if (sizes.format.interchange == nullptr) return quantize_rows(object->executor(), sizes.format.held, head_dim, from, to);
    encode_interchange(*sizes.format.interchange, from, to);
    return {};
  });
}

kvant_error* dequantize(kvant_device* device, std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows,
                        const void* input, std::uint64_t input_size, float* output, std::uint64_t output_size) {
  return guard("dequantize", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<DeviceObject>(device, "device"));
    KVANT_ASSIGN(const ConvertSizes sizes, convert_sizes(format, head_dim, rows));
    KVANT_TRY(check_exact(input_size, sizes.canonical_bytes, "input_size"));
    KVANT_TRY(check_exact(output_size, sizes.float_bytes, "output_size"));
    KVANT_TRY(check_block(input, input_size, 1, "input"));
    KVANT_TRY(check_block(output, output_size, alignof(float), "output"));
    KVANT_TRY(check_apart(input, input_size, output, output_size));
    if (rows == 0) return {};
    const std::span<const std::byte> from{static_cast<const std::byte*>(input), input_size};
    const std::span<float> to{output, rows * head_dim};
    if (sizes.format.interchange == nullptr) return dequantize_rows(object->executor(), sizes.format.held, head_dim, from, to);
    decode_interchange(*sizes.format.interchange, from, to);
    return {};
  });
}

}  // namespace kvant::abi
