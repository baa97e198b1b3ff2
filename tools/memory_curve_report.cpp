// The figures of kvant memory-curve as a terminal table, as JSON and as a page with a plot.
#include <nlohmann/json.hpp>

#include <cstdio>
#include <sstream>

#include "html_report.hpp"
#include "memory_curve.hpp"
#include "sensitivity.hpp"

namespace kvant::tools {

PlanFacts plan_facts(const std::string& plan) {
  PlanFacts facts;
  std::map<std::string, std::string> ends;  // "K3" -> format
  std::istringstream lines(plan);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos || line.find(" -> ") > colon) {
      continue;  // the summary
    }
    ++facts.actions;
    const std::string action = line.substr(colon + 2);
    char side = 0;
    unsigned layer = 0;
    char to[32] = {};
    unsigned long long pages = 0;
    if (std::sscanf(action.c_str(), "convert %c of layer %u from %*s to %31s", &side, &layer, to) == 3) {
      ends[side + std::to_string(layer)] = to;
    } else if (std::sscanf(action.c_str(), "evict %llu", &pages) == 1 ||
               std::sscanf(action.c_str(), "spill %llu", &pages) == 1) {
      facts.evicted_pages += pages;
    }
  }
  for (const auto& [side, format] : ends) {
    ++facts.sides[format];
  }
  return facts;
}

namespace {

using Json = nlohmann::ordered_json;

std::string conversions(const PlanFacts& facts) {
  std::string out;
  for (const auto& [format, count] : facts.sides) {
    out += (out.empty() ? "" : ", ") + std::to_string(count) + " to " + format;
  }
  return out.empty() ? "-" : out;
}

Table point_table(const CurveReport& report) {
  std::vector<std::string> columns = {"pool",    "limit",          "limit bytes",   "before", "after",
                                      "actions", "sides narrowed", "pages evicted", "PPL",    "to first"};
  const bool divergence = !report.sensitivities.empty();
  if (divergence) {
    columns.push_back("KL mean");
  }
  if (report.prune) {
    columns.insert(columns.end(), {"tokens kept", "PPL, newest kept"});
  }
  Table table(columns);
  for (const Curve& curve : report.curves) {
    const CurvePoint& first = curve.points.front();
    for (const CurvePoint& point : curve.points) {
      std::vector<std::string> cells = {curve.name(), std::to_string(point.percent) + " %",
                                        std::to_string(point.limit_bytes), std::to_string(point.bytes_before)};
      if (point.met) {
        const PlanFacts facts = plan_facts(point.plan);
        const double change = first.met ? point.perplexity / first.perplexity - 1.0 : 0.0;
        cells.insert(cells.end(), {std::to_string(point.bytes_after), std::to_string(facts.actions), conversions(facts),
                                   std::to_string(facts.evicted_pages), fixed(point.perplexity, 4),
                                   first.met ? (change >= 0 ? "+" : "") + fixed(100 * change, 3) + " %" : "-"});
      } else {
        cells.insert(cells.end(), {"cannot be met", "-", "-", "-", "-", "-"});
      }
      if (divergence) {
        cells.push_back(point.met && !point.pruned() ? significant(point.kl_mean) : "-");
      }
      if (report.prune) {
        cells.push_back(point.met ? std::to_string(point.tokens_kept) : "-");
        cells.push_back(point.pruned() ? fixed(point.newest_perplexity, 4) : "-");
      }
      table.add(cells);
    }
  }
  return table;
}

std::string pruning(const CurveReport& report) {
  if (!report.prune) {
    return "";
  }
  return " Attention mass is counted. Where a limit has pruned the sequence, its text is read again from the "
         "beginning, "
         "at its own positions and at most " +
         std::to_string(report.step) +
         " tokens a step, and is pruned by mass before every step, so that no more tokens than the limit left are ever "
         "held: the first " +
         std::to_string(report.sinks) + ", the last " + std::to_string(report.recent) +
         " and the heaviest. \"newest kept\" is the same with as many tokens, the first " +
         std::to_string(report.sinks) + " and the last, whatever their mass.";
}

std::string introduction(const CurveReport& report) {
  std::string ladder;
  for (const FormatPair& step : report.ladder) {
    ladder += (ladder.empty() ? "" : ", ") + step.name();
  }
  return report.model + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
         ". The pool holds a sequence in use of " + std::to_string(report.context) + " tokens of " + report.text +
         (report.idle > 0
              ? " and " + std::to_string(report.idle) + " more of that length that only the prefix cache holds"
              : "") +
         ", in slabs of " + std::to_string(report.slab_bytes) +
         " bytes a layer, and is then limited to a share of its bytes; sides may become " + ladder +
         ". Perplexity is that of the sequence's second half, read again over what the limit has left of the first: " +
         std::to_string(uint64_t{report.chunks} * report.scored) + " tokens of " + std::to_string(report.chunks) +
         " chunks, a fresh pool for each chunk and limit." + pruning(report);
}

// Each refused limit with the library's own sentence.
std::string refusals(const CurveReport& report) {
  std::string out;
  for (const Curve& curve : report.curves) {
    for (const CurvePoint& point : curve.points) {
      if (!point.met) {
        out += curve.name() + ", " + std::to_string(point.percent) + " %: cannot be met: " + point.plan + "\n";
      }
    }
  }
  return out;
}

}  // namespace

