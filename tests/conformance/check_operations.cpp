// A few cases of each operation on the environment's device. The long lists belong to `kvant conform`.
#include <doctest/doctest.h>

#include <string>

#include "check_device.hpp"
#include "support.hpp"

using namespace kvant;
using namespace kvant::conformance;

namespace {

// Runs the first `count` smoke cases of the operation that the device supports.
void run_smoke(Op op, std::size_t count) {
  std::string why;
  Session* session = test_session(&why);
  if (session == nullptr) {
    CHECK_MESSAGE(!device_required(), "a device is required: ", why);
    MESSAGE("no device: ", why);
    return;
  }
  std::size_t executed = 0, not_supported = 0;
  for (const Case& c : all_cases()) {
    if (c.op != op || c.subset != Subset::smoke || executed == count) continue;
    const CaseResult result = session->run(c, 1);
    if (result.status == CaseStatus::not_supported) {
      ++not_supported;
      continue;
    }
    ++executed;
    CHECK_MESSAGE(!is_bad(result.status), c.name, ": ", std::string(status_name(result.status)), ": ", result.message);
    CHECK_MESSAGE(!result.control.empty(), c.name, " has no negative control");
  }
  CHECK(executed > 0);
  MESSAGE(std::string(op_name(op)), ": ", executed, " cases, ", not_supported, " not supported");
}

}  // namespace

TEST_SUITE_BEGIN("operations");

TEST_CASE("append") { run_smoke(Op::append, 3); }
TEST_CASE("read") { run_smoke(Op::read, 3); }
TEST_CASE("copy") { run_smoke(Op::copy, 2); }
TEST_CASE("convert") { run_smoke(Op::convert, 2); }
TEST_CASE("quantize") { run_smoke(Op::quantize, 2); }
TEST_CASE("merge") { run_smoke(Op::merge, 2); }
TEST_CASE("attend") { run_smoke(Op::attend, 2); }
TEST_CASE("sequence") { run_smoke(Op::sequence, 2); }
TEST_CASE("relation") { run_smoke(Op::relation, 1); }
TEST_CASE("gather") { run_smoke(Op::gather, 2); }
TEST_CASE("rotate") { run_smoke(Op::rotate, 2); }
TEST_CASE("score") { run_smoke(Op::score, 2); }
TEST_CASE("transfer") { run_smoke(Op::transfer, 3); }
TEST_CASE("import") { run_smoke(Op::import, 2); }
TEST_CASE("extract") { run_smoke(Op::extract, 2); }
TEST_CASE("rope") { run_smoke(Op::rope, 3); }
TEST_CASE("hadamard") { run_smoke(Op::hadamard, 2); }
TEST_CASE("means") { run_smoke(Op::means, 2); }

TEST_SUITE_END();

TEST_CASE("an unavailable module is not_supported, with the missing feature") {
  std::string why;
  Session* session = test_session(&why);
  REQUIRE_MESSAGE((session != nullptr || !device_required()), why);
  if (session == nullptr || session->plan() == nullptr) return;
  DevicePlan bare = *session->plan();
  bare.caps.fp16 = false;
  bare.caps.subgroup = false;
  bare.caps.int_dot = false;
  for (const Case& c : all_cases()) {
    if (c.op != Op::attend) continue;
    const bool needs = kernel_info(c.config.kernel).needs != 0;
    if (needs) CHECK_MESSAGE(!missing_for(c, bare).empty(), c.name);
  }
}
