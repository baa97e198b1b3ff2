// Reading is strict about the members that the viewers use, and silent about all others.
#include "stats_snapshot.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

std::string printable(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters, too: two bytes in UTF-8.
    const bool second = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    out += byte < 0x20 || byte == 0x7F || second ? '?' : text[i];
    i += second ? 1 : 0;
  }
  return out;
}

// Members of one object. The first that is missing or of another type is remembered; what comes after it is zero.
class Members {
 public:
  Members(const Json& json, std::string path, std::string& wrong) : json_(json), path_(std::move(path)), wrong_(wrong) {
    if (!json_.is_object()) {
      blame("", "is not an object");
    }
  }

  uint64_t count(const char* name) {
    return at(name, &Json::is_number_unsigned, "a whole number, 0 or more", uint64_t{});
  }
  double number(const char* name) { return at(name, &Json::is_number, "a number", 0.0); }
  bool truth(const char* name) { return at(name, &Json::is_boolean, "true or false", false); }
  std::string text(const char* name) { return printable(at(name, &Json::is_string, "a text", std::string())); }
  std::optional<double> number_or_null(const char* name) {
    return has(name) && json_[name].is_null() ? std::nullopt : std::optional<double>(number(name));
  }
  bool has(const char* name) const { return json_.is_object() && json_.contains(name); }

  Members object(const char* name) { return {member(name), path_to(name), wrong_}; }
  template <typename Visit>
  void each(const char* name, const Visit& visit) {
    const Json& list = member(name);
    if (!list.is_array()) {
      blame(name, list.is_null() ? "is not there" : "is not an array");
      return;
    }
    for (size_t i = 0; i < list.size() && wrong_.empty(); ++i) {
      visit(Members(list[i], path_to(name) + "[" + std::to_string(i) + "]", wrong_));
    }
  }
  // Members of this object, in their order.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (auto item = json_.begin(); json_.is_object() && item != json_.end(); ++item) {
      result.push_back(item.key());
    }
    return result;
  }
  const Json& member(const char* name) const {
    static const Json kNull;
    return has(name) ? json_[name] : kNull;
  }
  void blame(const std::string& name, const std::string& what) {
    if (wrong_.empty()) {
      wrong_ = path_to(name) + " " + what;
    }
  }

 private:
  template <typename T>
  T at(const char* name, bool (Json::*right)() const noexcept, const char* expected, T otherwise) {
    const Json& value = member(name);
    if ((value.*right)()) {
      return value.get<T>();
    }
    if (!has(name)) {
      blame(name, "is not there");
    } else {
      blame(name, "(" + printable(value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40)) +
                      ") is not " + expected);
    }
    return otherwise;
  }
  std::string path_to(const std::string& name) const {
    return name.empty() || path_.empty() ? path_ + name : path_ + "." + name;
  }

  const Json& json_;
  std::string path_;
  std::string& wrong_;
};

SnapshotLookups read_lookups(Members from) {
  return {from.count("queries_tokens"), from.count("hit_tokens"), from.count("queries"), from.count("hits")};
}

SnapshotLatency read_latency(const std::string& name, Members from) {
  SnapshotLatency latency;
  latency.operation = printable(name);
  latency.count = from.count("count");
  latency.sum_seconds = from.number("sum_seconds");
  latency.p50_seconds = from.number("p50_seconds");
  latency.p99_seconds = from.number("p99_seconds");
  latency.greatest_seconds = from.number("greatest_seconds");
  const Json& buckets = from.member("buckets");
  const auto pair = [](const Json& bucket) {
    return bucket.is_array() && bucket.size() == 2 && (bucket[0].is_null() || bucket[0].is_number()) &&
           bucket[1].is_number_unsigned();
  };
  if (!buckets.is_array() || !std::all_of(buckets.begin(), buckets.end(), pair)) {
    from.blame("buckets", "is not an array of [bound in seconds or null, count]");
    return latency;
  }
  for (const Json& bucket : buckets) {
    const double bound = bucket[0].is_null() ? std::numeric_limits<double>::infinity() : bucket[0].get<double>();
    latency.buckets[bound] += bucket[1].get<uint64_t>();
  }
  return latency;
}

