// Loading a saved state: what its records may say of pages and sequences, and states that go up and down in several pieces.
#include <doctest/doctest.h>

#include <algorithm>

#include "host_prefix_model.hpp"
#include "state_plan.hpp"

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
StateSource source_of(std::span<const std::byte> bytes) {
  return [bytes](std::span<std::byte> out) mutable -> Result<std::size_t> {
    const std::size_t size = std::min(out.size(), bytes.size());
    std::copy_n(bytes.begin(), size, out.begin());
    bytes = bytes.subspan(size);
    return size;
  };
}

// A state of two pages a group, of `tokens` and 16 tokens, and one sequence.
struct Written {
  std::uint32_t tokens = 16;
  std::size_t more_bytes = 0;  // of the first page of the first group
  SavedSequence sequence;
  Written() {
    sequence.id = 5;
    sequence.length = 32;
    sequence.tables = {{0, 1}, {0, 1}};
  }
};

Result<std::vector<LoadedSequence>> load(PrefixModel& model, const Written& written) {
  Bytes bytes;
  StateWriter writer(sink_of(bytes));
  REQUIRE(writer.begin().ok());
  RecordFields fields;
  write_state_header(model.spec, cache_debug(*model.cache).prefix_index()->content(), {}, fields);
  REQUIRE(writer.record(StateRecord::header, fields.data()).ok());
  const std::size_t token_bytes[] = {32 * 2 * 2, 2 * 32 * (4 + 2)};
  for (std::uint32_t g = 0; g < 2; ++g)
    for (int page = 0; page < 2; ++page) {
      const std::uint32_t tokens = page == 0 ? written.tokens : 16;
      fields.clear();
      fields.u32(g);
      fields.u32(tokens);
      fields.bytes(Bytes(token_bytes[g] * tokens + (g == 0 && page == 0 ? written.more_bytes : 0)));
      REQUIRE(writer.record(StateRecord::page, fields.data()).ok());
    }
  fields.clear();
  write_state_sequence(written.sequence, fields);
  REQUIRE(writer.record(StateRecord::sequence, fields.data()).ok());
  REQUIRE(writer.end().ok());
  return model.cache->load_state(source_of(bytes));
}

TEST_CASE("host state_load: pages must be as long as a sequence takes them to be, and neither more nor fewer") {
  PrefixModel model(PrefixModel::small(8));
  const auto refused = [&](auto change, const std::string& message) {
    Written written;
    change(written);
    const auto loaded = load(model, written);
    CHECK(loaded.status().code() == StatusCode::data_loss);
    CHECK(loaded.status().message() == "the saved state is wrong: " + message);
    CHECK(model.used_pages() == 0);
  };
  refused([](Written& w) { w.more_bytes = 1; }, "a page of 16 tokens has 2049 bytes; expected 2048");
  refused([](Written& w) { w.tokens = 15; }, "a sequence names page 0 of layer group 0");
  refused([](Written& w) { w.tokens = 15, w.sequence.tables[0] = {1, 1}; }, "a sequence names page 0 of layer group 1");
  refused([](Written& w) { w.sequence.tables[1] = {0, 1, 1}; }, "a sequence of 32 tokens has 3 pages");
  refused([](Written& w) { w.sequence.tables[1] = {0}; }, "a sequence of 32 tokens has 1 pages");
  refused([](Written& w) { w.sequence.length = 33; }, "a sequence of 33 tokens has 2 pages");
  refused([](Written& w) { w.sequence.length = std::uint64_t{1} << 31; }, "a sequence has 2147483648 tokens");
  refused([](Written& w) { w.sequence.tables[0] = {0, 2}; }, "a sequence names page 2 of layer group 0");
  refused([](Written& w) { w.sequence.tables[1] = {0, kNoPage}; }, "page 1 of a sequence is missing");

  Written good;
  good.tokens = 3;
  good.sequence.length = 19;
  good.sequence.tables = {{1, 0}, {1, 0}};
  const auto loaded = load(model, good);
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  CHECK(model.cache->sequence_length(loaded.value().at(0).sequence).value() == 19);
  CHECK(model.used_pages() == 4);
}

TEST_CASE("host state_load: pages that no sequence names are not kept") {
  PrefixModel model(PrefixModel::small(8));
  Written written;
  written.sequence.length = 16;
  written.sequence.tables = {{1}, {0}};
  const auto loaded = load(model, written);
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  CHECK(model.used_pages() == 2);
  REQUIRE(model.cache->destroy_sequence(loaded.value().at(0).sequence).ok());
  CHECK(model.used_pages() == 0);
}

TEST_CASE("host state_load: states longer than what goes up and down at once") {
  // 128 KiB a page, so that 256 of them are one piece.
  CacheSpec spec = PrefixModel::small(280);
  spec.layers = {{4, 256, 256, FormatId::f32, FormatId::f32, 0, 0}};
  PrefixModel from(spec, 64), to(spec, 64);
  const SequenceId a = from.create({}).sequence;
  REQUIRE(from.append(a, counting(0, 270 * 16 + 5)).ok());
  Bytes bytes;
  StateSelection all;
  all.all_sequences = true;
  REQUIRE(from.cache->save_state(all, sink_of(bytes)).ok());
  CHECK(bytes.size() > (33u << 20));
  const auto loaded = to.cache->load_state(source_of(bytes));
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  to.sequences[loaded.value().at(0).sequence] = from.sequences.at(a);
  to.check_all();
  to.check_references();
}

}  // namespace
}  // namespace kvant
