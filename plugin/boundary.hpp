// The wall between the C ABI and the core: guard() turns every Status and every exception into an error object, and the
// helpers here check what all functions share (pointers, next chains, reserved fields).
#pragma once

#include <exception>
#include <new>
#include <span>

#include <kvant/kvant.h>

#include "error.hpp"
#include "structs.hpp"
#include "text.hpp"

namespace kvant::abi {

// Runs `body` (returns Status) for the table's function `source`. Nothing is thrown past it.
template <typename F>
kvant_error* guard(const char* source, F&& body) noexcept {
  try {
    const Status status = body();
    if (status.ok()) return nullptr;
    return make_error(status.code(), status.message(), source);
  } catch (const std::bad_alloc&) {
    return make_error(StatusCode::resource_exhausted, "host memory is exhausted", source);
  } catch (const std::exception& exception) {
    return make_error(StatusCode::internal, exception.what(), source);
  } catch (...) {
    return make_error(StatusCode::internal, "an exception of unknown type was thrown", source);
  }
}

// For functions without an error result.
template <typename F>
void guard_void(F&& body) noexcept {
  try {
    body();
  } catch (...) {
    // Nothing can be reported: the function returns void and logging may be what threw.
  }
}

// A pointer to an output or an array that must be there.
Status check_pointer(const void* pointer, std::string_view name, std::string_view expected);

// An extension struct that a function understands; `node` is set when the chain holds it.
struct KnownNext {
  std::uint32_t type;
  const kvant_next* node = nullptr;
};

// Walks a chain: fills `known`; an unknown type without KVANT_NEXT_OPTIONAL, a repeated type, a node smaller than its header or an
// endless chain is an error.
Status walk_next(const kvant_next* next, std::string_view name, std::span<KnownNext> known = {});

// An input struct whose chain may hold nothing that this library knows.
template <typename T>
Status read_args(const T* in, std::string_view name, T& out) {
  T values{};
  KVANT_TRY(read_struct(in, name, values));
  KVANT_TRY(walk_next(values.next, name));
  out = values;
  return {};
}

// An output struct: there, sized, and without unknown extensions.
template <typename T>
Status check_output(const T* out, std::string_view name) {
  T values{};
  return read_args(out, name, values);
}

// The given element of an array of structs with a byte stride; stride 0 means the first element's own size.
template <typename T>
Result<std::size_t> element_stride(const T* first, std::uint32_t stride, std::string_view array, std::string_view stride_name) {
  std::size_t size = 0;
  KVANT_TRY(check_size(first, ElementName(array, 0), size));
  if (stride == 0) return size;
  if (stride < size || stride % alignof(T) != 0)
    return invalid(stride_name, " (", stride, ") is not a multiple of ", alignof(T), " that is at least ", array,
                   "[0].struct_size (", size, ")");
  return std::size_t{stride};
}

template <typename T>
const T* element_at(const T* first, std::size_t stride, std::size_t index) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) + stride * index);
}

}  // namespace kvant::abi
