// A run that goes on where it was cut off: what it keeps, what it runs again, and what it refuses.
#include <doctest/doctest.h>

#include <array>

#include "cases.hpp"
#include "supervisor.hpp"

using namespace kvant::conformance;

namespace {

std::vector<const Case*> some_cases() {
  std::vector<const Case*> cases;
  for (const Case& c : all_cases())
    if (c.op == Op::append && c.subset == Subset::smoke && cases.size() < 4) cases.push_back(&c);
  REQUIRE(cases.size() == 4);
  return cases;
}

struct Run {
  RunSummary summary;
  std::string lines;              // as a file would hold them if the run were cut off behind the last one
  std::vector<std::string> ran;
};

Run run(EarlierRun earlier, std::uint64_t seed = 1) {
  RunOptions options;
  options.session.device = "cpu";
  options.jobs = 2;
  options.seed = seed;
  options.earlier = std::move(earlier);
  Run out;
  RunListener listener;
  listener.header = [&](const std::string& header) { out.lines += header + '\n'; };
  listener.result = [&](const CaseResult& result, std::size_t) {
    out.lines += to_json_line(result) + '\n';
    out.ran.push_back(result.name);
  };
  out.summary = run_cases(some_cases(), options, listener);
  return out;
}

}  // namespace

TEST_CASE("resume: good results stay, bad ones and those that are missing run") {
  const Run whole = run({});
  REQUIRE(whole.summary.good());
  CHECK(whole.ran.size() == 4);
  CHECK(whole.summary.kept == 0);

  EarlierRun earlier = parse_earlier_run(whole.lines);
  CHECK(earlier.results.size() == 4);
  const auto cases = some_cases();
  earlier.results.erase(cases[1]->name);
  earlier.results[cases[0]->name].milliseconds = 12345.0;
  const Run rest = run(earlier);
  CHECK(rest.summary.good());
  CHECK(rest.ran == std::vector<std::string>{cases[1]->name});
  CHECK(rest.summary.kept == 3);
  CHECK(rest.summary.results.size() == 4);
  CHECK(rest.summary.results[0].milliseconds == 12345.0);
  CHECK(rest.summary.header == whole.summary.header);

  const Run nothing = run(parse_earlier_run(whole.lines));  // the device is opened all the same
  CHECK(nothing.ran.empty());
  CHECK(nothing.summary.good());
  CHECK(nothing.summary.header == whole.summary.header);
}

TEST_CASE("resume: another run's results are refused") {
  const Run whole = run({});
  const Run other = run(parse_earlier_run(whole.lines), 2);
  CHECK(other.summary.error == "the results to go on from are another run's: its seed is 1, this run's is 2");
  CHECK(other.lines.empty());
  CHECK_FALSE(other.summary.good());
}

TEST_CASE("resume: files that are cut off anywhere") {
  const std::string header = R"({"type":"header","seed":1})";
  CaseResult good, bad;
  good.name = "a";
  bad.name = "b";
  bad.status = CaseStatus::crash;
  const std::string text = header + '\n' + to_json_line(good) + '\n' + messages_json(3) + '\n' + to_json_line(bad) + '\n';
  const EarlierRun all = parse_earlier_run(text);
  CHECK(all.header == header);
  CHECK(all.results.size() == 1);
  CHECK(all.results.count("a") == 1);
  CHECK(all.messages == 3);
  for (std::size_t size = 0; size < text.size(); ++size) {
    const EarlierRun part = parse_earlier_run(text.substr(0, size));
    CHECK(part.results.size() <= 1);
    CHECK((part.header.empty() || part.header == header));
    if (part.header.empty()) CHECK(part.results.empty());
  }
  CHECK(parse_earlier_run(to_json_line(good)).results.empty());  // of which run is not known
  CHECK(difference(header, header).empty());
  CHECK(difference("{}", header) == "the results to go on from are another run's: its type is nothing, this run's is \"header\"");
  CHECK_FALSE(difference(header, "{").empty());
}

TEST_CASE("workers: each ends after its number of cases, and another goes on") {
  RunOptions options;
  options.session.device = "cpu";
  for (const auto& [jobs, most, workers] : {std::array<std::size_t, 3>{1, 300, 1}, {1, 3, 2}, {1, 1, 4}, {2, 1, 4}, {2, 2, 2}}) {
    CAPTURE(jobs);
    CAPTURE(most);
    options.jobs = static_cast<std::uint32_t>(jobs);
    options.worker_cases = most;
    RunListener listener;
    std::size_t heard = 0;
    listener.result = [&](const CaseResult&, std::size_t done) { CHECK(done == ++heard); };
    const RunSummary summary = run_cases(some_cases(), options, listener);
    CHECK(summary.error == "");
    CHECK(summary.good());
    CHECK(summary.results.size() == 4);
    CHECK(heard == 4);
    CHECK(summary.workers == workers);
  }
}
