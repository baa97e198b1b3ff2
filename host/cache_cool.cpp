// CacheImpl: cooled pages. The pages that got least attention move to slabs where V is narrower; what they leave is closed up, and its
// memory given back.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <vector>

#include "cache_impl.hpp"
#include "checked.hpp"
#include "cool_choice.hpp"
#include "format_error.hpp"
#include "rollback.hpp"

namespace kvant {

// What V of a layer becomes: nothing else where its weight says that it is never narrowed.
std::vector<SideGeometry> CacheImpl::cold_sides(std::uint32_t layer, const SideGeometry& v, const std::vector<FormatId>& formats) const {
  const std::uint32_t kv_heads = geometry_.group_of(layer).kv_heads;
  return make_cold_sides(v, sensitivity_[layer][1] < 0 ? std::span<const FormatId>() : std::span<const FormatId>(formats), kv_heads, geometry_.page_tokens);
}

// Formats of the grades may change while no page is of them.
Status CacheImpl::set_cold_formats(const std::vector<FormatId>& formats) {
  if (formats.empty() || formats.size() >= kMostGrades)
    return {StatusCode::invalid_argument, "formats (" + std::to_string(formats.size()) + ") are not 1 or 2"};
  if (formats.size() == 2 && format_bits(formats[1]) >= format_bits(formats[0]))
    return {StatusCode::invalid_argument, "formats[1] (" + std::string(format_info(formats[1]).name) + ") is not narrower than formats[0], " +
                                              std::string(format_info(formats[0]).name)};
  std::vector<std::vector<SideGeometry>> sides;
  bool same = formats == cold_formats_;
  for (std::uint32_t i = 0; i < geometry_.layers.size(); ++i) {
    sides.push_back(cold_sides(i, geometry_.layers[i].sides[1], formats));
    for (std::size_t grade = 0; grade < sides[i].size(); ++grade) same = same && sides[i][grade].format == geometry_.layers[i].cold_v[grade].format;
  }
  if (same) return {};
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const std::uint32_t cold = pools_[g].used_pages() - pools_[g].used_pages_of(0);
    if (cold == 0) continue;
    std::string names;
    for (const FormatId format : cold_formats_) names += (names.empty() ? "" : " and ") + std::string(format_info(format).name);
    return {StatusCode::failed_precondition, std::to_string(cold) + " pages have been cooled to " + names +
                                                 ", and others cannot be to other formats, or with weights that spare other layers"};
  }
  for (std::uint32_t g = 0; g < pools_.size(); ++g) KVANT_TRY(compact_cold(g));
  cold_formats_ = formats;
  for (std::size_t i = 0; i < sides.size(); ++i) geometry_.layers[i].cold_v = std::move(sides[i]);
  return {};
}

// Full pages without a token that stays as it is, and that are not of the last grade.
std::vector<std::int32_t> CacheImpl::coolable_pages(std::uint32_t g, const CoolSpec& spec) const {
  const std::uint64_t page_tokens = geometry_.page_tokens;
  std::vector<bool> stays(geometry_.groups[g].page_ids(), false);
  for (const auto& [id, sequence] : sequences_) {
    const PageTable& table = sequence.tables[g];
    const std::uint64_t end = sequence.length - std::min(sequence.length, spec.recent);
    for (std::uint32_t i = 0; i < table.size(); ++i)
      if (table.at(i) != kNoPage && (sequence.whole || i * page_tokens < spec.sinks || (i + 1) * page_tokens > end))
        stays[static_cast<std::size_t>(table.at(i))] = true;
  }
  if (prefixes_ != nullptr)
    for (const PrefixNode* node : prefixes_->nodes())
      if (node->pages[g] != kNoPage && (node->depth - 1) * page_tokens < spec.sinks) stays[static_cast<std::size_t>(node->pages[g])] = true;
  std::vector<std::int32_t> pages;
  const GroupGeometry& group = geometry_.groups[g];
  for (std::uint32_t slab = 0; slab < spec.formats.size() * group.slab_count; ++slab)
    for (std::uint32_t page = group.first_page(slab); page < group.first_page(slab) + group.pages_in(slab); ++page)
      if (pools_[g].references(page) != 0 && !stays[page]) pages.push_back(static_cast<std::int32_t>(page));
  return pages;
}

