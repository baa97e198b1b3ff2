// Prefixes with gaps: nodes of the index whose pages have left a sliding window, beside tiers and saved states that know more or less.
#include <doctest/doctest.h>

#include "host_prefix_model.hpp"
#include "state_plan.hpp"
#include "state_stream.hpp"
#include "tier_blob.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;
using Bytes = std::vector<std::byte>;

StateSink sink_of(Bytes& bytes) {
  return [&bytes](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return Status();
  };
}
StateSource source_of(const Bytes& bytes) {
  return [&bytes, at = std::size_t{0}](std::span<std::byte> out) mutable -> Result<std::size_t> {
    const std::size_t got = std::min(out.size(), bytes.size() - at);
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), got, out.begin());
    at += got;
    return got;
  };
}

TEST_CASE("host gaps: pages of a tier fill the gaps of a prefix, and stand nowhere else") {
  CacheSpec spec = PrefixModel::small(24);
  spec.layers[1].window = 20;
  PrefixModel model(spec);
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  const SequenceId a = model.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(model.append(a, counting(i * 16, 16)).ok());
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->drain_tiers().ok());
  Bytes bytes;
  StateSelection all;
  all.all_sequences = true;
  REQUIRE(model.cache->save_state(all, sink_of(bytes)).ok());
  model.destroy(a);
  REQUIRE(model.cache->clear_prefixes().ok());
  REQUIRE(model.used_pages() == 0);
  // What comes back has no pages of the windowed layer but those in its window.
  const auto loaded = model.cache->load_state(source_of(bytes));
  REQUIRE(loaded.ok());
  model.sequences[loaded.value().at(0).sequence] = {counting(0, 96), ""};
  model.check_all();
  model.check_references();
  // A shorter prefix needs pages that are missing: they come from the tier, to where they belong.
  CHECK(model.create(counting(0, 64)).reused_tokens == 64);
  model.check_references();
  // The second page's tokens alone are another prompt.
  CHECK(model.create(counting(16, 32)).reused_tokens == 0);
  model.check_all();
  model.check_references();
}

TEST_CASE("host gaps: a prefix whose window is not whole is not continued") {
  CacheSpec spec = PrefixModel::small(16);
  spec.layers[1].window = 20;
  PrefixModel from(spec), model(spec);
  const SequenceId a = from.create({}).sequence;
  for (int i = 0; i < 6; ++i) REQUIRE(from.append(a, counting(i * 16, 16)).ok());
  Bytes bytes;
  StateSelection all;
  all.all_sequences = true;
  REQUIRE(from.cache->save_state(all, sink_of(bytes)).ok());
  const auto loaded = model.cache->load_state(source_of(bytes));
  REQUIRE(loaded.ok());
  const SequenceId b = loaded.value().at(0).sequence;
  model.sequences[b] = {counting(0, 96), ""};
  const std::vector<std::int32_t> pages = cache_debug(*model.cache).sequence_pages(b, 1).value();
  CHECK(pages[2] == kNoPage);
  REQUIRE(pages[3] != kNoPage);  // the window's of the last step but one
  CHECK(model.create(counting(0, 96)).reused_tokens == 96);
  CHECK(model.create(counting(0, 100)).reused_tokens == 96);
  for (const std::size_t tokens : {95u, 84u, 80u}) CHECK(model.create(counting(0, tokens)).reused_tokens == 80);
  // The last 20 of the first 64 begin in the page that is gone.
  for (const std::size_t tokens : {79u, 64u, 32u, 16u}) CHECK(model.create(counting(0, tokens)).reused_tokens == 0);
  // Two pages are computed again: now the longest beginning without a gap is theirs.
  CHECK(model.prompt(counting(0, 32)).reused_tokens == 0);
  CHECK(model.create(counting(0, 64)).reused_tokens == 32);
  CHECK(model.create(counting(0, 96)).reused_tokens == 96);
  // Once more what has gaps, now where they are filled.
  const auto again = model.cache->load_state(source_of(bytes));
  REQUIRE(again.ok());
  model.sequences[again.value().at(0).sequence] = {counting(0, 96), ""};
  CHECK(model.create(counting(0, 64)).reused_tokens == 32);
  model.check_all();
  model.check_references();
}

