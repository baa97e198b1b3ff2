// Status and Result: the only error types below the C ABI. Values, no exceptions; [[nodiscard]] everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace kvant {

// Codes map one to one onto KVANT_ERROR_* of the public header.
enum class StatusCode : std::uint32_t {
  ok = 0,
  invalid_argument = 1,     // a value that no state would make right
  not_found = 2,            // a handle or name that does not exist (any more)
  resource_exhausted = 3,   // memory, pages, descriptors
  failed_precondition = 4,  // right call, wrong moment
  unimplemented = 5,        // not supported on this device or in this build
  unavailable = 6,          // no device, no driver
  incompatible = 7,         // versions or layouts that cannot meet
  data_loss = 8,            // device lost; corrupted input
  internal = 9,             // a bug of ours
};

// Success carries nothing; failure carries a code and a sentence that names the value and what was expected.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

// A T or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                 // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {}         // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace kvant

// Returns the status from the enclosing function if `expr` failed.
#define KVANT_TRY(expr)                                      \
  do {                                                       \
    if (::kvant::Status kvant_status_ = (expr); !kvant_status_.ok()) return kvant_status_; \
  } while (false)

#define KVANT_CONCAT_(a, b) a##b
#define KVANT_CONCAT(a, b) KVANT_CONCAT_(a, b)
// `lhs` = value of the Result `expr`, or returns its status.
#define KVANT_ASSIGN(lhs, expr) KVANT_ASSIGN_(KVANT_CONCAT(kvant_result_, __LINE__), lhs, expr)
#define KVANT_ASSIGN_(tmp, lhs, expr)        \
  auto tmp = (expr);                         \
  if (!tmp.ok()) return tmp.status();        \
  lhs = std::move(tmp).value()
