// Cooled pages and those who know pages by their ids: open steps, tables whose pages take others' places, tiers.
#include <doctest/doctest.h>

#include <numeric>
#include <set>

#include "host_cooling_model.hpp"
#include "tier.hpp"

namespace kvant {
namespace {

using test::cool_spec;
using test::CoolingModel;
using test::entry;

CacheSpec one_layer(std::uint64_t tokens) {
  CacheSpec spec = cool_spec(tokens);
  spec.layers = {{2, 64, 64, FormatId::q4_0, FormatId::f16, 0, 0}};
  return spec;
}

// Two sequences of 160 tokens, all cooled that may be; then the first is gone, and left holes between the other's cold pages.
SequenceId leave_holes(CoolingModel& model) {
  model.formats = {FormatId::t3};
  const SequenceId first = model.create(), second = model.create();
  for (int i = 0; i < 10; ++i) model.append({entry(first, 16, 1), entry(second, 16, 1)});
  const std::string text = model.cool(1).status().message();
  REQUIRE(model.cool(std::stoull(text.substr(text.rfind(' ') + 1))).ok());
  REQUIRE(model.cooled_pages(0) > 10);
  model.destroy(first);
  model.grades.erase(first);
  return second;
}

std::size_t held_pages(const CoolingModel& model) {
  std::set<std::int32_t> held;
  for (const auto& [id, tokens] : model.sequences)
    for (const std::int32_t page : model.pages_of(id, 0)) held.insert(page);
  return held.size();
}

TEST_CASE("host cooling: pages of an open step keep their ids, whatever else wants room") {
  CoolingModel model(one_layer(512), 1, 1);
  const SequenceId id = leave_holes(model);
  const SequenceId filler = model.create();
  const MemoryUse use = model.cache->memory_use();
  model.append({entry(filler, static_cast<std::uint32_t>((use.total_pages - use.used_pages) * 16 - 5), 0)});
  model.append({entry(id, 0, 1)});
  const auto pages = model.pages_of(id, 0);
  const StepEntry more = entry(filler, 1, 1);
  {
    const auto step = model.cache->plan({&more, 1});
    REQUIRE(step.ok());
    CHECK(model.cache->fork_sequence(filler, 17).status().code() == StatusCode::resource_exhausted);
    CHECK(model.pages_of(id, 0) == pages);
  }
  // Without a step what nobody holds is closed up.
  CHECK(model.cache->fork_sequence(filler, 17).status().code() == StatusCode::resource_exhausted);
  CHECK(model.pages_of(id, 0) != pages);
  model.check_reads();
}

TEST_CASE("host cooling: an open page that is cold comes back though memory for it was refused at first") {
  CoolingModel model(one_layer(512), 1, 2);
  const SequenceId id = leave_holes(model);
  model.truncate(id, 16 * 7 + 5);
  for (auto& of_layer : model.grades[id]) of_layer.resize(8);
  const auto cold = model.pages_of(id, 0);
  REQUIRE(model.grade_of(0, cold.back()) == 1);
  model.executor.fail_create = 0;
  model.append({entry(id, 100, 1)});
  CHECK(model.executor.fail_create == -1);
  CHECK(model.pages_of(id, 0).front() == cold.front());
  const auto now = model.pages_of(id, 0);
  CHECK_FALSE(std::equal(cold.begin() + 1, cold.end() - 1, now.begin() + 1));  // cold ones had other ids when it was tried again
  CHECK(model.cache->memory_use().used_pages == held_pages(model));
  model.check_reads();
  model.append({entry(id, 40, 1)});
  model.destroy(id);
  CHECK(model.cache->memory_use().used_pages == 0);
}

TEST_CASE("host cooling: keys become of another format while the weight of V is not what it was when it cooled") {
  for (const bool spared_then : {false, true}) {
    CAPTURE(spared_then);
    CoolingModel model(cool_spec(512), 2, 3);
    model.options.mass = true;
    const SequenceId id = model.create();
    model.append({entry(id, 250, 250)});
    model.options.mass = false;
    REQUIRE(model.cache->set_sensitivity(0, Side::v, spared_then ? -1.0 : 1.0).ok());
    const std::string text = model.cache->cool({.target_bytes = 1, .sinks = 1, .recent = 1}).status().message();
    REQUIRE(model.cache->cool({.target_bytes = std::stoull(text.substr(text.rfind(' ') + 1)), .sinks = 1, .recent = 1}).ok());
    const auto v = [&] {
      std::vector<float> rows(std::size_t{250} * 2 * 32);
      TensorView view;
      view.host = reinterpret_cast<std::byte*>(rows.data());
      REQUIRE(model.cache->read(id, 0, Side::v, 0, 250, view).ok());
      return rows;
    };
    const std::vector<float> before = v();
    REQUIRE(model.cooled_pages(0) != 0);
    REQUIRE(model.cache->set_sensitivity(0, Side::v, spared_then ? 1.0 : -1.0).ok());
    const Status status = model.cache->convert(0, Side::k, FormatId::f16);
    REQUIRE_MESSAGE(status.ok(), status.message());
    CHECK(v() == before);
  }
}

// Entries that a tier holds after `work` on a sequence of 8 pages of which the first five are cold.
template <typename Work>
std::uint64_t stored(Work&& work) {
  CacheSpec spec = one_layer(512);
  spec.prefix_cache = true;
  CoolingModel model(spec, 1, 4);
  model.formats = {FormatId::t3};
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  std::vector<std::int32_t> ids(128);
  std::iota(ids.begin(), ids.end(), 1);
  const SequenceId id = model.create();
  StepEntry prompt = entry(id, 128, 0);
  prompt.tokens = ids.data();
  model.append({prompt});
  const std::string text = model.cool(1, 0, 48).status().message();
  REQUIRE(model.cool(std::stoull(text.substr(text.rfind(' ') + 1)), 0, 48).ok());
  REQUIRE(model.cooled_pages(0) == 5);
  work(model, id, ids);
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->drain_tiers().ok());
  return model.cache->tier_stats()->tiers.front().stats.entries;
}

TEST_CASE("host cooling: tiers get no page that was ever cold, nor copies of one") {
  using Ids = std::vector<std::int32_t>;
  CHECK(stored([](CoolingModel&, SequenceId, Ids&) {}) == 3);
  // A cold page is cut, comes back to its layer's format and is published with other tokens; two more are computed behind it.
  CHECK(stored([](CoolingModel& model, SequenceId id, Ids& ids) {
          model.truncate(id, 56);
          for (auto& of_layer : model.grades[id]) of_layer.resize(4);
          for (std::size_t i = 56; i < ids.size(); ++i) ids[i] += 1000;
          StepEntry rest = entry(id, 40, 0);
          rest.tokens = ids.data() + 56;
          model.append({rest});
          model.check_reads();
        }) == 3 + 2);
  // Tokens that were brought together out of cold pages, told anew.
  CHECK(stored([&](CoolingModel& model, SequenceId id, Ids& ids) {
          std::vector<std::uint64_t> kept;
          for (std::uint64_t token = 0; token < 128; ++token)
            if (token != 20) kept.push_back(token);
          REQUIRE(model.cache->keep_tokens(id, kept).ok());
          model.keep(id, kept);
          model.check_reads();
          for (std::size_t i = 16; i < ids.size(); ++i) ids[i] += 2000;
          const Status told = model.cache->identify(id, std::span(ids).first(127));
          REQUIRE_MESSAGE(told.ok(), told.message());
        }) == 3);
}

}  // namespace
}  // namespace kvant