TEST_CASE("host gaps: a saved state that names a page twice for different tokens is refused") {
  PrefixModel model(PrefixModel::small(8));
  const auto load = [&](auto change) {
    Bytes bytes;
    StateWriter writer(sink_of(bytes));
    REQUIRE(writer.begin().ok());
    RecordFields fields;
    write_state_header(model.spec, cache_debug(*model.cache).prefix_index()->content(), {}, fields);
    REQUIRE(writer.record(StateRecord::header, fields.data()).ok());
    const std::uint32_t token_bytes[] = {32 * 2 * 2, 2 * 32 * (4 + 2)};
    for (std::uint32_t g = 0; g < 2; ++g)
      for (int page = 0; page < 2; ++page) {
        fields.clear();
        fields.u32(g);
        fields.u32(16);
        fields.bytes(Bytes(token_bytes[g] * 16));
        REQUIRE(writer.record(StateRecord::page, fields.data()).ok());
      }
    std::vector<SavedSequence> sequences(2);
    for (std::size_t i = 0; i < 2; ++i) {
      sequences[i].id = 5 + i;
      sequences[i].length = 32;
      sequences[i].tokens = counting(0, 32);
      sequences[i].tables = {{0, 1}, {0, 1}};
    }
    change(sequences);
    for (const SavedSequence& sequence : sequences) {
      fields.clear();
      write_state_sequence(sequence, fields);
      REQUIRE(writer.record(StateRecord::sequence, fields.data()).ok());
    }
    REQUIRE(writer.end().ok());
    return model.cache->load_state(source_of(bytes));
  };
  const auto refused = [&](auto change) {
    CHECK(load(change).status().code() == StatusCode::data_loss);
    CHECK(model.used_pages() == 0);
  };
  refused([](std::vector<SavedSequence>& s) { s[0].tables = {{0, 0}, {0, 1}}; });
  refused([](std::vector<SavedSequence>& s) { s[1].tables = {{0, 1}, {1, 0}}; });
  refused([](std::vector<SavedSequence>& s) { s[1].tokens = counting(7, 32); });
  refused([](std::vector<SavedSequence>& s) { s[1].salt = "other"; });
  // Known tokens of one and unknown ones of the other may share, as a fork does.
  const auto good = load([](std::vector<SavedSequence>& s) { s[1].tokens.clear(); });
  REQUIRE(good.ok());
  for (const LoadedSequence& sequence : good.value()) CHECK(model.cache->destroy_sequence(sequence.sequence).ok());
  CHECK(model.cache->clear_prefixes().ok());
  CHECK(model.used_pages() == 0);
}

TEST_CASE("host gaps: pages from a tier get the priority and the time of the sequence that brings them") {
  PrefixModel model(PrefixModel::small(8));
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  model.destroy(model.prompt(counting(0, 32)).sequence);
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->clear_prefixes().ok());
  SequenceSpec spec;
  const Tokens prompt = counting(0, 32);
  spec.tokens = prompt;
  spec.priority = 7;
  spec.ttl_ms = 500;
  CHECK(model.cache->create_sequence(spec).value().reused_tokens == 32);
  for (const PrefixNode* node : cache_debug(*model.cache).prefix_index()->nodes()) {
    CHECK(node->facts.priority == 7);
    CHECK(node->facts.ttl_ms == 500);
  }
}

