// Error objects and the functions of the table that read and free them.
#include "error.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "api.hpp"

// One block of malloc: the message follows the object. No C++ string, so that nothing here can throw.
struct kvant_error {
  std::uint32_t code;
  const char* source;
  const char* message;
};

namespace kvant::abi {
namespace {

constinit kvant_error out_of_memory{KVANT_ERROR_RESOURCE_EXHAUSTED, "", "host memory is exhausted"};

}  // namespace

kvant_error* out_of_memory_error() noexcept { return &out_of_memory; }

kvant_error* make_error(StatusCode code, std::string_view message, const char* source) noexcept {
  void* block = std::malloc(sizeof(kvant_error) + message.size() + 1);
  if (block == nullptr) return &out_of_memory;
  char* text = static_cast<char*>(block) + sizeof(kvant_error);
  std::memcpy(text, message.data(), message.size());
  text[message.size()] = '\0';
  return new (block) kvant_error{static_cast<std::uint32_t>(code), source, text};
}

std::uint32_t error_code(const kvant_error* error) { return error == nullptr ? 0 : error->code; }
const char* error_message(const kvant_error* error) { return error == nullptr ? "" : error->message; }
const char* error_source(const kvant_error* error) { return error == nullptr ? "" : error->source; }

void error_free(kvant_error* error) {
  if (error != &out_of_memory) std::free(error);
}

}  // namespace kvant::abi