// What a page's steps cost and save. Where the second would save at a lower price than the first the two are one.
void CacheImpl::add_page_steps(std::uint32_t g, std::uint32_t page, std::uint32_t grades, std::span<const double> masses, std::vector<CoolStep>& steps) const {
  const GroupGeometry& group = geometry_.groups[g];
  const std::size_t first = steps.size();
  std::uint32_t from = group.grade_of(group.slab_of(page));
  for (std::uint32_t to = from + 1; to < grades; ++to) {
    CoolStep step{g, page, from, to, 0, page_bytes(g, from) - page_bytes(g, to)};
    if (step.saved == 0) continue;
    for (std::size_t l = 0; l < group.layers.size(); ++l) {
      const LayerGeometry& layer = geometry_.layers[group.layers[l]];
      step.cost += masses[l] * (format_error(layer.side(Side::v, to).format) - format_error(layer.side(Side::v, from).format));
    }
    from = to;
    if (steps.size() > first && step.cost * static_cast<double>(steps.back().saved) < steps.back().cost * static_cast<double>(step.saved)) {
      steps.back().to = to;
      steps.back().cost += step.cost;
      steps.back().saved += step.saved;
    } else {
      steps.push_back(step);
    }
  }
}

Status CacheImpl::add_cool_steps(std::uint32_t g, std::uint32_t grades, std::span<const std::int32_t> pages, std::vector<CoolStep>& steps) {
  const GroupGeometry& group = geometry_.groups[g];
  const std::size_t layer_words = static_cast<std::size_t>(group.mass_layer_bytes / sizeof(std::uint64_t));
  constexpr std::uint64_t kMostBytes = 64u << 20;  // of masses in host memory at once
  const std::size_t most = static_cast<std::size_t>(std::max<std::uint64_t>(1, kMostBytes / group.mass_page_bytes));
  std::vector<std::uint64_t> words;
  std::vector<double> masses(group.layers.size());
  for (std::size_t first = 0; first < pages.size(); first += most) {
    const std::span<const std::int32_t> part = pages.subspan(first, std::min(most, pages.size() - first));
    KVANT_TRY(download_mass(g, part, words));
    for (std::size_t p = 0; p < part.size(); ++p) {
      for (std::size_t l = 0; l < masses.size(); ++l) {
        double sum = 0;
        for (std::size_t i = 0; i < layer_words; ++i) sum += static_cast<double>(words[(p * masses.size() + l) * layer_words + i]);
        masses[l] = sum / mass_group_[group.layers[l]] * std::max(0.0, sensitivity_[group.layers[l]][1]);
      }
      add_page_steps(g, static_cast<std::uint32_t>(part[p]), grades, masses, steps);
    }
  }
  return {};
}

// A slab's pages at a time, and what they leave is closed up, so that hardly more memory is needed before some is given back.
Status CacheImpl::cool_group(std::uint32_t g, std::vector<CoolStep> left) {
  const GroupGeometry& group = geometry_.groups[g];
  std::stable_sort(left.begin(), left.end(), [](const CoolStep& a, const CoolStep& b) { return a.to < b.to; });
  std::vector<std::uint32_t> renamed(group.page_ids());
  std::iota(renamed.begin(), renamed.end(), 0U);
  while (!left.empty()) {  // from its end: the narrowest first, they take least
    const std::uint32_t grade = left.back().to;
    std::vector<PagePair> moves;
    for (; !left.empty() && left.back().to == grade && moves.size() < group.pages_per_slab; left.pop_back()) moves.push_back({g, left.back().page, 0});
    const std::vector<std::uint32_t> ids = pools_[g].free_ids(grade, moves.size());
    for (std::size_t i = 0; i < moves.size(); ++i) moves[i].destination = ids[i];
    KVANT_TRY(move_pages(g, moves));
    const auto slabs = static_cast<std::uint32_t>(divide_up(pools_[g].used_pages_of(0), group.pages_per_slab));
    const std::vector<PagePair> closing = closing_moves(g, slabs, 0);
    KVANT_TRY(move_pages(g, closing));
    slabs_.release(g, slabs);
    for (const PagePair& move : closing) renamed[move.source] = move.destination;
    for (CoolStep& step : left) step.page = renamed[step.page];
    for (const PagePair& move : closing) renamed[move.source] = move.source;
  }
  return compact_cold(g);
}