std::string curve_text(const CurveReport& report) {
  const std::string refused = refusals(report);
  std::string out = introduction(report) + "\n\n";
  for (const Sensitivity& sensitivity : report.sensitivities) {
    out += sensitivity_title(sensitivity) + "\n" + sensitivity_table(sensitivity).render() + "\n";
  }
  return out + point_table(report).render() + (refused.empty() ? "" : "\n" + refused);
}

std::string curve_json(const CurveReport& report) {
  Json json = {{"command", "memory-curve"},
               {"device", report.device.name},
               {"driver", report.device.driver},
               {"commit", report.commit},
               {"model", report.model},
               {"text", report.text},
               {"context", report.context},
               {"chunks", report.chunks},
               {"scored_tokens", uint64_t{report.chunks} * report.scored},
               {"idle", report.idle},
               {"slab_bytes", report.slab_bytes},
               {"prune", report.prune},
               {"ladder", Json::array()},
               {"curves", Json::array()}};
  for (const FormatPair& step : report.ladder) {
    json["ladder"].push_back(step.name());
  }
  if (report.prune) {
    json["sinks"] = report.sinks;
    json["recent"] = report.recent;
    json["step"] = report.step;
  }
  for (const Sensitivity& sensitivity : report.sensitivities) {
    json["sensitivities"].push_back(sensitivity_json(sensitivity));
  }
  for (const Curve& curve : report.curves) {
    Json one = {{"k", curve.pair.k.name},
                {"v", curve.pair.v.name},
                {"measured_weights", curve.weighted},
                {"points", Json::array()}};
    for (const CurvePoint& point : curve.points) {
      Json entry = {{"percent", point.percent},
                    {"limit_bytes", point.limit_bytes},
                    {"bytes_before", point.bytes_before},
                    {"met", point.met}};
      if (point.met) {
        const PlanFacts facts = plan_facts(point.plan);
        entry["bytes_after"] = point.bytes_after;
        entry["bytes_largest"] = point.bytes_largest;
        entry["actions"] = facts.actions;
        entry["sides_narrowed"] = facts.sides;
        entry["pages_evicted"] = facts.evicted_pages;
        entry["tokens"] = point.tokens;
        entry["tokens_kept"] = point.tokens_kept;
        entry["perplexity"] = point.perplexity;
        if (!report.sensitivities.empty() && !point.pruned()) {
          entry["kl_mean"] = point.kl_mean;
        }
        if (point.pruned()) {
          entry["perplexity_newest_kept"] = point.newest_perplexity;
        }
        entry["plan"] = point.plan;
      } else {
        entry["reason"] = point.plan;
      }
      one["points"].push_back(entry);
    }
    json["curves"].push_back(one);
  }
  return json.dump(2) + "\n";
}

std::string curve_html(const CurveReport& report) {
  HtmlReport page("kvant memory-curve");
  page.paragraph(introduction(report));
  XyPlot shares{"Perplexity by limit", "limit, percent of the filled pool", "perplexity", true, false, false, {}};
  XyPlot changes{"Change of perplexity to the first limit",
                 "limit, percent of the filled pool",
                 "percent of the perplexity",
                 true,
                 false,
                 false,
                 {}};
  for (const Curve& curve : report.curves) {
    PlotSeries by_share{curve.name(), {}, {}};
    PlotSeries newest{curve.name() + ", newest tokens kept", {}, {}};
    PlotSeries change = by_share;
    for (const CurvePoint& point : curve.points) {
      if (point.met) {
        by_share.points.emplace_back(point.percent, point.perplexity);
        if (point.pruned()) {
          newest.points.emplace_back(point.percent, point.newest_perplexity);
        }
        if (curve.points.front().met) {
          change.points.emplace_back(point.percent, 100 * (point.perplexity / curve.points.front().perplexity - 1.0));
        }
      }
    }
    if (!by_share.points.empty()) {
      shares.series.push_back(by_share);
    }
    if (!newest.points.empty()) {
      shares.series.push_back(newest);
    }
    if (!change.points.empty()) {
      changes.series.push_back(change);
    }
  }
  if (!shares.series.empty()) {
    page.plot(shares);
  }
  if (!changes.series.empty()) {
    page.plot(changes);
  }
  for (const Sensitivity& sensitivity : report.sensitivities) {
    page.paragraph(sensitivity_title(sensitivity));
    page.table(sensitivity_table(sensitivity));
  }
  page.table(point_table(report));
  if (const std::string refused = refusals(report); !refused.empty()) {
    page.heading("Limits that cannot be met");
    std::istringstream lines(refused);
    for (std::string line; std::getline(lines, line);) {
      page.paragraph(line);
    }
  }
  return page.render_page();
}

}  // namespace kvant::tools
