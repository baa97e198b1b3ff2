// The Prometheus text, read by a strict checker that is itself shown to refuse what is wrong.
#include <doctest/doctest.h>

#include <limits>

#include "stats_prometheus_checker.hpp"
#include "stats_sample.hpp"

namespace kvant {
namespace {

using test::PrometheusChecker;
using test::sample_stats;

PrometheusChecker checked(const Result<std::string>& text) {
  REQUIRE(text.ok());
  PrometheusChecker checker;
  const bool right = checker.read(text.value());
  INFO(checker.error());
  REQUIRE(right);
  return checker;
}

TEST_CASE("prometheus: every number stands in its family") {
  const PrometheusChecker text = checked(stats_prometheus(sample_stats(), {{"model", "tiny"}}));
  CHECK(text.value("kvant_pool_bytes") == "18446744073709551615");
  CHECK(text.value("kvant_pool_used_bytes") == "13835058055282163712");
  CHECK(text.value("kvant_pool_pages") == "512");
  CHECK(text.value("kvant_pool_used_pages") == "384");
  CHECK(text.value("kvant_pool_shared_pages") == "37");
  CHECK(text.value("kvant_pool_index_pages") == "41");
  CHECK(text.value("kvant_pool_tail_waste_tokens") == "77");
  CHECK(text.value("kvant_limit_bytes") == "1073741824");
  CHECK(text.value("kvant_policy_info", {{"policy", "lru"}}) == "1");
  CHECK(text.value("kvant_lookup_queries_tokens_total") == "10007");
  CHECK(text.value("kvant_lookup_hit_tokens_total") == "7201");
  CHECK(text.value("kvant_lookup_queries_total") == "105");
  CHECK(text.value("kvant_lookup_hits_total") == "83");
  CHECK(text.value("kvant_evicted_pages_total", {{"cause", "capacity"}}) == "1930");
  CHECK(text.value("kvant_evicted_pages_total", {{"cause", "limit"}}) == "23");
  CHECK(text.value("kvant_layer_info", {{"layer", "0"}, {"format_k", "f16"}, {"format_v", "q4_0"}}) == "1");
  CHECK(text.value("kvant_layer_used_bytes", {{"layer", "2"}}) == "1002");
  CHECK(text.value("kvant_layer_allocated_bytes", {{"layer", "1"}}) == "2001");
  CHECK(text.value("kvant_layer_appended_tokens_total", {{"layer", "1"}}) == "3001");
  CHECK(text.value("kvant_layer_lookup_hit_tokens_total", {{"layer", "1"}}) == "401");
  CHECK(text.value("kvant_sequences") == "2");
  CHECK(text.value("kvant_sequence_tokens") == "133");
  CHECK(text.value("kvant_sequence_reused_tokens") == "64");
  CHECK(text.value("kvant_tier_gets_total", {{"tier", "host"}, {"place", "0"}}) == "200");
  CHECK(text.value("kvant_tier_errors_total", {{"tier", "remote"}, {"place", "1"}}) == "5");
  CHECK(text.value("kvant_tier_read_seconds_total", {{"tier", "host"}}) == "0.125");
  CHECK(text.value("kvant_tier_capacity_bytes") == "1048576");  // the remote tier has none to tell
  CHECK(text.value("kvant_quantization_relative_mse", {{"layer", "1"}, {"side", "v"}}) == "0.00025");
  CHECK(text.value("kvant_quantization_relative_mse", {{"layer", "3"}}).empty());
  CHECK(text.value("kvant_quantization_samples_total", {{"layer", "3"}, {"side", "k"}}) == "0");
  for (const test::PrometheusSample& sample : text.samples()) CHECK(sample.labels.at("model") == "tiny");
}

TEST_CASE("prometheus: histograms are at whole octaves and count what the fine buckets count") {
  CacheStats stats;
  stats[Operation::commit].add(1e-6);  // on a bound: belongs to it
  stats[Operation::commit].add(1.5e-6);
  stats[Operation::commit].add(2e-6);
  stats[Operation::commit].add(500);  // past the last bound
  const PrometheusChecker text = checked(stats_prometheus(stats, {}));
  const auto bucket = [&](const char* le) {
    return text.value("kvant_operation_seconds_bucket", {{"operation", "commit"}, {"le", le}});
  };
  CHECK(bucket("1e-06") == "1");
  CHECK(bucket("2e-06") == "3");
  CHECK(bucket("134.217728") == "3");
  CHECK(bucket("+Inf") == "4");
  CHECK(text.value("kvant_operation_seconds_count", {{"operation", "commit"}}) == "4");
  CHECK(text.value("kvant_operation_seconds_count", {{"operation", "load"}}) == "0");
  std::size_t buckets = 0;
  for (const test::PrometheusSample& sample : text.samples())
    buckets += sample.name == "kvant_operation_seconds_bucket" && sample.labels.at("operation") == "plan";
  CHECK(buckets == LatencyHistogram::kOctaves + 2);
}

TEST_CASE("prometheus: label values of any bytes come back") {
  const std::string odd = "a\"b\\c\nd\te{},= \xc3\xa9\xf0\x9f\x98\x80";
  CHECK(checked(stats_prometheus(sample_stats(), {{"model", odd}})).samples()[0].labels.at("model") == odd);
  // No UTF-8: a lone tail, an overlong slash, a surrogate, past U+10FFFF, a cut character. One mark for each byte.
  CacheStats stats = sample_stats();
  stats.tiers[0].name = "x\x80|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82";
  std::string marks = "x";
  for (const int count : {1, 2, 3, 4, 2}) {
    for (int i = 0; i < count; ++i) marks += "\xef\xbf\xbd";
    marks += '|';
  }
  marks.pop_back();
  CHECK(checked(stats_prometheus(stats, {})).value("kvant_tier_gets_total", {{"tier", marks}}) == "200");
}

TEST_CASE("prometheus: tiers of one name and numbers that are none stay well-formed") {
  CacheStats stats = sample_stats();
  stats.tiers[1].name = "host";
  stats.tiers[0].stats.read_seconds = 1e300;
  stats.quantization[0].error_squares = std::numeric_limits<double>::infinity();
  stats.quantization[1].error_squares = std::numeric_limits<double>::quiet_NaN();
  const PrometheusChecker text = checked(stats_prometheus(stats, {}));
  CHECK(text.value("kvant_tier_hits_total", {{"place", "1"}}) == "10");
  CHECK(text.value("kvant_tier_read_seconds_total", {{"place", "0"}}) == "1e+300");
  CHECK(text.value("kvant_quantization_relative_mse", {{"layer", "0"}, {"side", "k"}}) == "+Inf");
  CHECK(text.value("kvant_quantization_relative_mse", {{"layer", "0"}, {"side", "v"}}) == "NaN");
}

TEST_CASE("prometheus: several caches share one header a family") {
  const CacheStats first = sample_stats();
  CacheStats second;
  second.lookups.queries = 9;
  const LabelledStats both[] = {{&first, {{"model", "a"}}}, {&second, {{"model", "b"}}}};
  const PrometheusChecker text = checked(stats_prometheus(both));
  CHECK(text.value("kvant_lookup_queries_total", {{"model", "a"}}) == "105");
  CHECK(text.value("kvant_lookup_queries_total", {{"model", "b"}}) == "9");
  CHECK(text.families().contains("kvant_tier_gets_total"));
  CHECK_FALSE(checked(stats_prometheus(second, {})).families().contains("kvant_tier_gets_total"));
}

TEST_CASE("prometheus: labels that a scraper would refuse are refused, by name") {
  const CacheStats stats;
  for (const char* name : {"", "1a", "a-b", "__a", "\xc3\xa9", "a b", "le", "layer", "operation", "policy"}) {
    const Result<std::string> text = stats_prometheus(stats, {{name, "x"}});
    INFO(name);
    REQUIRE_FALSE(text.ok());
    CHECK(text.status().code() == StatusCode::invalid_argument);
    CHECK(text.status().message().find('"' + std::string(name) + '"') != std::string::npos);
  }
  CHECK(stats_prometheus(stats, {{"_a", "x"}, {"B9", "y"}}).ok());
  CHECK_FALSE(stats_prometheus(stats, {{"a", "x"}, {"a", "y"}}).ok());
  const LabelledStats same[] = {{&stats, {{"a", "x"}, {"b", "y"}}}, {&stats, {{"b", "y"}, {"a", "x"}, {"c", ""}}}};
  CHECK_FALSE(stats_prometheus(same).ok());
  const LabelledStats marks[] = {{&stats, {{"a", "\x80"}}}, {&stats, {{"a", "\x81"}}}};
  CHECK_FALSE(stats_prometheus(marks).ok());
}

TEST_CASE("prometheus: the checker refuses what is wrong") {
  const std::string head = "# HELP kvant_a_total Help.\n# TYPE kvant_a_total counter\n";
  const std::string histogram = "# HELP kvant_h Help.\n# TYPE kvant_h histogram\n";
  const std::string tail = "kvant_h_sum 1\nkvant_h_count 2\n";
  const auto right = [](const std::string& text) { return PrometheusChecker().read(text); };
  CHECK(right(head + "kvant_a_total{x=\"1\"} 5\nkvant_a_total 5\n"));
  CHECK(right(histogram + "kvant_h_bucket{le=\"1\"} 1\nkvant_h_bucket{le=\"+Inf\"} 2\n" + tail));
  for (const std::string& text : {
           head,                         // no sample
           head + "kvant_a_total 5",     // no line end
           head + "kvant_a_total  5\n",  // two blanks
           head + "kvant_a_total 5x\n",
           head + "kvant_a_total 0x5\n",
           head + "kvant_a_total inf\n",
           head + "kvant_a_total -1\n",
           head + "kvant_b_total 1\n",
           head + "\nkvant_a_total 1\n",
           head + "kvant_a_total{x=\"1\",x=\"2\"} 5\n",
           head + "kvant_a_total{x=\"1\"} 5\nkvant_a_total{x=\"1\"} 6\n",
           head + "kvant_a_total{x=\"\\t\"} 5\n",
           head + "kvant_a_total{x=\"1} 5\n",
           head + "kvant_a_total{x=1} 5\n",
           head + "kvant_a_total{} 5\n",
           head + "kvant_a_total 5\n" + head + "kvant_a_total{x=\"1\"} 5\n",
           std::string("kvant_a_total 5\n"),
           std::string("# TYPE kvant_a_total counter\nkvant_a_total 5\n"),
           std::string("# HELP kvant_a Help.\n# TYPE kvant_a counter\nkvant_a 5\n"),
           std::string("# HELP kvant_a_total Help.\n# TYPE kvant_a_total gauge\nkvant_a_total 5\n"),
           std::string("# HELP other_total Help.\n# TYPE other_total counter\nother_total 5\n"),
           histogram + "kvant_h_bucket{le=\"1\"} 2\n" + tail,                                 // no +Inf
           histogram + "kvant_h_bucket{le=\"1\"} 3\nkvant_h_bucket{le=\"+Inf\"} 2\n" + tail,  // falls
           histogram + "kvant_h_bucket{le=\"2\"} 1\nkvant_h_bucket{le=\"1\"} 1\n" + tail,     // out of order
           histogram + "kvant_h_bucket{le=\"1\"} 1\nkvant_h_bucket{le=\"+Inf\"} 1\n" + tail,  // not the count
           histogram + "kvant_h_bucket{le=\"+Inf\"} 2\nkvant_h_count 2\n",                    // no sum
       }) {
    INFO(text);
    CHECK_FALSE(right(text));
  }
}

}  // namespace
}  // namespace kvant
