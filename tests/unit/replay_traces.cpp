// The traces of `kvant replay`: what the readers take and refuse, and that generated ones come back from their files.
#include <doctest/doctest.h>

#include <string>

#include "replay_generate.hpp"
#include "replay_read.hpp"
#include "replay_run.hpp"

namespace kvant::tools {
namespace {

const std::string kFolder = std::string(KVANT_SOURCE_DIR) + "/tests/traces/";

std::string refusal(const std::string& text, bool csv = false) {
  const auto trace = csv ? parse_csv("t", text) : parse_mooncake("t", text, {4, 1});
  return trace.ok() ? "accepted" : trace.failure().message;
}

TEST_CASE("replay traces: a page is its content after a certain prefix") {
  const auto trace = read_trace(kFolder + "tiny.jsonl", TraceFormat::kMooncake, {4, 10});
  REQUIRE(trace.ok());
  CHECK(trace->requests.size() == 6);
  CHECK(trace->pages.size() == 6);  // 2 after 9 is not 2 after 1
  CHECK(trace->requests[1].pages == std::vector<uint32_t>{0, 1, 2});
  CHECK(trace->requests[2].pages == std::vector<uint32_t>{3, 4});
  CHECK(trace->pages[5].parent == 1);
  CHECK(trace->pages[5].depth == 2);
  CHECK(trace->requests[3].time_ms == 3000);
  CHECK(trace->requests[3].tokens == 10);
  CHECK(trace->page_bytes() == 10);
  CHECK(trace->distinct_bytes() == 60);
}

TEST_CASE("replay traces: objects of a CSV file") {
  const auto trace = read_trace(kFolder + "tiny.csv", trace_format_of("tiny.csv"), {});
  REQUIRE(trace.ok());
  CHECK(trace->requests.size() == 6);
  CHECK(trace->pages.size() == 3);
  CHECK(trace->requests[3].time_ms == 3500);
  CHECK(trace->pages[1].bytes == 300);
  CHECK(trace->page_bytes() == 0);
  CHECK(trace->distinct_bytes() == 450);
}

TEST_CASE("replay traces: what is refused, and where") {
  CHECK(refusal("") == "t: holds no request with pages");
  CHECK(refusal("{}") == "t:1: timestamp is not a number of milliseconds from 0 to 2^53");
  CHECK(refusal("\n\nnonsense") == "t:3: 'nonsense' is not a JSON object");
  CHECK(refusal("[1]") == "t:1: '[1]' is not a JSON object");
  CHECK(refusal(R"({"timestamp":-1,"input_length":1,"hash_ids":[1]})").find("timestamp") != std::string::npos);
  CHECK(refusal(R"({"timestamp":1e300,"input_length":1,"hash_ids":[1]})").find("timestamp") != std::string::npos);
  CHECK(refusal(R"({"timestamp":1,"input_length":-5,"hash_ids":[1]})").find("input_length") != std::string::npos);
  CHECK(refusal(R"({"timestamp":1,"input_length":1.5,"hash_ids":[1]})").find("input_length") != std::string::npos);
  CHECK(refusal(R"({"timestamp":1,"input_length":1,"hash_ids":"x"})") == "t:1: hash_ids is not an array");
  CHECK(refusal(R"({"timestamp":1,"input_length":1,"hash_ids":[1,"\ud800"]})").substr(0, 4) == "t:1:");
  CHECK(refusal(R"({"timestamp":1,"input_length":1,"hash_ids":[1,-2]})") ==
        "t:1: hash_ids holds -2, which is not a whole number");
  CHECK(refusal(R"({"timestamp":1,"input_length":1,"hash_ids":[1]})") == "accepted");
  CHECK(refusal("time,id,size\n", true) == "t: holds no request");
  CHECK(refusal("0,1,5\r\n", true) == "accepted");
  CHECK(refusal("0,1,5,get,1\n# a remark\n1,1,5", true) == "accepted");
  CHECK(refusal("time,id,size\ntime,id,size\n", true) == "t:2: time (time) is not a number of seconds");
  CHECK(refusal("-1,a,5", true) == "t:1: time (-1) is not a number of seconds");
  CHECK(refusal("nan,a,5", true) == "t:1: time (nan) is not a number of seconds");
  CHECK(refusal("0,,5", true) == "t:1: id is empty");
  CHECK(refusal("0,a", true) == "t:1: size () is not a number of bytes from 1 to 2^48");
  CHECK(refusal("0,a,0", true) == "t:1: size (0) is not a number of bytes from 1 to 2^48");
  CHECK(refusal("0,a,-3", true) == "t:1: size (-3) is not a number of bytes from 1 to 2^48");
  CHECK_FALSE(read_trace(kFolder + "missing.jsonl", TraceFormat::kMooncake, {4, 1}).ok());
}

TEST_CASE("replay traces: sums stay within 64 bits, and what is nested is not written out") {
  const std::string line = R"({"timestamp": 0, "input_length": 1, "hash_ids": [1, 2]})";
  const std::string many_tokens = R"({"timestamp": 1, "input_length": 4611686018427387904, "hash_ids": [3]})";
  CHECK(parse_mooncake("t", many_tokens, {512, 1}).ok());
  const auto tokens = parse_mooncake("t", line + "\n" + many_tokens, {512, 1});
  REQUIRE(!tokens.ok());
  CHECK(tokens.failure().message.find("t:2: the trace has more than 2^62 tokens") == 0);
  CHECK(parse_mooncake("t", line, {512, uint64_t{1} << 61}).ok());
  CHECK(!parse_mooncake("t", line, {512, (uint64_t{1} << 61) + 1}).ok());

  // The first size of an object is that of all its uses.
  std::string uses = "0,a,281474976710656\n";
  for (int i = 0; i < (1 << 14); ++i) {
    uses += "1,a,1\n";
  }
  const auto bytes = parse_csv("t", uses);
  REQUIRE(!bytes.ok());
  CHECK(bytes.failure().message == "t:16385: the trace's uses are of more than 2^62 bytes together");
  CHECK(parse_csv("t", uses.substr(0, uses.size() - 6)).ok());

  std::string deep = R"({"timestamp": 0, "input_length": 1, "hash_ids": [)";
  deep.append(200000, '[').append(200000, ']').append("]}");
  const auto nested = parse_mooncake("t", deep, {512, 1});
  REQUIRE(!nested.ok());
  CHECK(nested.failure().message == "t:1: hash_ids holds array, which is not a whole number");
}

TEST_CASE("replay traces: capacities") {
  const auto trace = read_trace(kFolder + "tiny.jsonl", TraceFormat::kMooncake, {4, 10});
  REQUIRE(trace.ok());
  const auto capacities = parse_capacities("1MiB, 50%,3,50%", *trace);
  REQUIRE(capacities.ok());
  CHECK(*capacities == std::vector<uint64_t>{30, 1048576});
  for (const char* wrong : {"", "x", "-5", "0", "5%%", "5 GB", "1,,2", "nan", "inf", "1e300"}) {
    CAPTURE(wrong);
    CHECK_FALSE(parse_capacities(wrong, *trace).ok());
  }
}

TEST_CASE("replay traces: a generated trace is what its file says, and its seed's alone") {
  for (const std::string& name : trace_kind_names()) {
    CAPTURE(name);
    GenerateOptions options;
    options.kind = *trace_kind_from_name(name);
    options.requests = 300;
    const Trace made = generate_trace(options, 7);
    const auto read = parse_mooncake("t", mooncake_text(generate_records(options)), {options.page_tokens, 7});
    REQUIRE(read.ok());
    REQUIRE(read->requests.size() == 300);
    uint64_t before = 0;
    for (size_t i = 0; i < made.requests.size(); ++i) {
      const TraceRequest& request = made.requests[i];
      REQUIRE(read->requests[i].pages == request.pages);
      REQUIRE(read->requests[i].tokens == request.tokens);
      REQUIRE(request.pages.size() == (request.tokens + 511) / 512);
      REQUIRE(request.time_ms >= before);
      before = request.time_ms;
    }
    options.seed = 2;
    const Trace other = generate_trace(options, 7);
    CHECK(other.pages.size() != made.pages.size());
    const auto objects = parse_csv("t", csv_text(generate_records(options), 7));
    REQUIRE(objects.ok());
    CHECK(objects->distinct_bytes() == other.distinct_bytes());
    CHECK(objects->requests.back().time_ms == other.requests.back().time_ms);
  }
}

TEST_CASE("replay traces: the samples are what the generator makes") {
  for (const std::string& name : trace_kind_names()) {
    GenerateOptions options;
    options.kind = *trace_kind_from_name(name);
    options.seed = 7;
    options.requests = 200;
    const Trace made = generate_trace(options, 1);
    const auto read = read_trace(kFolder + name + ".jsonl", TraceFormat::kMooncake, {512, 1});
    REQUIRE(read.ok());
    REQUIRE(read->requests.size() == made.requests.size());
    for (size_t i = 0; i < made.requests.size(); ++i) {
      REQUIRE(read->requests[i].pages == made.requests[i].pages);
    }
  }
}

}  // namespace
}  // namespace kvant::tools