void read_cache(Members stats, Snapshot& snapshot) {
  snapshot.policy = stats.text("policy");
  snapshot.capacity_tokens = stats.count("capacity_tokens");
  snapshot.page_tokens = stats.count("page_tokens");
  snapshot.ttl_ms = stats.count("ttl_ms");
  snapshot.limit_bytes = stats.count("limit_bytes");
  Members pool = stats.object("pool");
  snapshot.pool = {pool.count("pool_bytes"),       pool.count("used_bytes"),   pool.count("total_pages"),
                   pool.count("used_pages"),       pool.count("shared_pages"), pool.count("index_pages"),
                   pool.count("tail_waste_tokens")};
  snapshot.lookups = read_lookups(stats.object("lookups"));
  Members evictions = stats.object("evictions");
  for (const std::string& cause : evictions.names()) {
    snapshot.evictions.emplace_back(printable(cause), evictions.count(cause.c_str()));
  }
  stats.each("layers", [&](Members layer) {
    snapshot.layers.push_back({layer.count("layer"), layer.text("format_k"), layer.text("format_v"),
                               layer.count("used_bytes"), layer.count("allocated_bytes"),
                               layer.count("appended_tokens")});
  });
  stats.each("sequences", [&](Members sequence) {
    snapshot.sequences.push_back({sequence.count("id"), sequence.count("tokens"), sequence.count("pages"),
                                  sequence.count("shared_pages"), sequence.count("bytes"),
                                  sequence.count("reused_tokens")});
  });
  stats.each("tiers", [&](Members tier) {
    snapshot.tiers.push_back({tier.text("name"), tier.count("gets"), tier.count("hits"), tier.count("puts"),
                              tier.count("rejected"), tier.count("corrupt"), tier.count("errors"),
                              tier.count("evictions"), tier.count("entries"), tier.count("bytes"),
                              tier.count("capacity_bytes")});
  });
  stats.each("quantization", [&](Members error) {
    snapshot.errors.push_back(
        {error.count("layer"), error.text("side"), error.number_or_null("relative_mse"), error.count("samples")});
  });
  Members latency = stats.object("latency");
  for (const std::string& operation : latency.names()) {
    snapshot.latency.push_back(read_latency(operation, latency.object(operation.c_str())));
  }
}

void read_monitor(Members monitor, Snapshot& snapshot) {
  snapshot.monitored = true;
  Members trends = monitor.object("trends");
  for (const std::string& metric : trends.names()) {
    Members trend = trends.object(metric.c_str());
    snapshot.trends.push_back({printable(metric), trend.text("trend"), trend.text("text"), trend.truth("enough")});
  }
  monitor.each("recommendations", [&](Members advice) {
    snapshot.recommendations.emplace_back(advice.text("rule"), advice.text("text"));
  });
}

// As the cache's own histograms do it: the geometric middle of the bucket, four buckets an octave, within 9.1 %.
constexpr double kLeastBound = 1e-6;
double quantile(const std::map<double, uint64_t>& buckets, uint64_t count, double q, double greatest) {
  const auto rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(q * static_cast<double>(count))));
  uint64_t below = 0;
  for (const auto& [bound, here] : buckets) {
    below += here;
    if (below >= rank) {
      // The first bucket has no lower bound.
      const double value = bound <= kLeastBound ? bound : bound * std::pow(2.0, -0.125);
      return std::isinf(bound) ? greatest : std::min(value, greatest);
    }
  }
  return greatest;
}

template <typename List>
auto* find_named(List& list, const std::string& operation) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const SnapshotLatency& one) { return one.operation == operation; });
  return found == list.end() ? nullptr : &*found;
}

// Empty where a bucket or the count fell.
std::optional<SnapshotLatency> latency_between(const SnapshotLatency& before, const SnapshotLatency& after) {
  if (after.count < before.count) {
    return std::nullopt;
  }
  SnapshotLatency result;
  result.operation = after.operation;
  result.sum_seconds = std::max(0.0, after.sum_seconds - before.sum_seconds);
  result.greatest_seconds = after.greatest_seconds;
  for (const auto& [bound, count] : after.buckets) {
    const auto earlier = before.buckets.find(bound);
    const uint64_t had = earlier == before.buckets.end() ? 0 : earlier->second;
    if (count < had) {
      return std::nullopt;
    }
    if (count > had) {
      result.buckets[bound] = count - had;
      result.count += count - had;
    }
  }
  if (result.count > 0) {
    result.p50_seconds = quantile(result.buckets, result.count, 0.5, after.greatest_seconds);
    result.p99_seconds = quantile(result.buckets, result.count, 0.99, after.greatest_seconds);
  }
  return result;
}

}  // namespace

