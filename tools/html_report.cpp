// The page's style: system fonts; the two palettes, chosen by the reader's colour scheme, are the plots'.
#include "html_report.hpp"

#include <cstdio>
#include <fstream>

namespace kvant::tools {

namespace {

constexpr const char* kStyle = R"css(
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 36px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 10px; }
p { color: var(--soft); margin: 6px 0 14px; max-width: 78ch; }
.scroll { overflow-x: auto; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; margin: 12px 0 20px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: left; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--rule); }
td.n, th.n { text-align: right; }
tbody tr:nth-child(even) { background: var(--zebra); }
figure { margin: 16px 0 24px; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px 8px; }
figcaption { font-weight: 600; margin-bottom: 6px; }
svg { width: 100%; height: auto; display: block; }
)css";

}  // namespace

HtmlReport::HtmlReport(const std::string& title) : title_(title) {}

void HtmlReport::heading(const std::string& text) { body_ += "<h2>" + escape_html(text) + "</h2>\n"; }

void HtmlReport::paragraph(const std::string& text) { body_ += "<p>" + escape_html(text) + "</p>\n"; }

void HtmlReport::table(const Table& table) {
  const auto cell = [&](const char* tag, size_t column, const std::string& text) {
    return std::string("<") + tag + (table.numeric(column) ? " class=\"n\">" : ">") + escape_html(text) + "</" + tag +
           ">";
  };
  body_ += "<div class=\"scroll\"><table><thead><tr>";
  for (size_t column = 0; column < table.columns().size(); ++column) {
    body_ += cell("th", column, table.columns()[column]);
  }
  body_ += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows()) {
    body_ += "<tr>";
    for (size_t column = 0; column < table.columns().size(); ++column) {
      body_ += cell("td", column, column < row.size() ? row[column] : "");
    }
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
}

std::string HtmlReport::render_page() const {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
         escape_html(title_) + "</title>\n<style>" + plot_style() + kStyle + "</style></head>\n<body><main>\n<h1>" +
         escape_html(title_) + "</h1>\n" + body_ + "</main></body></html>\n";
}

Outcome<void> write_file(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return {};
  }
  std::ofstream stream(path, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream) {
    return Failure{path + ": cannot be written", Exit::kFailed};
  }
  return {};
}

}  // namespace kvant::tools
