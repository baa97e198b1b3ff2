// Rates of a curve's point are those of the interval before it.
#include "stats_report.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "html_report.hpp"
#include "stats_view.hpp"

namespace kvant::tools {

namespace {

constexpr double kMiB = 0x1p20;

double as_double(uint64_t value) { return static_cast<double>(value); }
std::string number(uint64_t value) { return std::to_string(value); }

// Every second snapshot but the last leaves.
void thin(std::vector<Snapshot>& snapshots) {
  size_t kept = 0;
  for (size_t i = 0; i < snapshots.size(); ++i) {
    if (i % 2 == 0 || i + 1 == snapshots.size()) {
      if (kept != i) {
        snapshots[kept] = std::move(snapshots[i]);
      }
      ++kept;
    }
  }
  snapshots.resize(kept);
}

void forget_lists(Snapshot& snapshot) {
  snapshot.sequences = {};
  snapshot.events = {};
  snapshot.trends = {};
  snapshot.recommendations = {};
}

// Seconds since the first snapshot. Where the engine was started anew its clock says nothing, and the wall's is taken.
std::vector<double> times_of(const std::vector<Snapshot>& snapshots) {
  std::vector<double> times = {0};
  for (size_t i = 1; i < snapshots.size(); ++i) {
    const Snapshot &before = snapshots[i - 1], &after = snapshots[i];
    const bool one_clock = after.time_ms >= before.time_ms;
    const uint64_t from = one_clock ? before.time_ms : before.unix_ms, to = one_clock ? after.time_ms : after.unix_ms;
    times.push_back(times.back() + (to > from ? as_double(to - from) / 1000 : 0));
  }
  return times;
}

class Curves {
 public:
  explicit Curves(const std::vector<Snapshot>& snapshots) : snapshots_(snapshots), times_(times_of(snapshots)) {
    const double whole = times_.back();
    unit_ = whole >= 7200 ? "hours" : whole >= 180 ? "minutes" : "seconds";
    const double scale = whole >= 7200 ? 3600 : whole >= 180 ? 60 : 1;
    for (double& time : times_) {
      time /= scale;
    }
    intervals_.emplace_back(std::nullopt);
    for (size_t i = 1; i < snapshots.size(); ++i) {
      intervals_.push_back(interval_between(snapshots[i - 1], snapshots[i]));
    }
  }

  XyPlot plot(const std::string& title, const std::string& y_label) const {
    XyPlot plot;
    plot.title = title;
    plot.x_label = unit_ + " since the first snapshot";
    plot.y_label = y_label;
    plot.tight_x = true;
    return plot;
  }
  // A point a snapshot.
  void add(XyPlot& plot, const std::string& name, const std::function<double(const Snapshot&)>& value) const {
    PlotSeries series{name, {}, {}};
    for (size_t i = 0; i < snapshots_.size(); ++i) {
      put(series, times_[i], value(snapshots_[i]));
    }
    plot.series.push_back(series);
  }
  // A point an interval.
  void add_rate(XyPlot& plot, const std::string& name,
                const std::function<double(const SnapshotInterval&)>& value) const {
    PlotSeries series{name, {}, {}};
    for (size_t i = 1; i < intervals_.size(); ++i) {
      if (intervals_[i]) {
        put(series, times_[i], value(*intervals_[i]));
      }
    }
    if (!series.points.empty()) {
      plot.series.push_back(series);
    }
  }

 private:
  // What is no number has no point.
  static void put(PlotSeries& series, double x, double y) {
    if (y == y) {
      series.points.emplace_back(x, y);
    }
  }

