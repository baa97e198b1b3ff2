// Apart from its users: the library's headers and those of the tools do not go into one file.
#include "stats_sample_json.hpp"

#include "stats_sample.hpp"

namespace kvant::test {

std::string sample_stats_json() { return stats_json(sample_stats()); }

}  // namespace kvant::test
