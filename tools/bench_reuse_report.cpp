// The figures of kvant bench reuse as terminal tables, as JSON and as a page with plots.
#include <nlohmann/json.hpp>

#include "bench_reuse.hpp"
#include "html_report.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string of(uint64_t part, uint64_t whole) {
  return std::to_string(part) + "/" + std::to_string(whole) + " (" + percent(share(part, whole)) + ")";
}

Table time_table(const ReuseReport& report) {
  Table table({"K/V", "served", "seconds", "to first tokens", "tokens fed", "faster", "repeats from", "to"});
  for (const ReuseResult& result : report.results) {
    table.add({result.pair.name(), "whole prompts", significant(result.fresh.seconds),
               significant(result.fresh.first_seconds), std::to_string(result.fresh.fed_tokens), "1 x", "", ""});
    table.add({result.pair.name(), "prefix cache", significant(result.cached.seconds),
               significant(result.cached.first_seconds), std::to_string(result.cached.fed_tokens),
               significant(result.ratio) + " x", significant(result.least_ratio) + " x",
               significant(result.largest_ratio) + " x"});
  }
  return table;
}

Table hit_table(const ReuseReport& report) {
  Table table({"K/V", "hits of lookups", "tokens found of tokens asked", "equal answer tokens"});
  for (const ReuseResult& result : report.results) {
    table.add({result.pair.name(), of(result.hits, result.lookups), of(result.hit_tokens, result.lookup_tokens),
               of(result.equal_tokens, result.answer_tokens)});
  }
  return table;
}

Table held_table(const ReuseReport& report) {
  Table table({"K/V", "prompts open", "pages", "shared", "saved", "bytes", "bytes, shared"});
  for (const ReuseResult& result : report.results) {
    for (const ReuseHeld& held : result.held) {
      table.add({result.pair.name(), std::to_string(held.prompts), std::to_string(held.apart_pages),
                 std::to_string(held.shared_pages), percent(1.0 - share(held.shared_pages, held.apart_pages)),
                 std::to_string(held.apart_bytes), std::to_string(held.shared_bytes)});
    }
  }
  return table;
}

std::string introduction(const ReuseReport& report) {
  const ReuseShape& shape = report.shape;
  return report.model + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit + ". " +
         std::to_string(shape.rounds) + " rounds of " + std::to_string(shape.calls) +
         " calls: a shared system prompt of " + std::to_string(shape.system) +
         " tokens, the agent's own history, a question of " + std::to_string(shape.question) +
         " tokens; the answer has " + std::to_string(shape.answer) +
         ". Each call is served both ways in turn, from the prefix cache and by feeding its whole prompt into an empty "
         "sequence; seconds are of all calls, the first one that fills the cache included, medians of " +
         std::to_string(report.repeats) + " repeats, each of which begins with an empty cache.";
}

const char* const kHeldText = "What the agents' last prompts hold while that many of them are open at once:";

Json way_json(const ReuseWay& way) {
  return {{"seconds", way.seconds},
          {"seconds_to_first_tokens", way.first_seconds},
          {"tokens_fed", way.fed_tokens},
          {"call_seconds", way.call_seconds}};
}

}  // namespace

std::string reuse_text(const ReuseReport& report) {
  return introduction(report) + "\n\n" + time_table(report).render() + "\n" + hit_table(report).render() + "\n" +
         kHeldText + "\n\n" + held_table(report).render();
}

std::string reuse_json(const ReuseReport& report) {
  const ReuseShape& shape = report.shape;
  Json json = {{"bench", "reuse"},
               {"device", report.device.name},
               {"driver", report.device.driver},
               {"commit", report.commit},
               {"model", report.model},
               {"rounds", shape.rounds},
               {"calls", shape.calls},
               {"system_tokens", shape.system},
               {"question_tokens", shape.question},
               {"answer_tokens", shape.answer},
               {"repeats", report.repeats},
               {"results", Json::array()}};
  for (const ReuseResult& result : report.results) {
    Json one = {{"k", result.pair.k.name},
                {"v", result.pair.v.name},
                {"prompt_tokens", result.prompt_tokens},
                {"whole_prompts", way_json(result.fresh)},
                {"prefix_cache", way_json(result.cached)},
                {"ratio", result.ratio},
                {"least_ratio", result.least_ratio},
                {"largest_ratio", result.largest_ratio},
                {"lookups", result.lookups},
                {"hits", result.hits},
                {"lookup_tokens", result.lookup_tokens},
                {"hit_tokens", result.hit_tokens},
                {"answer_tokens", result.answer_tokens},
                {"equal_answer_tokens", result.equal_tokens},
                {"held", Json::array()}};
    for (const ReuseHeld& held : result.held) {
      one["held"].push_back({{"prompts", held.prompts},
                             {"pages", held.apart_pages},
                             {"bytes", held.apart_bytes},
                             {"shared_pages", held.shared_pages},
                             {"shared_bytes", held.shared_bytes}});
    }
    json["results"].push_back(one);
  }
  return json.dump(2) + "\n";
}

std::string reuse_html(const ReuseReport& report) {
  HtmlReport page("kvant bench reuse");
  page.paragraph(introduction(report));
  page.table(time_table(report));
  XyPlot calls{"Time of each call", "call", "milliseconds", true, false, true, {}};
  BarPlot held{"Pages held by all agents' prompts", "pages", {}, {{"without sharing", {}}, {"shared", {}}}};
  for (const ReuseResult& result : report.results) {
    PlotSeries fresh{result.pair.name() + ", whole prompts", {}, {}};
    PlotSeries cached{result.pair.name() + ", prefix cache", {}, {}};
    for (size_t i = 0; i < result.fresh.call_seconds.size(); ++i) {
      fresh.points.emplace_back(i + 1, 1e3 * result.fresh.call_seconds[i]);
      cached.points.emplace_back(i + 1, 1e3 * result.cached.call_seconds[i]);
    }
    calls.series.push_back(fresh);
    calls.series.push_back(cached);
    held.categories.push_back(result.pair.name());
    held.series[0].second.push_back(static_cast<double>(result.held.back().apart_pages));
    held.series[1].second.push_back(static_cast<double>(result.held.back().shared_pages));
  }
  page.plot(calls);
  page.table(hit_table(report));
  page.plot(held);
  page.paragraph(kHeldText);
  page.table(held_table(report));
  return page.render_page();
}

}  // namespace kvant::tools