  const std::vector<Snapshot>& snapshots_;
  std::vector<double> times_;
  std::vector<std::optional<SnapshotInterval>> intervals_;  // before each snapshot
  std::string unit_;
};

double hit_share(const SnapshotLookups& lookups) {
  return lookups.queries_tokens == 0 ? std::numeric_limits<double>::quiet_NaN()
                                     : 100 * as_double(lookups.hit_tokens) / as_double(lookups.queries_tokens);
}

uint64_t evictions_of(const Snapshot& snapshot, const std::string& cause) {
  for (const auto& [name, pages] : snapshot.evictions) {
    if (name == cause) {
      return pages;
    }
  }
  return 0;
}

// Names that any of the snapshots has, in the order of their coming.
std::vector<std::string> names_of(
    const std::vector<Snapshot>& snapshots,
    const std::function<void(const Snapshot&, const std::function<void(const std::string&)>&)>& each) {
  std::vector<std::string> names;
  for (const Snapshot& snapshot : snapshots) {
    each(snapshot, [&](const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) {
        names.push_back(name);
      }
    });
  }
  return names;
}

void add_plots(HtmlReport& page, const std::vector<Snapshot>& snapshots) {
  const Curves curves(snapshots);
  XyPlot rate = curves.plot("Hit rate: prompt tokens found, of those asked for", "%");
  curves.add_rate(rate, "of the interval",
                  [](const SnapshotInterval& interval) { return hit_share(interval.lookups); });
  curves.add(rate, "since the beginning", [](const Snapshot& snapshot) { return hit_share(snapshot.lookups); });
  page.plot(rate);

  XyPlot pages = curves.plot("Pages in use, of " + number(snapshots.back().pool.total_pages), "pages");
  curves.add(pages, "used", [](const Snapshot& snapshot) { return as_double(snapshot.pool.used_pages); });
  curves.add(pages, "shared by sequences",
             [](const Snapshot& snapshot) { return as_double(snapshot.pool.shared_pages); });
  curves.add(pages, "in the prefix index alone",
             [](const Snapshot& snapshot) { return as_double(snapshot.pool.index_pages); });
  page.plot(pages);

  XyPlot bytes = curves.plot("Bytes in use by format (K/V) of the layers", "MiB");
  const auto formats = names_of(snapshots, [](const Snapshot& snapshot, const auto& visit) {
    for (const SnapshotLayer& layer : snapshot.layers) {
      visit(layer.formats());
    }
  });
  for (const std::string& format : formats) {
    curves.add(bytes, format, [&](const Snapshot& snapshot) {
      uint64_t sum = 0;
      for (const SnapshotLayer& layer : snapshot.layers) {
        sum += layer.formats() == format ? layer.used_bytes : 0;
      }
      return as_double(sum) / kMiB;
    });
  }
  page.plot(bytes);

  XyPlot evictions = curves.plot("Pages evicted by cause", "pages per second");
  const auto causes = names_of(snapshots, [](const Snapshot& snapshot, const auto& visit) {
    for (const auto& [cause, count] : snapshot.evictions) {
      if (count > 0) {
        visit(cause);
      }
    }
  });
  for (const std::string& cause : causes) {
    curves.add_rate(evictions, cause, [&](const SnapshotInterval& interval) {
      double sum = 0;
      for (const auto& [name, count] : interval.evictions) {
        sum += name == cause ? as_double(count) : 0;
      }
      return sum / interval.seconds;
    });
  }
  // One curve has no legend.
  evictions.title = causes.size() == 1 ? "Pages evicted, cause " + causes[0] : evictions.title;
  page.plot(evictions);

  XyPlot run = curves.plot("Time of a run (one layer of a step) in each interval", "ms");
  const auto quantile = [](double SnapshotLatency::*value) {
    return [value](const SnapshotInterval& interval) {
      const SnapshotLatency* const latency = interval.find_latency("run");
      return latency == nullptr || latency->count == 0 ? std::numeric_limits<double>::quiet_NaN()
                                                       : 1e3 * latency->*value;
    };
  };
  curves.add_rate(run, "p50", quantile(&SnapshotLatency::p50_seconds));
  curves.add_rate(run, "p99", quantile(&SnapshotLatency::p99_seconds));
  page.plot(run);

  XyPlot tiers = curves.plot("Bytes held by the tiers", "MiB");
  const auto names = names_of(snapshots, [](const Snapshot& snapshot, const auto& visit) {
    for (const SnapshotTier& tier : snapshot.tiers) {
      visit(tier.name);
    }
  });
  for (const std::string& name : names) {
    curves.add(tiers, name, [&](const Snapshot& snapshot) {
      double sum = 0;
      for (const SnapshotTier& tier : snapshot.tiers) {
        sum += tier.name == name ? as_double(tier.bytes) / kMiB : 0;
      }
      return sum;
    });
  }
  page.plot(tiers);
}

Table summary_table(const StatsHistory& history) {
  const Snapshot& now = history.snapshots.back();
  const SnapshotPool& pool = now.pool;
  Table table({"figure", "value", "of", "share"});
  const auto share = [&](const std::string& name, uint64_t part, uint64_t whole, const std::string& of) {
    table.add({name, number(part), number(whole) + " " + of, share_text(part, whole)});
  };
  share("prompt tokens found (hit rate)", now.lookups.hit_tokens, now.lookups.queries_tokens, "tokens asked for");
  share("lookups that found a page or more", now.lookups.hits, now.lookups.queries, "lookups");
  share("pages in use", pool.used_pages, pool.total_pages, "pages");
  share("pages shared by sequences", pool.shared_pages, pool.used_pages, "pages in use");
  share("pages in the prefix index alone", pool.index_pages, pool.used_pages, "pages in use");
  share("empty token slots", pool.tail_waste_tokens, pool.used_pages * now.page_tokens, "slots in use");
  const auto bytes = [](uint64_t size) { return bytes_text(as_double(size)); };
  table.add({"bytes in use", bytes(pool.used_bytes), bytes(pool.pool_bytes) + " allocated",
             share_text(pool.used_bytes, pool.pool_bytes)});
  if (now.limit_bytes > 0) {
    table.add({"bytes allocated", bytes(pool.pool_bytes), bytes(now.limit_bytes) + " allowed",
               share_text(pool.pool_bytes, now.limit_bytes)});
  }
  uint64_t evicted = 0;
  for (const auto& [cause, pages] : now.evictions) {
    evicted += pages;
  }
  for (const auto& [cause, pages] : now.evictions) {
    share("pages evicted: " + cause, evictions_of(now, cause), evicted, "evicted");
  }
  return table;
}

std::string introduction(const StatsHistory& history) {
  const Snapshot &first = history.snapshots.front(), &now = history.snapshots.back();
  const uint64_t spanned = now.unix_ms > first.unix_ms ? now.unix_ms - first.unix_ms : 0;
  std::string text = history.source + ": " + number(history.lines) +
                     (history.lines == 1 ? " snapshot, " : " snapshots, ") + utc_text(first.unix_ms) + " to " +
                     utc_text(now.unix_ms) + " (" + duration_text(as_double(spanned) / 1000) + "). A cache of " +
                     number(now.capacity_tokens) + " tokens in pages of " + number(now.page_tokens) + ", " +
                     number(now.layers.size()) + " layers, " + policy_text(now);
  text += now.ttl_ms > 0 ? ", TTL " + duration_text(as_double(now.ttl_ms) / 1000) : "";
  text += now.limit_bytes > 0 ? ", memory limit " + bytes_text(as_double(now.limit_bytes)) : "";
  text += ". Counts are those since the cache was made.";
  if (history.snapshots.size() < history.lines) {
    text += " The curves show " + number(history.snapshots.size()) + " of the snapshots.";
  }
  if (history.half_line) {
    text += " The file ends with half a line, which is left out.";
  }
  return text;
}

void add_monitor(HtmlReport& page, const Snapshot& now) {
  page.heading("Advice");
  if (!now.monitored) {
    page.paragraph("The log holds no monitor.");
    return;
  }
  if (now.recommendations.empty()) {
    page.paragraph("No rule applies.");
  }
  for (const auto& [rule, text] : now.recommendations) {
    page.paragraph(rule + ": " + text);
  }
  page.heading("Trends");
  page.paragraph("How much must change to count stands in docs/monitoring.md.");
  Table trends({"metric", "", "trend", "in words"});
  for (const SnapshotTrend& trend : now.trends) {
    trends.add({trend.metric, arrow_of(trend), trend.enough ? trend.trend : "-", first_clause(trend.text)});
  }
  page.table(trends);
}

void add_events(HtmlReport& page, const StatsHistory& history) {
  if (history.event_count == 0) {
    return;
  }
  page.heading("Events");
  page.paragraph(
      number(history.events.size()) + " of " + number(history.event_count + history.events_left_out) +
      " events, the latest, and before them those of conversions, policies, limits, saves and loads. What a and b "
      "mean by kind stands in docs/monitoring.md.");
  Table table({"number", "time, s", "kind", "a", "b", "sequence"});
  for (const SnapshotEvent& event : history.events) {
    table.add({number(event.number), fixed(as_double(event.time_ms) / 1000, 3), event_kind_name(event.kind),
               number(event.a), number(event.b), event.sequence > 0 ? number(event.sequence) : "-"});
  }
  page.table(table);
}

}  // namespace

