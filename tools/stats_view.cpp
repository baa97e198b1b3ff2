// Every share stands beside what it is a share of.
#include "stats_view.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <sstream>
#include <vector>

namespace kvant::tools {

namespace {

std::string number(uint64_t value) { return std::to_string(value); }
std::string bytes_of(uint64_t bytes) { return bytes_text(static_cast<double>(bytes)); }
double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}
std::string plural(uint64_t count, const std::string& word) {
  return number(count) + " " + word + (count == 1 ? "" : "s");
}

// "layer 3" or "layers 0-7".
std::string layer_range(uint64_t first, uint64_t last) {
  return first == last ? number(first) : number(first) + "-" + number(last);
}

// Squared errors of a run of layers: the worst is what matters.
std::string worst_error(const Snapshot& now, const std::string& side, uint64_t first, uint64_t last) {
  double worst = -1;
  for (const SnapshotError& error : now.errors) {
    if (error.side == side && error.layer >= first && error.layer <= last && error.relative_mse) {
      worst = std::max(worst, *error.relative_mse);
    }
  }
  return worst < 0 ? "-" : significant(worst);
}

// The screen's lines, each cut to the width as it is added.
class Screen {
 public:
  explicit Screen(const ScreenOptions& options) : options_(options) {}

  void line(const std::string& text) { lines_.push_back(cut_to_width(text, options_.width)); }
  // A name at the left and what belongs to it.
  void row(const std::string& name, const std::string& text) {
    line(style("1", name) + std::string(name.size() < kNames ? kNames - name.size() : 1, ' ') + text);
  }
  void table(const std::string& name, const Table& table) {
    if (table.rows().empty()) {
      return;
    }
    line("");
    std::istringstream stream(table.render());
    bool first = true;
    for (std::string text; std::getline(stream, text); first = false) {
      if (first) {
        row(name, style("1", text));
      } else {
        row("", text);
      }
    }
  }
  // A sentence on as many lines as it needs, the first behind `name`.
  void words(std::string name, const std::string& text) {
    const size_t room = std::max<size_t>(20, options_.width - std::min(options_.width, kNames));
    std::istringstream stream(text);
    std::string filled;
    size_t length = 0;
    const auto put = [&] {
      row(name, filled);
      name.clear();
    };
    for (std::string word; stream >> word;) {
      const size_t more = columns_of(word);
      if (length > 0 && length + 1 + more > room) {
        put();
        filled.clear();
        length = 0;
      }
      filled += (length > 0 ? " " : "") + word;
      length += more + (length > 0 ? 1 : 0);
    }
    put();
  }
  std::string style(const std::string& code, const std::string& text) const {
    return options_.colour && !text.empty() ? "\033[" + code + "m" + text + "\033[0m" : text;
  }
  // Two parts of a whole, the second of them behind the first.
  std::string bar(double first, double second, size_t cells) const {
    const auto at = [&](double share) {
      return static_cast<size_t>(std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(cells)));
    };
    const size_t held = at(first), used = std::max(held, at(first + second));
    std::string full, weak, rest;
    for (size_t cell = 0; cell < cells; ++cell) {
      (cell < held ? full : cell < used ? weak : rest) += cell < held ? "█" : cell < used ? "▒" : "░";
    }
    return style(first >= 0.95 ? "31" : first >= 0.8 ? "33" : "32", full) + weak + rest;
  }
  std::string text() const {
    std::string out;
    const bool cut = options_.height > 0 && lines_.size() > options_.height;
    const size_t count = cut ? options_.height - 1 : lines_.size();
    for (size_t i = 0; i < count; ++i) {
      out += lines_[i] + "\n";
    }
    return cut ? out + style("2", "... " + plural(lines_.size() - count, "more line") + ": enlarge the window") + "\n"
               : out;
  }

