// A monitor's view as one JSON object: samples, trends and recommendations.
#pragma once

#include <string>

#include "monitor.hpp"

namespace kvant {

std::string monitor_json(const Monitor& monitor);

}  // namespace kvant