TEST_CASE("host gaps: a hit tells the tier that it came from") {
  PrefixModel model(PrefixModel::small(8));
  std::vector<std::unique_ptr<Tier>> tiers;
  tiers.push_back(make_memory_tier(1));  // takes nothing
  tiers.push_back(make_memory_tier(1u << 24));
  REQUIRE(model.cache->set_tiers(std::move(tiers), {}).ok());
  model.destroy(model.prompt(counting(0, 32)).sequence);
  REQUIRE(model.cache->store_prefixes().ok());
  REQUIRE(model.cache->drain_tiers().ok());
  REQUIRE(model.cache->clear_prefixes().ok());
  CHECK(model.create(counting(0, 32)).reused_tokens == 32);
  int hits = 0;
  for (const Event& event : model.cache->events(0, 4096).events) {
    if (event.kind != EventKind::tier_hit) continue;
    ++hits;
    CHECK(event.b == 1);
  }
  CHECK(hits == 2);
}

TEST_CASE("host gaps: an entry of a tier is whole, and no more than that") {
  PrefixModel model(PrefixModel::small(8));
  const Geometry& geometry = cache_debug(*model.cache).geometry();
  const GroupBlobs blobs{Bytes(16 * 32 * 2 * 2, std::byte{5}), {}};
  const Bytes entry = pack_tier_blob(geometry, {}, blobs);
  CHECK(unpack_tier_blob(geometry, {}, entry) == blobs);
  Bytes longer = entry, other = entry;
  longer.push_back(std::byte{0});
  other[0] = std::byte{2};
  CHECK_FALSE(unpack_tier_blob(geometry, {}, longer).has_value());
  CHECK_FALSE(unpack_tier_blob(geometry, {}, other).has_value());
  CHECK_FALSE(unpack_tier_blob(geometry, {}, std::span(entry).first(1)).has_value());
}

TEST_CASE("host gaps: a sequence is saved once, prefixes with their priority and time; both are events") {
  PrefixModel from(PrefixModel::small(8)), to(PrefixModel::small(8));
  SequenceSpec spec;
  const Tokens prompt = counting(0, 40);
  spec.tokens = prompt;
  spec.priority = 9;
  spec.ttl_ms = 700;
  const SequenceId a = from.cache->create_sequence(spec).value().sequence;
  from.sequences[a] = {};
  REQUIRE(from.append(a, prompt, false).ok());
  const std::vector<SequenceId> twice{a, a};
  Bytes bytes;
  StateSelection selection;
  selection.sequences = twice;
  REQUIRE(from.cache->save_state(selection, sink_of(bytes)).ok());
  const auto loaded = to.cache->load_state(source_of(bytes)).value();
  REQUIRE(loaded.size() == 1);
  const auto last_event = [](PrefixModel& model) { return model.cache->events(0, 4096).events.back(); };
  CHECK(last_event(from).kind == EventKind::save);
  CHECK(last_event(from).a == bytes.size());
  CHECK(last_event(from).b == 40);
  CHECK(last_event(from).sequence == static_cast<std::uint64_t>(a));
  CHECK(last_event(to).kind == EventKind::load);
  CHECK(last_event(to).a == bytes.size());
  CHECK(last_event(to).b == 40);
  CHECK(last_event(to).sequence == static_cast<std::uint64_t>(loaded[0].sequence));

  PrefixModel third(PrefixModel::small(8));
  bytes.clear();
  StateSelection prefixes;
  prefixes.prefixes = true;
  REQUIRE(from.cache->save_state(prefixes, sink_of(bytes)).ok());
  CHECK(third.cache->load_state(source_of(bytes)).value().empty());
  CHECK(last_event(third).sequence == 0);
  for (PrefixModel* model : {&to, &third}) {
    const auto nodes = cache_debug(*model->cache).prefix_index()->nodes();
    CHECK(nodes.size() == 2);
    for (const PrefixNode* node : nodes) {
      CHECK(node->facts.priority == 9);
      CHECK(node->facts.ttl_ms == 700);
    }
  }
}

}  // namespace
}  // namespace kvant