 private:
  static constexpr size_t kNames = 12;
  static size_t columns_of(const std::string& word) {
    return static_cast<size_t>(std::count_if(word.begin(), word.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  }
  const ScreenOptions& options_;
  std::vector<std::string> lines_;
};

void add_pool(Screen& screen, const Snapshot& now) {
  const SnapshotPool& pool = now.pool;
  // Pages that the prefix index alone holds can be evicted when their room is needed: a full pool is no alarm by
  // itself.
  const uint64_t index = std::min(pool.index_pages, pool.used_pages);
  screen.row("pool", screen.bar(ratio(pool.used_pages - index, pool.total_pages), ratio(index, pool.total_pages), 20) +
                         "  " + share_text(pool.used_pages, pool.total_pages) + ": " + number(pool.used_pages) +
                         " of " + plural(pool.total_pages, "page") + "; " + number(pool.shared_pages) + " shared, " +
                         number(pool.index_pages) + " idle prefixes (▒)");
  const double unused = pool.pool_bytes == 0 ? 0 : 1 - ratio(pool.used_bytes, pool.pool_bytes);
  const uint64_t slots = pool.used_pages * now.page_tokens;
  screen.row("memory", bytes_of(pool.used_bytes) + " used of " + bytes_of(pool.pool_bytes) + " allocated (" +
                           percent(unused) + " fragmented), " + number(pool.tail_waste_tokens) + " of " +
                           number(slots) + " token slots empty" +
                           (now.limit_bytes > 0 ? ", limit " + bytes_of(now.limit_bytes) : ""));
}

void add_rates(Screen& screen, const Snapshot& now, const std::optional<SnapshotInterval>& interval) {
  screen.line("");
  screen.row("hit rate", lookups_text(now.lookups));
  if (interval) {
    screen.row("", "last " + duration_text(interval->seconds) + ": " + lookups_text(interval->lookups));
  }
  uint64_t total = 0;
  std::string causes;
  for (size_t i = 0; i < now.evictions.size(); ++i) {
    const auto& [cause, pages] = now.evictions[i];
    total += pages;
    causes += (causes.empty() ? "" : ", ") + cause + " " + number(pages);
    if (interval) {
      causes += " (" + significant(static_cast<double>(interval->evictions[i].second) / interval->seconds) + "/s)";
    }
  }
  screen.row("evictions", plural(total, "page") + (causes.empty() ? "" : ": " + causes));
}

void add_advice(Screen& screen, const Snapshot& now) {
  screen.line("");
  if (now.recommendations.empty()) {
    screen.row("advice", now.monitored ? "none: no rule applies" : "none: the log's writer keeps no monitor");
  }
  std::string name = "advice";
  for (const auto& [rule, text] : now.recommendations) {
    screen.words(name, rule + ": " + text);
    name.clear();
  }
}

void add_trends(Screen& screen, const Snapshot& now) {
  if (!now.monitored) {
    return;
  }
  screen.line("");
  size_t few = 0;
  std::string name = "trends";
  for (const SnapshotTrend& trend : now.trends) {
    if (!trend.enough) {
      ++few;
      continue;
    }
    const char* const colour = trend.trend == "improving" ? "32" : trend.trend == "degrading" ? "31" : "2";
    screen.row(name, screen.style(colour, arrow_of(trend)) + " " + first_clause(trend.text));
    name.clear();
  }
  if (few > 0) {
    screen.row(name, "· " + plural(few, "metric") + (few == 1 ? " has" : " have") + " too few samples for a trend");
  }
}

}  // namespace

std::string duration_text(double seconds) {
  if (seconds <= 0) {
    return "0 s";
  }
  // By what is printed: 999.7 µs has three digits only as 1.00 ms.
  return seconds < 0.9995e-3 ? significant(seconds * 1e6) + " µs"
         : seconds < 0.9995  ? significant(seconds * 1e3) + " ms"
         : seconds < 120     ? significant(seconds) + " s"
         : seconds < 7200    ? significant(seconds / 60) + " min"
                             : significant(seconds / 3600) + " h";
}

std::string utc_text(uint64_t unix_ms) {
  const auto seconds = static_cast<time_t>(unix_ms / 1000);
  std::tm parts{};
  std::array<char, 64> text{};
  if (gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return "-";
  }
  return text.data();
}

std::string policy_text(const Snapshot& now) {
  return now.policy.empty() ? "no prefix cache" : "policy " + now.policy;
}

std::string share_text(uint64_t part, uint64_t whole) { return whole == 0 ? "-" : percent(ratio(part, whole)); }

std::string lookups_text(const SnapshotLookups& lookups) {
  if (lookups.queries == 0) {
    return "- (no lookup)";
  }
  return share_text(lookups.hit_tokens, lookups.queries_tokens) + " of tokens: " + number(lookups.hit_tokens) + " of " +
         number(lookups.queries_tokens) + "; " + share_text(lookups.hits, lookups.queries) +
         " of lookups: " + number(lookups.hits) + " of " + number(lookups.queries);
}

std::string arrow_of(const SnapshotTrend& trend) {
  return !trend.enough ? "·" : trend.trend == "improving" ? "↗" : trend.trend == "degrading" ? "↘" : "→";
}

std::string first_clause(const std::string& text) { return text.substr(0, text.find(';')); }

Table layer_table(const Snapshot& now) {
  Table table({"layers", "format", "used", "allocated", "used of it", "tokens appended", "K error", "V error"});
  for (size_t begin = 0, end = 0; begin < now.layers.size(); begin = end) {
    uint64_t used = 0, allocated = 0, tokens = 0;
    for (end = begin; end < now.layers.size() && now.layers[end].formats() == now.layers[begin].formats(); ++end) {
      used += now.layers[end].used_bytes;
      allocated += now.layers[end].allocated_bytes;
      tokens = std::max(tokens, now.layers[end].appended_tokens);
    }
    const uint64_t first = now.layers[begin].layer, last = now.layers[end - 1].layer;
    table.add({layer_range(first, last), now.layers[begin].formats(), bytes_of(used), bytes_of(allocated),
               share_text(used, allocated), number(tokens), worst_error(now, "k", first, last),
               worst_error(now, "v", first, last)});
  }
  return table;
}

Table tier_table(const Snapshot& now) {
  Table table({"tier", "gets", "hits", "hit rate", "puts", "rejected", "evicted", "entries", "bytes", "capacity",
               "corrupt", "errors"});
  for (const SnapshotTier& tier : now.tiers) {
    table.add({tier.name, number(tier.gets), number(tier.hits), share_text(tier.hits, tier.gets), number(tier.puts),
               number(tier.rejected), number(tier.evictions), number(tier.entries), bytes_of(tier.bytes),
               tier.capacity_bytes > 0 ? bytes_of(tier.capacity_bytes) : "-", number(tier.corrupt),
               number(tier.errors)});
  }
  return table;
}

Table latency_table(const Snapshot& now, const std::optional<SnapshotInterval>& interval) {
  std::vector<std::string> columns = {"operation", "calls", "p50", "p99", "greatest", "sum"};
  if (interval) {
    columns.insert(columns.end(), {"calls now", "p50 now", "p99 now"});
  }
  Table table(columns);
  for (const SnapshotLatency& latency : now.latency) {
    if (latency.count == 0) {
      continue;
    }
    std::vector<std::string> cells = {latency.operation,
                                      number(latency.count),
                                      duration_text(latency.p50_seconds),
                                      duration_text(latency.p99_seconds),
                                      duration_text(latency.greatest_seconds),
                                      duration_text(latency.sum_seconds)};
    if (interval) {
      const SnapshotLatency* const here = interval->find_latency(latency.operation);
      const bool any = here != nullptr && here->count > 0;
      cells.insert(cells.end(), {any ? number(here->count) : "0", any ? duration_text(here->p50_seconds) : "-",
                                 any ? duration_text(here->p99_seconds) : "-"});
    }
    table.add(cells);
  }
  return table;
}

Table sequence_table(const Snapshot& now, size_t most) {
  Table table({"sequence", "tokens", "reused", "pages", "shared", "bytes"});
  std::vector<const SnapshotSequence*> order;
  for (const SnapshotSequence& sequence : now.sequences) {
    order.push_back(&sequence);
  }
  std::sort(order.begin(), order.end(), [](const SnapshotSequence* a, const SnapshotSequence* b) {
    return a->bytes != b->bytes ? a->bytes > b->bytes : a->id < b->id;
  });
  SnapshotSequence rest;
  for (size_t i = 0; i < order.size(); ++i) {
    const SnapshotSequence& one = *order[i];
    if (i < most) {
      table.add({number(one.id), number(one.tokens), number(one.reused_tokens), number(one.pages),
                 number(one.shared_pages), bytes_of(one.bytes)});
    }
    rest.tokens += i < most ? 0 : one.tokens;
    rest.reused_tokens += i < most ? 0 : one.reused_tokens;
  }
  if (order.size() > most) {
    // Pages of the rest may be shared among them: their sum would count some twice.
    table.add(
        {"+" + number(order.size() - most) + " more", number(rest.tokens), number(rest.reused_tokens), "-", "-", "-"});
  }
  return table;
}

std::string cut_to_width(const std::string& line, size_t width) {
  std::string out;
  size_t columns = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\033') {
      const size_t end = line.find('m', i);
      if (end == std::string::npos) {
        break;
      }
      out.append(line, i, end - i + 1);
      i = end;
      continue;
    }
    const bool begins = (line[i] & 0xC0) != 0x80;
    columns += begins ? 1 : 0;
    if (columns <= width) {
      out += line[i];
    }
  }
  return out;
}

