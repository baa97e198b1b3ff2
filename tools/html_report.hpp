// One self-contained HTML page: headings, paragraphs, tables and plots; nothing is fetched, and it follows light and
// dark.
#pragma once

#include <string>

#include "outcome.hpp"
#include "svg_plot.hpp"
#include "table.hpp"

namespace kvant::tools {

class HtmlReport {
 public:
  explicit HtmlReport(const std::string& title);

  void heading(const std::string& text);
  void paragraph(const std::string& text);
  void table(const Table& table);
  template <typename Plot>
  void plot(const Plot& plot) {
    body_ += render(plot);
  }

  std::string render_page() const;

 private:
  std::string title_;
  std::string body_;
};

// Writes `text` to `path`; "-" is standard output.
Outcome<void> write_file(const std::string& path, const std::string& text);

}  // namespace kvant::tools
