// The report page over made-up results: each of its parts says what the results hold, and nothing where they hold
// nothing.
#include <doctest/doctest.h>

#include <algorithm>

#include "report.hpp"

using namespace kvant::conformance;

namespace {

CaseResult result(const char* name, CaseStatus status, const char* message = "") {
  CaseResult r;
  r.name = name;
  r.status = status;
  r.message = message;
  return r;
}

RunSummary sample() {
  RunSummary summary;
  summary.header =
      R"({"type":"header","commit":"abc","device":{"name":"A device","type":"cpu"},"overrides":{"fp16":false},
    "tuning":[{"shape":"q4_0 d64 g1 decode","module":"attend_decode","config":"64x1x1x256","subgroup_size":8}]})";
  CaseResult good = result("attend_decode.q4_0-f16.d64-64.h1x1", CaseStatus::pass);
  good.check = "reduction";
  good.figures.fraction = 0.5;
  good.figures.max_abs = 1e-3;
  good.kernel = "attend_decode";
  good.spec = {1, 2, 3};
  CaseResult bad = result("append.q4_0-q4_0.d64", CaseStatus::fail, "byte 7 is 1 | not 2");
  bad.figures.worst = 7;
  CaseResult same = result("relation.twice.attend_decode.f16-f16.d64", CaseStatus::pass);
  same.check = "exact";
  summary.results = {good, bad, same,
                     result("attend_decode_f16.nf4-nf4.d64", CaseStatus::not_supported, "fp16 arithmetic"),
                     result("copy.f16", CaseStatus::waived, "a reason https://example.org")};
  return summary;
}

const ReportSection& section(const ReportPage& page, const std::string& heading) {
  const auto found = std::find_if(page.sections.begin(), page.sections.end(),
                                  [&](const ReportSection& s) { return s.heading == heading; });
  REQUIRE_MESSAGE(found != page.sections.end(), heading);
  return *found;
}

}  // namespace

TEST_SUITE("conformance report") {
  TEST_CASE("every part says what the results hold") {
    const ReportPage page = build_report(sample(), {"kvant conform", " --seed 3", "A='b' ", ""});
    CHECK(page.title == "Conformance report: A device");
    CHECK(section(page, "Statement").text[0].starts_with("Not passed: pass 2"));
    CHECK(section(page, "Failures").rows ==
          std::vector<std::vector<std::string>>{{"append.q4_0-q4_0.d64", "fail", "7", "byte 7 is 1 | not 2",
                                                 "A='b' kvant conform --filter 'append.q4_0-q4_0.d64' --seed 3"}});
    CHECK(section(page, "Not supported").rows ==
          std::vector<std::vector<std::string>>{{"fp16 arithmetic", "1", "attend_decode_f16 1"}});
    CHECK(section(page, "Waived and expected failures").rows[0][2] == "a reason https://example.org");
    CHECK(section(page, "Determinism and metamorphic checks").rows ==
          std::vector<std::vector<std::string>>{{"twice", "bit for bit", "1", "0", "0", "0.00"}});
    CHECK(section(page, "Modules that ran").rows == std::vector<std::vector<std::string>>{{"attend_decode", "1", "1"}});
    CHECK(section(page, "What tuning chooses on this device").rows[0][2] == "64x1x1x256");

    const ReportSection& formats = section(page, "Results by formats and module");
    REQUIRE(formats.columns.size() == 6);
    for (const auto& row : formats.rows)
      for (std::size_t i = 1; i < row.size(); ++i) {
        CAPTURE(row[0]);
        CAPTURE(formats.columns[i]);
        if (row[0] == "q4_0-f16" && formats.columns[i] == "attend_decode") CHECK(row[i] == "1/1 0.50");
        if (row[0] == "q4_0-q4_0" && formats.columns[i] == "append") CHECK(row[i] == "0/1");
        if (row[0] == "nf4-nf4" && formats.columns[i] == "attend_decode_f16") CHECK(row[i] == "n/s");
      }
    const std::string text = markdown(page);
    CHECK(text.find("byte 7 is 1 \\| not 2") != std::string::npos);
    CHECK(text.find("- overrides: `{\"fp16\":false}`") != std::string::npos);
  }

  TEST_CASE("a validation message alone makes a run not pass") {
    RunSummary summary = sample();
    summary.results.erase(summary.results.begin() + 1);
    CHECK(summary.good());
    CHECK(section(build_report(summary, {}), "Failures").rows.empty());
    summary.validation_messages = 1;
    CHECK_FALSE(summary.good());
    CHECK(json_lines(summary).find("\"validation_messages\":1") != std::string::npos);
  }

  TEST_CASE("an earlier report is compared with: new failures, fixes, grown errors, and what is no longer run") {
    RunSummary before = sample();
    before.results[0].figures.max_abs = 1e-4;
    before.results[1].status = CaseStatus::pass;
    before.results.push_back(result("append.gone", CaseStatus::pass));
    const ReportPage page = build_report(sample(), {"", "", "", json_lines(before)});
    const auto& rows = section(page, "Compared with the previous report").rows;
    REQUIRE(rows.size() == 2);
    CHECK(rows[0][1] == "error 0.0001");
    CHECK(rows[1] == std::vector<std::string>{"append.q4_0-q4_0.d64", "pass", "fail"});
    const ReportSection same = compare_section(sample(), json_lines(sample()));
    CHECK(same.rows.empty());
    CHECK(same.facts[1].second == "0");
    CHECK(section(page, "Compared with the previous report").facts[1].second == "1");
  }
}
