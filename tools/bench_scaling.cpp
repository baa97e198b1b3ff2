// kvant bench scaling: what a query costs as context, batch, heads and page size grow, one at a time, and what a common prefix saves.
#include <nlohmann/json.hpp>

#include <algorithm>

#include "bench.hpp"
#include "html_report.hpp"
#include "progress.hpp"

namespace kvant::tools {

namespace {

using Json = nlohmann::ordered_json;

struct ScalingOptions {
  HostOptions host;
  std::string formats = "q4_0,f16";
  std::string contexts = "1024,2048,4096,8192,16384,32768,65536,131072";
  std::string batches = "1,2,4,8,16,32,64";
  std::string kv_heads = "1,2,4,8,16,32";
  std::string groups = "1,2,4,8";
  std::string pages = "16,32";
  uint32_t head_dim = 128;
  uint32_t base_kv_heads = 8;
  uint32_t base_group = 4;
  uint32_t tokens = 1024;  // where the context is not what grows
  uint32_t rounds = 5;
  double least_seconds = 0.02;
  ReportOutput output;
};

// A value of what grows, and what it then takes.
struct Point {
  double x = 0;
  BenchResult result;
};
struct Line {
  std::string name;
  std::vector<Point> points;
};
struct Sweep {
  std::string name, x_label;
  std::vector<Line> lines;
};

struct ScalingReport {
  DeviceFacts device;
  std::string commit;  // of the library
  const ScalingOptions& options;
  double copy_bytes_per_second = 0;
  std::vector<Sweep> sweeps;
};

// A sweep's lines before they are measured: the shape of each point.
struct Plan {
  std::string name, x_label;
  struct Series {
    std::string suffix;  // behind the format's name
    std::vector<std::pair<uint32_t, BenchShape>> points;
  };
  std::vector<Series> series;
};

Outcome<std::vector<Plan>> plans_of(const ScalingOptions& options) {
  std::vector<Plan> plans;
  const BenchShape base{options.head_dim, options.base_kv_heads, options.base_group, options.tokens, 1};
  const auto add = [&](const std::string& name, const std::string& x_label, const std::string& list, auto change) -> Outcome<void> {
    const auto values = parse_counts("value of " + name, list);
    if (!values.ok()) {
      return values.failure();
    }
    Plan::Series series;
    for (const uint32_t value : *values) {
      BenchShape shape = base;
      change(shape, value);
      series.points.emplace_back(value, shape);
    }
    plans.push_back({name, x_label, {series}});
    return {};
  };
  KVANT_TRY(add("context", "tokens of one sequence", options.contexts, [](BenchShape& shape, uint32_t value) { shape.tokens = value; }));
  KVANT_TRY(add("batch", "sequences", options.batches, [](BenchShape& shape, uint32_t value) { shape.batch = value; }));
  // The same once more, all but a 16th of their tokens being one prefix.
  Plan::Series shared = plans.back().series.front();
  shared.suffix = ", one prefix";
  for (auto& [value, shape] : shared.points) {
    shape.shared = shape.tokens - std::max(shape.tokens / 16, 1U);
  }
  plans.back().series.push_back(std::move(shared));
  KVANT_TRY(add("KV heads", "KV heads", options.kv_heads, [](BenchShape& shape, uint32_t value) { shape.kv_heads = value; }));
  KVANT_TRY(add("GQA", "query heads that share a KV head", options.groups, [](BenchShape& shape, uint32_t value) { shape.group = value; }));
  KVANT_TRY(add("page size", "tokens of a page", options.pages, [](BenchShape& shape, uint32_t value) { shape.page_tokens = value; }));
  return plans;
}

Outcome<Sweep> measure(const std::shared_ptr<Device>& device, const std::vector<FormatPair>& pairs, const Plan& plan, const ScalingOptions& options,
                       std::vector<double>& copies, Progress& progress) {
  Sweep sweep{plan.name, plan.x_label, {}};
  std::vector<BenchCase> cases;
  std::vector<BenchSamples> samples;
  for (const Plan::Series& series : plan.series) {
    for (const FormatPair& pair : pairs) {
      sweep.lines.push_back({pair.name() + series.suffix, {}});
      for (const auto& [value, shape] : series.points) {
        progress.phase(plan.name + " " + std::to_string(value) + ": " + sweep.lines.back().name);
        auto made = decode_case(device, pair, shape);
        if (!made.ok()) {
          return made.failure();
        }
        cases.push_back(std::move(*made));
        samples.emplace_back();
        KVANT_TRY(warm_up(cases.back(), options.least_seconds, samples.back()));
        sweep.lines.back().points.push_back({static_cast<double>(value), {}});
        progress.advance();
      }
    }
  }
  for (uint32_t round = 0; round < options.rounds; ++round) {
    progress.phase(plan.name + ", round " + std::to_string(round + 1) + " of " + std::to_string(options.rounds));
    const auto copy = device->measure_copy(uint64_t{64} << 20);
    if (!copy.ok()) {
      return copy.failure();
    }
    copies.push_back(*copy);
    for (size_t i = 0; i < cases.size(); ++i) {
      KVANT_TRY(sample(*device, cases[i], samples[i]));
      progress.advance();
    }
  }
  size_t next = 0;
  for (Line& line : sweep.lines) {
    for (Point& point : line.points) {
      point.result = result_of(cases[next], samples[next]);
      ++next;
    }
  }
  return sweep;
}

std::string introduction(const ScalingReport& report) {
  const ScalingOptions& options = report.options;
  return "scaling on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit + ". Attention of one query a sequence; d " +
         std::to_string(options.head_dim) + ", " + std::to_string(options.base_kv_heads) + " KV heads, GQA " + std::to_string(options.base_group) + ", one sequence of " +
         std::to_string(options.tokens) + " tokens, but for what grows. Device time by timestamps (wall time where there are none), medians of " +
         std::to_string(options.rounds) + " rounds, interleaved within a table; GB/s: bytes of the pool that must be read, what sequences share once, with queries and outputs. "
         "A device-to-device copy moved " + significant(2e-9 * report.copy_bytes_per_second) + " GB/s in this run (bytes read and written).";
}

Table sweep_table(const Sweep& sweep) {
  Table table({sweep.name, "format", "ms", "ms to the first", "MiB", "GB/s", "GFLOP/s"});
  for (const Line& line : sweep.lines) {
    for (const Point& point : line.points) {
      const BenchResult& result = point.result;
      table.add({std::to_string(static_cast<uint64_t>(point.x)), line.name, significant(1e3 * result.seconds()), significant(result.seconds() / line.points.front().result.seconds()),
                 significant(result.device_bytes / (1024.0 * 1024.0)), significant(1e-9 * result.device_bytes / result.seconds()),
                 significant(1e-9 * result.flops / result.seconds())});
    }
  }
  return table;
}

std::string scaling_text(const ScalingReport& report) {
  std::string text = introduction(report) + "\n";
  for (const Sweep& sweep : report.sweeps) {
    text += "\n" + sweep_table(sweep).render();
  }
  return text;
}

std::string scaling_json(const ScalingReport& report) {
  Json json = {{"bench", "scaling"},
               {"device", report.device.name},
               {"driver", report.device.driver},
               {"commit", report.commit},
               {"rounds", report.options.rounds},
               {"head_dim", report.options.head_dim},
               {"copy_bytes_per_second", report.copy_bytes_per_second},
               {"sweeps", Json::array()}};
  for (const Sweep& sweep : report.sweeps) {
    Json points = Json::array();
    for (const Line& line : sweep.lines) {
      for (const Point& point : line.points) {
        points.push_back({{"value", point.x},
                          {"format", line.name},
                          {"shape", point.result.shape},
                          {"seconds", point.result.seconds()},
                          {"wall_seconds", point.result.wall_seconds},
                          {"device_bytes", point.result.device_bytes},
                          {"flops", point.result.flops}});
      }
    }
    json["sweeps"].push_back({{"name", sweep.name}, {"points", points}});
  }
  return json.dump(2) + "\n";
}

std::string scaling_html(const ScalingReport& report) {
  HtmlReport page("kvant bench scaling");
  page.paragraph(introduction(report));
  for (const Sweep& sweep : report.sweeps) {
    XyPlot plot;
    plot.title = "Time of a query by " + sweep.name;
    plot.x_label = sweep.x_label;
    plot.y_label = "ms";
    plot.log_x = plot.log_y = true;
    for (const Line& line : sweep.lines) {
      PlotSeries series{line.name, {}, {}};
      for (const Point& point : line.points) {
        series.points.emplace_back(point.x, 1e3 * point.result.seconds());
      }
      plot.series.push_back(std::move(series));
    }
    page.heading(sweep.name);
    page.plot(plot);
    page.table(sweep_table(sweep));
  }
  return page.render_page();
}

Outcome<void> run(const ScalingOptions& options) {
  KVANT_TRY(options.output.check());
  const auto plans = plans_of(options);
  if (!plans.ok()) {
    return plans.failure();
  }
  HostOptions host = options.host;
  host.device.profiling = true;
  const auto opened = open_device(host);
  if (!opened.ok()) {
    return opened.failure();
  }
  const auto pairs = parse_pairs(*(*opened)->library(), options.formats);
  if (!pairs.ok()) {
    return pairs.failure();
  }
  uint64_t points = 0;
  for (const Plan& plan : *plans) {
    for (const Plan::Series& series : plan.series) {
      points += series.points.size() * pairs->size();
    }
  }
  Progress progress(points * (options.rounds + 1), true);
  ScalingReport report{(*opened)->facts(), (*opened)->library()->commit(), options, 0, {}};
  std::vector<double> copies;
  for (const Plan& plan : *plans) {
    auto sweep = measure(*opened, *pairs, plan, options, copies, progress);
    if (!sweep.ok()) {
      return sweep.failure();
    }
    report.sweeps.push_back(std::move(*sweep));
  }
  report.copy_bytes_per_second = median(copies);
  return options.output.write(report, scaling_text, scaling_json, scaling_html);
}

}  // namespace

void add_bench_scaling_command(CLI::App& bench) {
  auto options = std::make_shared<ScalingOptions>();
  CLI::App* command = bench.add_subcommand("scaling", "what a query costs as context, batch, heads and page size grow, one at a time");
  add_host_options(*command, options->host);
  command->add_option("--formats", options->formats, kFormatsHelp)->capture_default_str();
  command->add_option("--contexts", options->contexts, "tokens of one sequence, comma-separated")->capture_default_str();
  command->add_option("--batches", options->batches, "sequences, comma-separated")->capture_default_str();
  command->add_option("--kv-heads", options->kv_heads, "KV heads, comma-separated")->capture_default_str();
  command->add_option("--gqa", options->groups, "query heads that share a KV head, comma-separated")->capture_default_str();
  command->add_option("--page-tokens", options->pages, "tokens of a page, comma-separated")->capture_default_str();
  command->add_option("--head-dim", options->head_dim, "head dimension")->check(at_least(1))->capture_default_str();
  command->add_option("--base-kv-heads", options->base_kv_heads, "KV heads where they are not what grows")->check(at_least(1))->capture_default_str();
  command->add_option("--base-gqa", options->base_group, "query heads that share a KV head, likewise")->check(at_least(1))->capture_default_str();
  command->add_option("--tokens", options->tokens, "tokens of a sequence, likewise")->check(at_least(2))->capture_default_str();
  command->add_option("--rounds", options->rounds, "rounds, interleaved within a table; medians are printed")->check(at_least(1))->capture_default_str();
  options->output.add_options(*command);
  command->callback([options] { finish(run(*options)); });
}

}  // namespace kvant::tools
