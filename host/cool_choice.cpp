#include "cool_choice.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "checked.hpp"

namespace kvant {
namespace {

std::uint64_t grade_bytes(const CoolGroup& group, std::uint32_t grade) {
  return group.slab_bytes[grade][static_cast<std::size_t>(divide_up(group.used[grade], group.pages_per_slab))];
}

}  // namespace

Result<std::vector<CoolStep>> choose_cooled(std::vector<CoolGroup> groups, std::vector<CoolStep> steps, std::uint64_t other_bytes,
                                            std::uint64_t target_bytes) {
  std::uint64_t bytes = other_bytes;
  for (const CoolGroup& group : groups)
    for (std::uint32_t grade = 0; grade < kMostGrades; ++grade) bytes += grade_bytes(group, grade);
  std::stable_sort(steps.begin(), steps.end(), [](const CoolStep& a, const CoolStep& b) {
    return a.cost * static_cast<double>(b.saved) < b.cost * static_cast<double>(a.saved);
  });
  std::map<std::pair<std::uint32_t, std::uint32_t>, CoolStep> chosen;  // by group and page
  std::uint64_t least = bytes;
  for (const CoolStep& step : steps) {
    if (bytes <= target_bytes) break;
    CoolGroup& group = groups[step.group];
    bytes -= grade_bytes(group, step.from) + grade_bytes(group, step.to);
    --group.used[step.from];
    ++group.used[step.to];
    bytes += grade_bytes(group, step.from) + grade_bytes(group, step.to);
    least = std::min(least, bytes);
    const auto [known, fresh] = chosen.try_emplace({step.group, step.page}, step);
    if (!fresh) known->second.to = step.to;
  }
  if (bytes > target_bytes)
    return Status(StatusCode::resource_exhausted, "target_bytes (" + std::to_string(target_bytes) +
                                                      ") cannot be met: with all pages cooled that may be, the cache takes " + std::to_string(least));
  std::vector<CoolStep> moves;
  for (const auto& [page, step] : chosen) moves.push_back(step);
  return moves;
}

}  // namespace kvant