std::string stats_screen(const std::string& source, const Snapshot* before, const Snapshot& now,
                         const ScreenOptions& options) {
  const std::optional<SnapshotInterval> interval = before != nullptr ? interval_between(*before, now) : std::nullopt;
  Screen screen(options);
  const bool aged = options.unix_ms && *options.unix_ms >= now.unix_ms;
  const std::string age =
      aged ? ", " + duration_text(static_cast<double>(*options.unix_ms - now.unix_ms) / 1000) + " ago" : "";
  screen.row("kvant top", utc_text(now.unix_ms) + age + ", " + source);
  screen.row("cache", policy_text(now) +
                          (now.ttl_ms > 0 ? ", TTL " + duration_text(static_cast<double>(now.ttl_ms) / 1000) : "") +
                          ", " + plural(now.capacity_tokens, "token") + " in pages of " + number(now.page_tokens) +
                          ", " + plural(now.layers.size(), "layer") + ", " + plural(now.sequences.size(), "sequence"));
  screen.line("");
  add_pool(screen, now);
  add_rates(screen, now, interval);
  add_advice(screen, now);
  add_trends(screen, now);
  screen.table("tiers", tier_table(now));
  screen.table("latency", latency_table(now, interval));
  screen.table("layers", layer_table(now));
  screen.table("largest", sequence_table(now, 5));
  return screen.text();
}

}  // namespace kvant::tools
