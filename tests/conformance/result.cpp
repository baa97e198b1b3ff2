#include "result.hpp"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

namespace kvant::conformance {

namespace {

// JSON has no infinities.
double finite(double x) { return std::isfinite(x) ? x : 1e300; }

constexpr std::array<std::string_view, static_cast<std::size_t>(CaseStatus::count)> kNames{
    "pass",           "quality_warning", "not_supported", "waived",      "expected_fail",    "unexpected_pass", "fail",
    "resource_error", "crash",           "timeout",       "device_lost", "validation_error", "internal_error"};
}

std::string_view status_name(CaseStatus status) { return kNames[static_cast<std::size_t>(status)]; }

bool status_from_name(std::string_view name, CaseStatus* status) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) {
      *status = static_cast<CaseStatus>(i);
      return true;
    }
  return false;
}

bool is_bad(CaseStatus status) { return status >= CaseStatus::unexpected_pass; }

std::string to_json_line(const CaseResult& r) {
  nlohmann::ordered_json j{{"type", "case"}, {"name", r.name}, {"status", std::string(status_name(r.status))}};
  if (!r.message.empty()) j["message"] = r.message;
  if (!r.check.empty()) {
    j["check"] = r.check;
    j["max_abs"] = finite(r.figures.max_abs);
    j["max_ulp"] = finite(r.figures.max_ulp);
    j["nmse"] = finite(r.figures.nmse);
    j["fraction"] = finite(r.figures.fraction);
    j["worst_at"] = r.figures.worst;
    j["control"] = r.control;
  }
  if (!r.kernel.empty()) {
    j["kernel"] = r.kernel;
    j["spec"] = r.spec;
  }
  j["ms"] = r.milliseconds;
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool from_json_line(const std::string& line, CaseResult* r) {
  const auto j = nlohmann::json::parse(line, nullptr, false);
  if (j.is_discarded() || !j.is_object() || j.value("type", "") != "case") return false;
  r->name = j.value("name", "");
  if (!status_from_name(j.value("status", ""), &r->status)) return false;
  r->message = j.value("message", "");
  r->check = j.value("check", "");
  r->figures.max_abs = j.value("max_abs", 0.0);
  r->figures.max_ulp = j.value("max_ulp", 0.0);
  r->figures.nmse = j.value("nmse", 0.0);
  r->figures.fraction = j.value("fraction", 0.0);
  r->figures.worst = j.value("worst_at", std::size_t{0});
  r->control = j.value("control", "");
  r->kernel = j.value("kernel", "");
  r->spec = j.value("spec", std::vector<std::uint32_t>{});
  r->milliseconds = j.value("ms", 0.0);
  return true;
}

}  // namespace kvant::conformance
