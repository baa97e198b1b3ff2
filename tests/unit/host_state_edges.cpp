// The stream of a saved state and what its records say, at their edges: each field of the header, counts that lie, pages that
// several sequences fill to different places, sinks and sources that fail or overdo it at any call.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

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
StateSource source_of(std::span<const std::byte> bytes, std::size_t piece = SIZE_MAX) {
  return [bytes, piece](std::span<std::byte> out) mutable -> Result<std::size_t> {
    const std::size_t size = std::min({piece, out.size(), bytes.size()});
    std::copy_n(bytes.begin(), size, out.begin());
    bytes = bytes.subspan(size);
    return size;
  };
}
StateSelection everything() {
  StateSelection selection;
  selection.all_sequences = true;
  selection.prefixes = true;
  return selection;
}

// Where the records of a stream begin, and its end.
std::vector<std::size_t> records_of(const Bytes& bytes) {
  std::vector<std::size_t> places;
  std::size_t at = 16;
  while (at < bytes.size()) {
    places.push_back(at);
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at + 8, sizeof size);
    at += 32 + size;
  }
  places.push_back(at);
  REQUIRE(at == bytes.size());
  return places;
}

// Why a stream cannot be read; empty: it can.
std::string complaint(std::span<const std::byte> bytes) {
  StateReader reader(source_of(bytes));
  if (const Status status = reader.begin(); !status.ok()) return status.message();
  while (true) {
    const Result<StateRecord> type = reader.next();
    if (!type.ok()) return type.status().message();
    if (type.value() == StateRecord::end) return {};
  }
}

