// The JSON text, read by a parser: exact numbers, fixed order, nothing that a parser would refuse.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <limits>

#include "stats_sample.hpp"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> keys(const Json& json) {
  std::vector<std::string> result;
  for (const auto& item : json.items()) result.push_back(item.key());
  return result;
}

TEST_CASE("stats json: numbers are exact and stand where they belong") {
  const CacheStats stats = test::sample_stats();
  const Json json = Json::parse(stats_json(stats));
  CHECK(json["policy"] == "lru");
  CHECK(json["pool"]["pool_bytes"].get<std::uint64_t>() == 18446744073709551615u);
  CHECK(json["pool"]["used_bytes"].get<std::uint64_t>() == 13835058055282163712u);
  CHECK(json["pool"]["fragmentation"].get<double>() == doctest::Approx(0.25));
  CHECK(json["pool"]["tail_waste_tokens"] == 77);
  CHECK(json["lookups"]["hit_rate"].get<double>() == 7201.0 / 10007.0);
  CHECK(json["evictions"]["capacity"] == 1930);
  CHECK(json["evictions"]["limit"] == 23);
  CHECK(json["layers"][1]["format_k"] == "q8_0");
  CHECK(json["layers"][2]["lookups"]["hit_tokens"] == 402);
  CHECK(json["sequences"][1]["id"].get<std::uint64_t>() == 9007199254740993u);
  CHECK(json["sequences"][0]["reused_tokens"] == 48);
  CHECK(json["tiers"][0].dump() ==
        R"({"name":"host","gets":200,"hits":150,"puts":80,"rejected":3,"corrupt":1,"errors":2,"evictions":17,)"
        R"("entries":60,"bytes":65536,"capacity_bytes":1048576,"bytes_read":123456,"bytes_written":234567,)"
        R"("read_seconds":0.125,"write_seconds":0.25})");
  CHECK(json["tiers"][1]["errors"] == 5);
  CHECK(json["pool"]["total_pages"] == 512);
  CHECK(json["pool"]["used_pages"] == 384);
  CHECK(json["pool"]["shared_pages"] == 37);
  CHECK(json["pool"]["index_pages"] == 41);
  CHECK(json["layers"][1]["used_bytes"] == 1001);
  CHECK(json["layers"][1]["allocated_bytes"] == 2001);
  CHECK(json["layers"][1]["appended_tokens"] == 3001);
  CHECK(json["quantization"][3]["side"] == "v");
  CHECK(json["quantization"][3]["relative_mse"].get<double>() == 0.002 / 8.0);
  CHECK(json["quantization"][6]["relative_mse"].is_null());
  const LatencyHistogram& run = stats[Operation::run];
  const Json& latency = json["latency"]["run"];
  CHECK(latency["count"] == run.count());
  CHECK(latency["sum_seconds"].get<double>() == run.sum());
  CHECK(latency["p99_seconds"].get<double>() == run.quantile(0.99));
  std::uint64_t counted = 0;
  for (const Json& bucket : latency["buckets"]) counted += bucket[1].get<std::uint64_t>();
  CHECK(counted == run.count());
}

TEST_CASE("stats json: keys are the same and in the same order whatever the numbers are") {
  const Json full = Json::parse(stats_json(test::sample_stats())), empty = Json::parse(stats_json({}));
  CHECK(keys(full) == keys(empty));
  CHECK(keys(full) == std::vector<std::string>{"policy", "capacity_tokens", "page_tokens", "ttl_ms", "limit_bytes",
                                               "pool", "lookups", "evictions", "layers", "sequences", "tiers",
                                               "quantization", "latency"});
  for (const char* key : {"pool", "lookups", "evictions", "latency"}) CHECK(keys(full[key]) == keys(empty[key]));
  CHECK(keys(full["latency"]) ==
        std::vector<std::string>{"plan", "run", "commit", "lookup", "store", "load", "convert"});
  CHECK(empty["layers"].is_array());
  CHECK(empty["lookups"]["hit_rate"].is_null());
}

TEST_CASE("stats json: what is no number is null, what is no UTF-8 is replaced") {
  CacheStats stats = test::sample_stats();
  stats.tiers[0].stats.read_seconds = std::numeric_limits<double>::infinity();
  stats.quantization[0].error_squares = std::numeric_limits<double>::quiet_NaN();
  stats.tiers[0].name = "a\xff\"b";
  stats[Operation::load].add(1e6);
  const Json json = Json::parse(stats_json(stats));
  CHECK(json["tiers"][0]["read_seconds"].is_null());
  CHECK(json["quantization"][0]["relative_mse"].is_null());
  CHECK(json["tiers"][0]["name"] == "a\xef\xbf\xbd\"b");
  CHECK(json["latency"]["load"]["buckets"].back() == Json::array({nullptr, 1}));
}

TEST_CASE("stats: rates without a denominator") {
  CHECK_FALSE(LookupCounters{}.hit_rate());
  CHECK(*LookupCounters{10, 0, 1, 0}.hit_rate() == 0);
  CHECK(PoolStats{}.fragmentation() == 0);
  CHECK(PoolStats{}.used_share() == 0);
  PoolStats pool;
  pool.pool_bytes = 100;
  pool.used_bytes = 101;  // counted at two moments
  CHECK(pool.fragmentation() == 0);
  CHECK_FALSE(QuantizationError{0, ErrorSide::k, 1, 0, 5}.relative_mse());
  CHECK(eviction_cause_name(EvictionCause::limit) == "limit");
  CHECK(operation_name(Operation::convert) == "convert");
}

}  // namespace
}  // namespace kvant
