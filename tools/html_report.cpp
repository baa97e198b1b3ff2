// The page's style: system fonts, two palettes chosen by the reader's colour scheme.
#include "html_report.hpp"

#include <cstdio>
#include <fstream>

namespace kvant::tools {

namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1c2024;
  --soft: #60646c; --rule: #e2e3e6;
  --zebra: #f6f7f8;
  --0: #2f6fde; --1: #d9730d; --2: #1a8f5a; --3: #a044c4; --4: #c8324b; --5: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --page: #121416; --card: #1a1d20;
  --ink: #e8eaed; --soft: #9aa0a8;
  --rule: #2f343a; --zebra: #202428;
  --0: #6ea8ff; --1: #ffa657; --2: #56d39a; --3: #cf9bf0; --4: #ff7b8f; --5: #9ca3af; } }
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
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .quiet { opacity: 0; } svg .quiet:hover { opacity: 1; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .c0 { fill: var(--0); } svg .c1 { fill: var(--1); } svg .c2 { fill: var(--2); }
svg .c3 { fill: var(--3); } svg .c4 { fill: var(--4); } svg .c5 { fill: var(--5); }
svg .s0 { stroke: var(--0); } svg .s1 { stroke: var(--1); } svg .s2 { stroke: var(--2); }
svg .s3 { stroke: var(--3); } svg .s4 { stroke: var(--4); } svg .s5 { stroke: var(--5); }
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
         escape_html(title_) + "</title>\n<style>" + kStyle + "</style></head>\n<body><main>\n<h1>" +
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
