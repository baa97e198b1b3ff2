// row_bytes, quantize, dequantize: stand-alone conversion of rows on the device.
#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

struct ConvertSizes {
  FormatId format{};
  std::uint64_t float_bytes = 0, canonical_bytes = 0;
};

Result<ConvertSizes> convert_sizes(std::uint32_t format, std::uint32_t head_dim, std::uint64_t rows) {
  ConvertSizes sizes;
  KVANT_ASSIGN(sizes.format, check_format(format, "format"));
  KVANT_TRY(check_head_dim(head_dim, "head_dim"));
  const std::uint64_t row = canonical_row_bytes(kvant::format_info(sizes.format), head_dim);
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
    KVANT_ASSIGN(const FormatId id, check_format(format, "format"));
    KVANT_TRY(check_head_dim(head_dim, "head_dim"));
    KVANT_TRY(check_pointer(out_bytes, "out_bytes", "a place for the size"));
    *out_bytes = canonical_row_bytes(kvant::format_info(id), head_dim);
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
    return quantize_rows(object->executor(), sizes.format, head_dim, {input, rows * head_dim},
                         {static_cast<std::byte*>(output), output_size});
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
    return dequantize_rows(object->executor(), sizes.format, head_dim, {static_cast<const std::byte*>(input), input_size},
                           {output, rows * head_dim});
  });
}

}  // namespace kvant::abi