Outcome<StatsHistory> read_history(const std::string& path) {
  auto reader = StatsLogReader::open(path);
  if (!reader.ok()) {
    return reader.failure();
  }
  StatsHistory history;
  history.source = path;
  EventPick pick(kKeptEvents);
  size_t every = 1;  // of so many lines one is kept, besides the last
  KVANT_TRY((*reader)->read([&](const std::string& line, uint64_t) -> Outcome<void> {
    auto snapshot = parse_snapshot(line);
    if (!snapshot.ok()) {
      return snapshot.failure();
    }
    history.event_count += snapshot->events.size();
    history.events_left_out += snapshot->events_left_out;
    for (const SnapshotEvent& event : snapshot->events) {
      pick.add(event);
    }
    std::vector<Snapshot>& kept = history.snapshots;
    // The last line stands at the end until the next one comes; then it stays or makes room.
    if (!kept.empty()) {
      forget_lists(kept.back());
      if ((history.lines - 1) % every != 0) {
        kept.pop_back();
      }
    }
    kept.push_back(std::move(*snapshot));
    ++history.lines;
    if (kept.size() >= kKeptSnapshots) {
      thin(kept);
      every *= 2;
    }
    return {};
  }));
  history.events = pick.events();
  history.half_line = (*reader)->half_line();
  if (history.snapshots.empty()) {
    return bad_model(path + ": has no snapshot" + (history.half_line ? ", only half a line" : ""));
  }
  return history;
}

std::string stats_html(const StatsHistory& history) {
  const Snapshot& now = history.snapshots.back();
  HtmlReport page("kvant report");
  page.paragraph(introduction(history));
  page.table(summary_table(history));
  add_plots(page, history.snapshots);
  add_monitor(page, now);
  page.heading("Layers");
  page.paragraph(
      "Layers of equal formats that follow each other are one row. Errors: squared error of the sampled rows over "
      "their squared values, the largest of the row's layers.");
  page.table(layer_table(now));
  if (!now.tiers.empty()) {
    page.heading("Tiers");
    page.table(tier_table(now));
  }
  page.heading("Latencies");
  page.paragraph("Quantiles are within 9.1 %.");
  page.table(latency_table(now, std::nullopt));
  if (!now.sequences.empty()) {
    page.heading("Largest sequences");
    page.table(sequence_table(now, 10));
  }
  add_events(page, history);
  return page.render_page();
}

}  // namespace kvant::tools
