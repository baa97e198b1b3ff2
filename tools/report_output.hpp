// Where a command's figures go: the terminal, a JSON file, a page with plots. - is standard output, which then has nothing else.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "outcome.hpp"

namespace kvant::tools {

struct ReportOutput {
  std::string json_path;  // empty: not written
  std::string html_path;

  // --json and --html.
  void add_options(CLI::App& command);
  // Whether files can be written there, known before an hour of measuring and not after.
  Outcome<void> check() const;
  // Standard output is the terminal's.
  bool prints() const { return json_path != "-" && html_path != "-"; }

  // The report as each of the three that is asked for, made by functions of it.
  template <typename Report, typename Text, typename Json, typename Html>
  Outcome<void> write(const Report& report, Text text, Json json, Html html) const {
    if (prints()) print(text(report));
    if (!json_path.empty()) {
      const auto written = write_text(json_path, json(report));
      if (!written.ok()) return written;
    }
    return html_path.empty() ? Outcome<void>() : write_text(html_path, html(report));
  }

 private:
  static void print(const std::string& text);
  static Outcome<void> write_text(const std::string& path, const std::string& text);
};

}  // namespace kvant::tools
