// A conformance report as one self-contained HTML page.
#pragma once

#include <string>

#include "report_page.hpp"

namespace kvant::tools {

std::string conform_html(const conformance::ReportPage& page);

}  // namespace kvant::tools