// Cooled pages stand together, and slabs without any are given back.
Status CacheImpl::compact_cold(std::uint32_t g) {
  for (std::uint32_t grade = 1; grade < geometry_.groups[g].grades; ++grade) {
    const auto slabs = static_cast<std::uint32_t>(divide_up(pools_[g].used_pages_of(grade), geometry_.groups[g].pages_per_slab));
    KVANT_TRY(compact(g, slabs, grade));
  }
  return {};
}

// Slabs of cooled pages that nobody holds any more are given back, and may be had under a limit; false: there are none.
bool CacheImpl::reclaim_cold() {
  if (open_step_ != nullptr) return false;  // it knows pages by their ids
  bool any = false;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const GroupGeometry& group = geometry_.groups[g];
    for (std::uint32_t grade = 1; grade < group.grades; ++grade) {
      std::uint64_t allocated = 0;
      for (std::uint32_t slab = grade * group.slab_count; slab < (grade + 1) * group.slab_count; ++slab) allocated += slabs_.allocated({g, slab}) ? 1 : 0;
      if (allocated <= divide_up(pools_[g].used_pages_of(grade), group.pages_per_slab)) continue;
      any = compact_cold(g).ok() || any;
      break;
    }
  }
  if (any) refresh_slab_limits();
  return any;
}

Result<CoolReport> CacheImpl::cool(const CoolSpec& spec) {
  KVANT_TRY(need_mass());
  KVANT_TRY(check_no_step("cool pages"));
  if (std::any_of(geometry_.groups.begin(), geometry_.groups.end(), [](const GroupGeometry& group) { return group.grades == 1; }))
    return Status(StatusCode::failed_precondition, "capacity_tokens (" + std::to_string(spec_.capacity_tokens) + ") leave no ids for cooled pages");
  CoolReport report;
  report.bytes_before = memory_use().pool_bytes;
  (void)reclaim_cold();
  KVANT_TRY(set_cold_formats(spec.formats));
  report.bytes_after = memory_use().pool_bytes;
  if (report.bytes_after <= spec.target_bytes) return report;
  std::vector<CoolGroup> groups;
  std::vector<CoolStep> steps;
  for (std::uint32_t g = 0; g < pools_.size(); ++g) {
    const GroupGeometry& group = geometry_.groups[g];
    CoolGroup facts;
    facts.pages_per_slab = group.pages_per_slab;
    for (std::uint32_t grade = 0; grade < group.grades; ++grade) {
      facts.used[grade] = pools_[g].used_pages_of(grade);
      facts.slab_bytes[grade].push_back(0);
      for (std::uint32_t slab = 0; slab < group.slab_count; ++slab)
        facts.slab_bytes[grade].push_back(facts.slab_bytes[grade].back() + slabs_.slab_bytes({g, grade * group.slab_count + slab}));
    }
    groups.push_back(std::move(facts));
    KVANT_TRY(add_cool_steps(g, static_cast<std::uint32_t>(1 + spec.formats.size()), coolable_pages(g, spec), steps));
  }
  KVANT_ASSIGN(const std::vector<CoolStep> moves, choose_cooled(std::move(groups), std::move(steps), report.bytes_after - slabs_.allocated_bytes(),
                                                                spec.target_bytes));
  const auto carry_out = [&]() -> Status {
    for (std::uint32_t g = 0; g < pools_.size(); ++g) {
      std::vector<CoolStep> own;
      std::copy_if(moves.begin(), moves.end(), std::back_inserter(own), [g](const CoolStep& move) { return move.group == g; });
      KVANT_TRY(cool_group(g, std::move(own)));
      KVANT_TRY(compact(g, static_cast<std::uint32_t>(divide_up(pools_[g].used_pages_of(0), geometry_.groups[g].pages_per_slab))));
    }
    report.pages = moves.size();
    return {};
  };
  const Status status = within_memory(carry_out);
  report.bytes_after = memory_use().pool_bytes;
  (void)within_memory([this]() -> Status {
    if (!reclaim_cold()) refresh_slab_limits();
    return {};
  });
  KVANT_TRY(status);
  event(EventKind::cooled, report.bytes_before, report.bytes_after);
  return report;
}

}  // namespace kvant
