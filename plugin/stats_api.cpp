// The statistics functions of the manager extension: texts, snapshots for the monitor, events.
#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "monitor_json.hpp"
#include "objects.hpp"
#include "prefix_args.hpp"

namespace kvant::abi {
namespace {

// "name=value,name=value". A value may hold anything but a comma.
Result<Labels> read_labels(const char* text_in) {
  Labels labels;
  if (text_in == nullptr) return labels;
  std::string_view rest(text_in);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0)
      return invalid("labels: \"", pair, "\" is not of the form name=value");
    labels.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return labels;
}

}  // namespace

kvant_error* stats_text(kvant_cache* cache, std::uint32_t kind, const char* labels, const char** out_text,
                        std::uint64_t* out_size) {
  return guard("stats_text", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_text, "out_text", "a place for the text"));
    if (kind > KVANT_STATS_MONITOR) return invalid("kind (", kind, ") is not one of KVANT_STATS_*, 0 to ", KVANT_STATS_MONITOR);
    if (labels != nullptr && kind != KVANT_STATS_PROMETHEUS)
      return invalid("labels are given although kind (", kind, ") is not KVANT_STATS_PROMETHEUS");
    std::string made;
    if (kind == KVANT_STATS_PROMETHEUS) {
      KVANT_ASSIGN(const Labels pairs, read_labels(labels));
      KVANT_ASSIGN(made, stats_prometheus(object->cache->stats(), pairs));
    } else {
      made = kind == KVANT_STATS_JSON ? stats_json(object->cache->stats()) : monitor_json(object->monitor);
    }
    object->stats_text = std::move(made);
    *out_text = object->stats_text.c_str();
    if (out_size != nullptr) *out_size = object->stats_text.size();
    return {};
  });
}

kvant_error* stats_observe(kvant_cache* cache) {
  return guard("stats_observe", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    object->observe();
    return {};
  });
}

kvant_error* stats_sample_errors(kvant_cache* cache, std::uint64_t every_tokens) {
  return guard("stats_sample_errors", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    object->cache->sample_errors(every_tokens);
    return {};
  });
}

kvant_error* events_poll(kvant_cache* cache, std::uint64_t since, std::uint32_t capacity, kvant_event* events,
                         std::uint32_t* out_count, std::uint64_t* out_lost) {
  return guard("events_poll", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of events"));
    if (capacity != 0) KVANT_TRY(check_pointer(events, "events", text(capacity, " kvant_event")));
    const EventBatch batch = object->cache->events(since, capacity);
    std::size_t stride = sizeof(kvant_event);
    if (!batch.events.empty()) {
      KVANT_ASSIGN(stride, element_stride(events, 0, "events", "events"));
      for (std::size_t i = 0; i < batch.events.size(); ++i)
        KVANT_TRY(check_output(element_at(events, stride, i), text("events[", i, "]")));
    }
    for (std::size_t i = 0; i < batch.events.size(); ++i) {
      const Event& event = batch.events[i];
      kvant_event values{};
      values.number = event.number;
      values.time_ms = event.time_ms;
      values.a = event.a;
      values.b = event.b;
      values.sequence = event.sequence;
      values.kind = static_cast<std::uint32_t>(event.kind);
      if (event.kind == EventKind::policy_changed) {
        values.a = policy_number(static_cast<PolicyKind>(event.a));
        values.b = policy_number(static_cast<PolicyKind>(event.b));
      }
      write_struct(reinterpret_cast<kvant_event*>(reinterpret_cast<char*>(events) + stride * i), values);
    }
    *out_count = static_cast<std::uint32_t>(batch.events.size());
    if (out_lost != nullptr) *out_lost = batch.lost;
    return {};
  });
}

}  // namespace kvant::abi
