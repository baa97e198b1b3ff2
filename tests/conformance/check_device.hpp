// The device of the environment, opened once for all tests of a process.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "session.hpp"

namespace kvant::conformance {

// Null if there is none; KVANT_REQUIRE_DEVICE=1 turns that into a failure of the caller.
inline Session* test_session(std::string* why) {
  static std::string error;
  static const std::unique_ptr<Session> kSession = [] {
    SessionOptions options;
    const char* validation = std::getenv("KVANT_VALIDATION");
    options.validation = validation != nullptr && std::string(validation) == "1";
    auto opened = Session::open(options);
    if (opened.ok()) return std::move(opened).value();
    error = opened.status().message();
    return std::unique_ptr<Session>();
  }();
  *why = error;
  return kSession.get();
}

inline bool device_required() {
  const char* required = std::getenv("KVANT_REQUIRE_DEVICE");
  return required != nullptr && std::string(required) == "1";
}

}  // namespace kvant::conformance
