#include "conform_html.hpp"

#include "html_report.hpp"

namespace kvant::tools {

std::string conform_html(const conformance::ReportPage& page) {
  HtmlReport html(page.title);
  for (const conformance::ReportSection& section : page.sections) {
    html.heading(section.heading);
    for (const std::string& text : section.text) html.paragraph(text);
    if (!section.facts.empty()) {
      Table facts({"what", "value"});
      for (const auto& [what, value] : section.facts) facts.add({what, value});
      html.table(facts);
    }
    if (section.columns.empty()) continue;
    Table table(section.columns);
    for (const auto& row : section.rows) table.add(row);
    html.table(table);
  }
  return html.render_page();
}

}  // namespace kvant::tools
