// The comparisons and the bookkeeping around them: they must fail on what is wrong, and only on that.
#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "compare.hpp"
#include "dense_attention.hpp"
#include "expectations.hpp"
#include "pairwise.hpp"
#include "supervisor.hpp"

using namespace kvant;
using namespace kvant::conformance;

namespace {
const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInf = std::numeric_limits<double>::infinity();

bool bounded(std::vector<double> actual, std::vector<double> reference, double bound, std::size_t row = 1) {
  const std::vector<double> bounds(reference.size(), bound), magnitude(reference.size(), 1.0);
  return compare_bounded(actual, reference, bounds, magnitude, row).equal;
}
}  // namespace

TEST_CASE("bounded comparison") {
  CHECK(bounded({1.0, 2.0}, {1.0, 2.0}, 0.0));
  CHECK(bounded({1.09}, {1.0}, 0.1));
  CHECK_FALSE(bounded({1.11}, {1.0}, 0.1));
  CHECK_FALSE(bounded({kNan}, {1.0}, 10.0));
  CHECK_FALSE(bounded({kInf}, {1.0}, 10.0));
  CHECK_FALSE(bounded({1.0}, {kInf}, 10.0));
  CHECK_FALSE(bounded({-kInf}, {kInf}, 10.0));
  CHECK(bounded({-kInf}, {-kInf}, 0.0));
  CHECK_FALSE(bounded({1.0}, {1.0, 2.0}, 1.0));
}

TEST_CASE("a whole row near its bounds fails though each element is within") {
  CHECK(bounded({1.4, 1.4, 1.4, 1.4}, {1.0, 1.0, 1.0, 1.0}, 1.0, 4));
  CHECK_FALSE(bounded({1.6, 1.6, 1.6, 1.6}, {1.0, 1.0, 1.0, 1.0}, 1.0, 4));
}

TEST_CASE("a row's share of its bounds is its own") {
  const std::vector<double> reference(8, 1.0), bounds(8, 1.0), actual(8, 1.7), shares{0.8, 0.6};
  const Comparison figures = compare_bounded(actual, reference, bounds, bounds, 4, shares);
  CHECK_FALSE(figures.equal);
  CHECK(figures.wrong == 1);
  CHECK(figures.worst == 4);
  CHECK(compare_bounded(actual, reference, bounds, bounds, 4, std::vector<double>{0.8, 0.8}).equal);
}

TEST_CASE("where one key carries a row its elements share one drawn error") {
  reference::DenseProblem problem;
  problem.q_heads = problem.kv_heads = 1;
  problem.dim_k = problem.dim_v = 32;
  problem.scale = 0.2f;
  problem.q.assign(32, 1.0f);
  problem.sinks = {0.0f};
  const auto share_of = [&](std::uint32_t keys, reference::Arithmetic arithmetic) {
    reference::DenseSequence seq;
    seq.kv_len = keys;
    seq.q_len = 1;
    seq.q_position = static_cast<std::int32_t>(keys) - 1;
    seq.mapped.assign(keys, 1);
    seq.k.assign(keys * 32, 0.5f);
    for (std::uint32_t i = 0; i < keys * 32; ++i) seq.v.push_back(i % 3 == 0 ? 1.0f : -1.0f);
    problem.sequences = {seq};
    problem.arithmetic = arithmetic;
    return reference::dense_attention(problem).row_share[0];
  };
  CHECK(share_of(1, reference::Arithmetic::int_dot) > 0.95);
  CHECK(share_of(1, reference::Arithmetic::int_dot) <= 1.0);
  const double two = share_of(2, reference::Arithmetic::f16);
  CHECK((two > 0.6 && two < 0.75));
  CHECK(share_of(9, reference::Arithmetic::int_dot) == 0.5);
  CHECK(share_of(1, reference::Arithmetic::f32) == 0.5);
}

TEST_CASE("one wrong row is not hidden by many right ones") {
  std::vector<double> reference(4096, 1.0), actual = reference;
  actual[4000] = 1.001;
  CHECK_FALSE(bounded(actual, reference, 1e-4, 64));
}

