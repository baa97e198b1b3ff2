// format_count, format_info, format_find: formats are an open set, enumerated by id and name.
#include "api.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "objects.hpp"
#include "quoted_text.hpp"

namespace kvant::abi {
namespace {

// Bits per element in the pool at this head dimension, scales and alignment of the planes included.
double pool_bits(const FormatInfo& format) {
  constexpr std::uint32_t kHeadDim = 128, kPageTokens = 16;
  const PageLayout layout = page_layout(format, kHeadDim, kPageTokens);
  return 8.0 * layout.head_bytes / (double{kHeadDim} * kPageTokens);
}

kvant_format_info describe(const FormatInfo& facts) {
  kvant_format_info values{};
  values.name = facts.name.data();  // a literal of formats.def, NUL-terminated
  values.block_elements = facts.canonical_block;
  values.block_bytes = facts.canonical_bytes;
  values.bits_per_element = pool_bits(facts);
  return values;
}

kvant_format_info describe(const InterchangeFormat& facts) {
  kvant_format_info values{};
  values.name = facts.name.data();
  values.block_elements = kInterchangeBlock;
  values.block_bytes = facts.block_bytes;
  values.bits_per_element = 8.0 * facts.block_bytes / kInterchangeBlock;  // no pool holds it
  return values;
}

}  // namespace

kvant_error* format_count(kvant_context* context, std::uint32_t* out_count) {
  return guard("format_count", [&]() -> Status {
    KVANT_TRY(find<ContextObject>(context, "context").status());
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of formats"));
    *out_count = static_cast<std::uint32_t>(formats().size());
    return {};
  });
}

kvant_error* format_info(kvant_context* context, std::uint32_t format, kvant_format_info* info) {
  return guard("format_info", [&]() -> Status {
    KVANT_TRY(find<ContextObject>(context, "context").status());
    KVANT_ASSIGN(const RowFormat row, check_row_format(format, "format"));
    KVANT_TRY(check_output(info, "info"));
    write_struct(info, row.interchange != nullptr ? describe(*row.interchange) : describe(kvant::format_info(row.held)));
    return {};
  });
}

kvant_error* format_find(kvant_context* context, const char* name, std::uint32_t* out_format) {
  return guard("format_find", [&]() -> Status {
    KVANT_TRY(find<ContextObject>(context, "context").status());
    KVANT_TRY(check_pointer(name, "name", "the name of a format"));
    KVANT_TRY(check_pointer(out_format, "out_format", "a place for the format's id"));
    if (const InterchangeFormat* interchange = interchange_by_name(name)) {
      *out_format = interchange->id;
      return {};
    }
    const auto id = format_by_name(name);
    if (!id) {
      std::string known;
      for (const FormatInfo& format : formats()) known += (known.empty() ? "" : ", ") + std::string(format.name);
      return not_found("format name (\"", quoted_text(name), "\") is not one of: ", known, ", ", interchange_names());
    }
    *out_format = static_cast<std::uint32_t>(*id);
    return {};
  });
}

}  // namespace kvant::abi
