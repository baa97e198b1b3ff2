// sample_stats() as JSON, for tests that know the text alone.
#pragma once

#include <string>

namespace kvant::test {

std::string sample_stats_json();

}  // namespace kvant::test
