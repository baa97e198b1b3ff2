// A value or a readable failure, as the tools hand them around, and the exit codes of the kvant command.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace kvant::tools {

enum class Exit : int {
  kOk = 0,
  kFailed = 1,     // an error of the library, or a file that cannot be written
  kUsage = 2,      // the command line
  kNoLibrary = 3,  // libkvant.so was not found, or does not speak this version
  kNoDevice = 4,   // no usable Vulkan device
  kBadModel = 5,   // a model or data file that cannot be read
};

struct Failure {
  std::string message;
  Exit exit = Exit::kFailed;
};

template <typename T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}              // NOLINT: meant to convert
  Outcome(Failure failure) : failure_(std::move(failure)) {}  // NOLINT: meant to convert

  bool ok() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  const Failure& failure() const { return failure_; }

 private:
  std::optional<T> value_;
  Failure failure_;
};

template <>
class [[nodiscard]] Outcome<void> {
 public:
  Outcome() = default;
  Outcome(Failure failure) : failure_(std::move(failure)) {}  // NOLINT: meant to convert

  bool ok() const { return !failure_.has_value(); }
  const Failure& failure() const { return *failure_; }

 private:
  std::optional<Failure> failure_;
};

inline Failure bad_model(std::string message) { return {std::move(message), Exit::kBadModel}; }

}  // namespace kvant::tools

// Hands the failure of `expression` to the caller.
#define KVANT_TRY(expression)                                       \
  do {                                                              \
    if (auto outcome_of_try = (expression); !outcome_of_try.ok()) { \
      return outcome_of_try.failure();                              \
    }                                                               \
  } while (false)