TEST_CASE("exact comparisons see a bit, an ulp and a sign") {
  const std::vector<float> one{1.0f}, next{1.00000012f}, zero{0.0f}, minus{-0.0f};
  CHECK(compare_floats(one, one).equal);
  CHECK_FALSE(compare_floats(next, one).equal);
  CHECK_FALSE(compare_floats(minus, zero).equal);
  CHECK(compare_ulp(next, std::vector<double>{1.0}, 1.0).equal);
  CHECK_FALSE(compare_ulp(next, std::vector<double>{1.0}, 0.5).equal);
  CHECK_FALSE(compare_bytes(std::vector<std::byte>{std::byte{1}}, std::vector<std::byte>{std::byte{3}}).equal);
}

TEST_CASE("covering arrays cover every pair") {
  const std::vector<std::uint32_t> sizes{4, 3, 5, 2};
  const auto rows = pairwise_rows(sizes);
  for (std::size_t a = 0; a < sizes.size(); ++a)
    for (std::size_t b = a + 1; b < sizes.size(); ++b)
      for (std::uint32_t x = 0; x < sizes[a]; ++x)
        for (std::uint32_t y = 0; y < sizes[b]; ++y) {
          bool found = false;
          for (const auto& row : rows) found |= row[a] == x && row[b] == y;
          CHECK(found);
        }
  CHECK(rows.size() < 40);
}

TEST_CASE("expectations: patterns, statuses, unexpected passes") {
  CHECK(matches("attend_*.q4_0-*", "attend_decode.q4_0-f16.d64"));
  CHECK_FALSE(matches("attend_*.q4_0", "attend_decode.q4_0-f16"));
  CHECK(matches("*", ""));
  CHECK(driver_key("SwiftShader driver") == "swiftshader");
  const auto any = [](std::string_view) { return true; };
  const auto reason = [&](const char* text, const KnownPattern& known) {
    const auto list = parse_expectations(text, "t", known);
    return list.ok() ? std::string() : list.status().message();
  };
  auto parsed = parse_expectations("# comment\nread.* | expected_fail | * | https://example.org/1 | known\n", "t", any);
  REQUIRE(parsed.ok());
  CaseResult failing;
  failing.name = "read.f16";
  failing.status = CaseStatus::fail;
  apply_expectations(parsed.value(), failing);
  CHECK(failing.status == CaseStatus::expected_fail);
  CaseResult passing;
  passing.name = "read.f16";
  apply_expectations(parsed.value(), passing);
  CHECK(passing.status == CaseStatus::unexpected_pass);
  CHECK(is_bad(passing.status));
  CaseResult blind;
  blind.name = "read.f16";
  blind.status = CaseStatus::internal_error;
  apply_expectations(parsed.value(), blind);
  CHECK(blind.status == CaseStatus::internal_error);
  CHECK(reason("read.* | pass | * | | x\n", any).starts_with("t:1: the second field"));
  CHECK(reason("\nread.*\n", any).starts_with("t:2: there are not five fields"));
  CHECK(reason("read.* | waived | | | x\n", any).starts_with("t:1: pattern, driver or reason is empty"));
  CHECK(reason("read.* | waived | * | |\n", any).starts_with("t:1: pattern, driver or reason is empty"));
  CHECK(reason("raed.* | waived | * | | x\n", [](std::string_view pattern) { return matches(pattern, "read.f16"); })
            .starts_with("t:1: no case has such a name"));
  const auto none = load_expectations(KVANT_SOURCE_DIR "/no-such-folder", "llvmpipe", "", any);
  CHECK(none.status().code() == kvant::StatusCode::invalid_argument);
  CHECK(load_expectations(KVANT_SOURCE_DIR "/tests/expectations", "no such driver", "", any).value().empty());
}

TEST_CASE("a run without executed cases is no success; JSON lines round trip") {
  RunSummary summary;
  CHECK_FALSE(summary.good());
  CaseResult r;
  r.name = "x";
  r.status = CaseStatus::not_supported;
  summary.results.push_back(r);
  CHECK_FALSE(summary.good());
  r.status = CaseStatus::pass;
  r.check = "reduction";
  r.figures.nmse = 1e-9;
  r.figures.max_abs = kInf;
  summary.results.push_back(r);
  CHECK(summary.good());
  CaseResult back;
  REQUIRE(from_json_line(to_json_line(r), &back));
  CHECK(back.name == "x");
  CHECK(back.status == CaseStatus::pass);
  CHECK(back.figures.nmse == 1e-9);
  summary.results.back().status = CaseStatus::crash;
  CHECK_FALSE(summary.good());
}