TEST_CASE("host state_stream: payloads longer than a piece come back whole") {
  constexpr std::size_t kPiece = 1u << 20;
  for (const std::size_t size : {kPiece - 1, kPiece, kPiece + 1, 3 * kPiece + 77}) {
    CAPTURE(size);
    Bytes payload(size), bytes;
    test::Random random(size);
    for (std::byte& byte : payload) byte = static_cast<std::byte>(random.below(256));
    StateWriter writer(sink_of(bytes));
    REQUIRE(writer.begin().ok());
    REQUIRE(writer.record(StateRecord::page, payload).ok());
    REQUIRE(writer.end().ok());
    StateReader reader(source_of(bytes, 300'001));
    REQUIRE(reader.begin().ok());
    REQUIRE(reader.next().value() == StateRecord::page);
    CHECK(std::equal(payload.begin(), payload.end(), reader.payload().begin(), reader.payload().end()));
    CHECK(reader.next().value() == StateRecord::end);
    CHECK(reader.payload().empty());
  }
}

TEST_CASE("host state_stream: a record's type, size and place are under its checksum") {
  Bytes bytes;
  StateWriter writer(sink_of(bytes));
  REQUIRE(writer.begin().ok());
  RecordFields fields;
  fields.u64(7);
  for (int i = 0; i < 3; ++i) REQUIRE(writer.record(StateRecord::sequence, fields.data()).ok());
  REQUIRE(writer.end().ok());
  CHECK(complaint(bytes).empty());
  const std::vector<std::size_t> places = records_of(bytes);
  const auto changed = [&](std::size_t at, std::uint64_t value, std::size_t size) {
    Bytes other = bytes;
    std::memcpy(other.data() + at, &value, size);
    return other;
  };
  // The last record but one as the end, and nothing behind it.
  Bytes cut = changed(places[2] + 4, static_cast<std::uint64_t>(StateRecord::end), 4);
  cut.resize(places[3]);
  CHECK(complaint(cut) == "record 2 of the saved state does not have its checksum");
  CHECK(complaint(changed(places[1] + 16, 0, 8)) == "record 1 of the saved state has the number of another one");
  CHECK(complaint(changed(places[1], 0, 4)) == "record 1 of the saved state does not begin as one");
  CHECK(complaint(changed(places[1] + 8, (std::uint64_t{1} << 35) + 1, 8)) ==
        "record 1 of the saved state says that it has 34359738369 bytes");
  // Equal records at each other's place: only the number in their headers tells.
  Bytes swapped = bytes;
  std::swap_ranges(swapped.begin() + static_cast<std::ptrdiff_t>(places[0]), swapped.begin() + static_cast<std::ptrdiff_t>(places[1]),
                   swapped.begin() + static_cast<std::ptrdiff_t>(places[1]));
  CHECK(complaint(swapped) == "record 0 of the saved state has the number of another one");
  const std::uint64_t zero = 0, one = 1;
  std::memcpy(swapped.data() + places[0] + 16, &zero, sizeof zero);
  std::memcpy(swapped.data() + places[1] + 16, &one, sizeof one);
  CHECK(complaint(swapped) == "record 0 of the saved state does not have its checksum");
}

TEST_CASE("host state_stream: a source that gives more than was asked for is refused") {
  StateReader reader([](std::span<std::byte> out) -> Result<std::size_t> { return out.size() + 1; });
  const Status status = reader.begin();
  CHECK(status.code() == StatusCode::data_loss);
  CHECK(status.message().find("came with more bytes than were asked for") != std::string::npos);
}

TEST_CASE("host state_stream: behind the end of a record all is zero") {
  RecordFields fields;
  fields.u32(5);
  fields.u32(6);
  FieldReader reader(fields.data());
  CHECK(reader.u32() == 5);
  CHECK(reader.u64() == 0);
  CHECK_FALSE(reader.ok());
  CHECK(reader.u32() == 0);  // would be there, but nobody knows any more what it is
  CHECK_FALSE(reader.finished());
}

TEST_CASE("host state_plan: a page is saved as far as its longest owner filled it, once") {
  StatePlan plan(2);
  SavedSequence a, b, c;
  a.length = 40;
  a.tables = {{7, 5, 9}, {kNoPage, 3, 2}};
  b.length = 35;
  b.tables = {{7, 5, 9}, {kNoPage, 3, 4}};
  c.length = 20;
  c.tables = {{7, 8}, {6, 3}};
  for (const SavedSequence& sequence : {a, b, c}) plan.add(sequence, 16);
  const auto pages = [&](std::size_t group) {
    std::vector<std::array<std::uint32_t, 2>> found;
    for (const FilledPage& page : plan.pages(group)) found.push_back({page.page, page.tokens});
    return found;
  };
  CHECK(pages(0) == std::vector<std::array<std::uint32_t, 2>>{{7, 16}, {5, 16}, {9, 8}, {8, 4}});
  CHECK(pages(1) == std::vector<std::array<std::uint32_t, 2>>{{3, 16}, {2, 8}, {4, 3}, {6, 16}});
  CHECK(plan.sequences()[1].tables == std::vector<std::vector<std::int32_t>>{{0, 1, 2}, {kNoPage, 0, 2}});
  CHECK(plan.sequences()[2].tables == std::vector<std::vector<std::int32_t>>{{0, 3}, {3, 0}});
}

TEST_CASE("host state_plan: a sequence comes back field by field, and nothing behind it") {
  SavedSequence saved;
  saved.id = 0x1122334455667788;
  saved.length = 33;
  saved.tokens = {1, -2, 300000};
  saved.salt = "salt";
  saved.publish = {42, 0x123456789A};
  saved.pruned = true;
  saved.least_length = 0x1234567890;
  saved.tables = {{0, 1, kNoPage}, {kNoPage, 2, 3}};
  RecordFields fields;
  write_state_sequence(saved, fields);
  SavedSequence back;
  FieldReader reader(fields.data());
  REQUIRE(read_state_sequence(reader, 2, back));
  CHECK(back.id == saved.id);
  CHECK(back.length == saved.length);
  CHECK(back.tokens == saved.tokens);
  CHECK(back.salt == saved.salt);
  CHECK(back.publish.priority == 42);
  CHECK(back.publish.ttl_ms == saved.publish.ttl_ms);
  CHECK(back.tables == saved.tables);
  CHECK(back.pruned);
  CHECK(back.least_length == saved.least_length);
  const Bytes whole(fields.data().begin(), fields.data().end());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    FieldReader cut{std::span(whole).first(size)};
    SavedSequence none;
    CHECK_FALSE(read_state_sequence(cut, 2, none));
  }
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  FieldReader more(longer);
  SavedSequence none;
  CHECK_FALSE(read_state_sequence(more, 2, none));
  // Counts beyond all memory: of tokens, then of pages.
  const std::size_t tokens_at = 8 + 8 + 4 + 8 + 4 + 8 + 8 + 4, pages_at = tokens_at + 8 + 3 * 4;
  for (const std::size_t at : {tokens_at, pages_at})
    for (const std::uint64_t count : {std::uint64_t{1} << 62, std::uint64_t{1} << 40, ~std::uint64_t{0}, std::uint64_t{100}}) {
      Bytes lying = whole;
      std::memcpy(lying.data() + at, &count, sizeof count);
      FieldReader liar(lying);
      SavedSequence nothing;
      CHECK_FALSE(read_state_sequence(liar, 2, nothing));
    }
}

TEST_CASE("host state_plan: the header names the first field of a layer that differs") {
  CacheSpec spec = PrefixModel::small(8);
  spec.layers[1].window = 64;
  const PrefixKey content = sha256({});
  const auto answer = [&](const CacheSpec& saved, const PrefixKey& key, std::size_t more = 0) {
    RecordFields fields;
    write_state_header(saved, key, {}, fields);
    Bytes bytes(fields.data().begin(), fields.data().end());
    bytes.resize(bytes.size() + more);
    return check_state_header(spec, content, FieldReader(bytes), {});
  };
  CHECK(answer(spec, content).ok());
  CHECK(answer(spec, content, 1).code() == StatusCode::data_loss);
  CHECK(answer(spec, sha256(content.bytes)).code() == StatusCode::data_loss);
  const auto differs = [&](auto change, const std::string& message) {
    CacheSpec other = spec;
    change(other.layers[1]);
    const Status status = answer(other, content);
    CHECK(status.code() == StatusCode::incompatible);
    CHECK(status.message() == message);
  };
  const auto text = [](const char* field, const char* saved, const char* own) {
    return std::string(field) + " of layer 1 of the saved state is " + saved + "; this cache has " + own;
  };
  differs([](LayerSpec& l) { l.kv_heads = 3; }, text("kv_heads", "3", "2"));
  differs([](LayerSpec& l) { l.head_dim_k = 40; }, text("head_dim_k", "40", "32"));
  differs([](LayerSpec& l) { l.head_dim_v = 48; }, text("head_dim_v", "48", "32"));
  differs([](LayerSpec& l) { l.window = 65; }, text("window", "65", "64"));
  differs([](LayerSpec& l) { l.window_sinks = 4; }, text("window_sinks", "4", "0"));
  differs([](LayerSpec& l) { l.format_k = FormatId::f16; }, text("a format", "f16", "f32"));
  differs([](LayerSpec& l) { l.rotate_v = true; }, text("a format", "f16 rotated", "f16"));
  differs([](LayerSpec& l) { l.centre_v = l.rotate_v = true; }, text("a format", "f16 centred rotated", "f16"));
  differs([](LayerSpec& l) { l.format_v = FormatId::bf16; }, text("a format", "bf16", "f16"));
}

TEST_CASE("host state: of a chain of the prefix cache its end is saved, once") {
  PrefixModel from(PrefixModel::small(16));
  from.destroy(from.prompt(counting(0, 64)).sequence);
  from.destroy(from.prompt(counting(0, 32)).sequence);
  Bytes bytes;
  REQUIRE(from.cache->save_state(everything(), sink_of(bytes)).ok());
  CHECK(records_of(bytes).size() - 1 == 1 + 2 * 4 + 1 + 1);  // the header, pages of two groups, a sequence, the end
}

TEST_CASE("host state: a sink that fails at any call fails the save") {
  PrefixModel from(PrefixModel::small(16));
  from.prompt(counting(0, 20));
  from.prompt(counting(100, 3));
  int calls = 0;
  const auto save = [&](int failing) {
    calls = 0;
    return from.cache->save_state(everything(), [&](std::span<const std::byte>) {
      return ++calls == failing ? Status(StatusCode::unavailable, "no more") : Status();
    });
  };
  REQUIRE(save(0).ok());
  const int all = calls;
  CHECK(all > 10);
  for (int failing = 1; failing <= all; ++failing) {
    CAPTURE(failing);
    CHECK(save(failing).message() == "no more");
    CHECK(calls == failing);
  }
}

}  // namespace
}  // namespace kvant
