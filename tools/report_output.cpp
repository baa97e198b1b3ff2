#include "report_output.hpp"

#include <cstdio>

#include "commands.hpp"
#include "html_report.hpp"

namespace kvant::tools {

void ReportOutput::add_options(CLI::App& command) {
  command.add_option("--json", json_path, "write JSON here, - for standard output (default: not written)");
  command.add_option("--html", html_path, "write an HTML page with plots here (default: not written)");
}

Outcome<void> ReportOutput::check() const {
  KVANT_TRY(check_output(json_path));
  return check_output(html_path);
}

void ReportOutput::print(const std::string& text) { std::printf("%s", text.c_str()); }

Outcome<void> ReportOutput::write_text(const std::string& path, const std::string& text) { return write_file(path, text); }

}  // namespace kvant::tools