const SnapshotLatency* Snapshot::find_latency(const std::string& operation) const {
  return find_named(latency, operation);
}

const SnapshotLatency* SnapshotInterval::find_latency(const std::string& operation) const {
  return find_named(latency, operation);
}

Outcome<Snapshot> parse_snapshot(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded()) {
    return bad_model("is not JSON");
  }
  Snapshot snapshot;
  std::string wrong;
  Members root(json, "", wrong);
  if (!json.is_object()) {
    return bad_model("is no JSON object");
  }
  snapshot.time_ms = root.count("time_ms");
  snapshot.unix_ms = root.count("unix_ms");
  read_cache(root.object("stats"), snapshot);
  if (!root.member("monitor").is_null()) {
    read_monitor(root.object("monitor"), snapshot);
  }
  if (root.has("events")) {
    root.each("events", [&](Members event) {
      snapshot.events.push_back({event.count("number"), event.count("time_ms"), event.count("kind"), event.count("a"),
                                 event.count("b"), event.count("sequence")});
    });
    snapshot.events_left_out = root.has("events_left_out") ? root.count("events_left_out") : 0;
  }
  if (!wrong.empty()) {
    return bad_model(wrong);
  }
  return snapshot;
}

std::optional<SnapshotInterval> interval_between(const Snapshot& before, const Snapshot& after) {
  const SnapshotLookups &a = before.lookups, &b = after.lookups;
  if (after.time_ms <= before.time_ms || b.queries_tokens < a.queries_tokens || b.hit_tokens < a.hit_tokens ||
      b.queries < a.queries || b.hits < a.hits) {
    return std::nullopt;
  }
  SnapshotInterval interval;
  interval.seconds = static_cast<double>(after.time_ms - before.time_ms) / 1000;
  interval.lookups = {b.queries_tokens - a.queries_tokens, b.hit_tokens - a.hit_tokens, b.queries - a.queries,
                      b.hits - a.hits};
  for (const auto& [cause, pages] : after.evictions) {
    uint64_t had = 0;
    for (const auto& [earlier, count] : before.evictions) {
      had = earlier == cause ? count : had;
    }
    if (pages < had) {
      return std::nullopt;
    }
    interval.evictions.emplace_back(cause, pages - had);
  }
  for (const SnapshotLatency& latency : after.latency) {
    const SnapshotLatency* const earlier = before.find_latency(latency.operation);
    auto between = latency_between(earlier != nullptr ? *earlier : SnapshotLatency{}, latency);
    if (!between) {
      return std::nullopt;
    }
    interval.latency.push_back(std::move(*between));
  }
  return interval;
}

void EventPick::add(const SnapshotEvent& event) {
  // Pages, lookups and entries of tiers come by the thousand, sequences by the request.
  const bool frequent = event.kind < 7 || event.kind == 8 || event.kind == 9;
  (frequent ? frequent_ : rare_).push_back(event);
  if (frequent_.size() + rare_.size() > most_) {
    (frequent_.empty() ? rare_ : frequent_).pop_front();
  }
}

std::vector<SnapshotEvent> EventPick::events() const {
  std::vector<SnapshotEvent> all(frequent_.begin(), frequent_.end());
  all.insert(all.end(), rare_.begin(), rare_.end());
  // By time first: numbers begin anew with each cache.
  std::stable_sort(all.begin(), all.end(), [](const SnapshotEvent& a, const SnapshotEvent& b) {
    return a.time_ms != b.time_ms ? a.time_ms < b.time_ms : a.number < b.number;
  });
  return all;
}

std::string event_kind_name(uint64_t kind) {
  static constexpr std::array<const char*, 16> kNames = {
      "page_published", "page_evicted", "prefix_hit",       "prefix_miss",        "tier_store",    "tier_hit",
      "tier_miss",      "convert",      "sequence_created", "sequence_destroyed", "limit_changed", "policy_changed",
      "save",           "load",         "pruned",         "cooled"};
  return kind < kNames.size() ? kNames[kind] : "kind " + std::to_string(kind);
}

}  // namespace kvant::tools
