// Saving and loading a cache: what comes back is what was saved, shared as it was; anything wrong with the bytes is seen, and then
// nothing has changed.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "atomic_file.hpp"
#include "host_prefix_model.hpp"
#include "state_plan.hpp"

namespace kvant {
namespace {

using test::counting;
using test::PrefixModel;
using test::Tokens;
using Bytes = std::vector<std::byte>;

Bytes save(Cache& cache, const StateSelection& selection) {
  Bytes bytes;
  const Status status = cache.save_state(selection, [&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return Status();
  });
  REQUIRE_MESSAGE(status.ok(), status.message());
  return bytes;
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

// Loads into `to` and adds what came to its model.
void load(PrefixModel& to, const std::map<SequenceId, PrefixModel::Known>& saved, std::span<const std::byte> bytes) {
  const auto loaded = to.cache->load_state(source_of(bytes, 7));
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  CHECK(loaded.value().size() == saved.size());
  for (const LoadedSequence& sequence : loaded.value()) to.sequences[sequence.sequence] = saved.at(sequence.saved);
  to.check_all();
  to.check_references();
}

void fill(PrefixModel& model) {
  const SequenceId a = model.prompt(counting(0, 50)).sequence;
  model.fork(a, 40);
  model.prompt(counting(0, 20), "salt");
  model.destroy(model.prompt(counting(500, 40)).sequence);
  model.create({});
}

TEST_CASE("host state: a cache comes back on another device, shared as it was") {
  PrefixModel from(PrefixModel::small(32)), to(PrefixModel::small(40), 5);
  fill(from);
  const Bytes bytes = save(*from.cache, everything());
  to.destroy(to.prompt(counting(900, 30)).sequence);
  const std::uint64_t before = to.used_pages();
  load(to, from.sequences, bytes);
  CHECK(to.used_pages() - before == from.used_pages());
  CHECK(to.create(counting(500, 40)).reused_tokens == 32);
  CHECK(to.create(counting(0, 50)).reused_tokens == 48);
  CHECK(to.create(counting(0, 20), "salt").reused_tokens == 16);
  // Once more into the same cache: what is known already is not held twice.
  const std::uint64_t once = to.used_pages();
  load(to, from.sequences, bytes);
  CHECK(to.used_pages() - once == 2 * 3);  // the open pages of three sequences
}

TEST_CASE("host state: one sequence, with tokens of every kind of page") {
  CacheSpec spec = PrefixModel::small(16);
  spec.layers[1].window = 20;
  spec.layers[1].window_sinks = 3;
  PrefixModel from(spec), to(spec, 1);
  const SequenceId a = from.create({}).sequence;
  from.prompt(counting(300, 16));
  for (int i = 0; i < 7; ++i) REQUIRE(from.append(a, counting(i * 10, 10)).ok());
  StateSelection one;
  one.sequences = {&a, 1};
  const Bytes bytes = save(*from.cache, one);
  std::map<SequenceId, PrefixModel::Known> known = {{a, from.sequences[a]}};
  load(to, known, bytes);
  const SequenceId b = to.sequences.begin()->first;
  REQUIRE(to.append(b, counting(70, 10)).ok());
  to.check_all();
  const SequenceId gone{77};
  StateSelection missing;
  missing.sequences = {&gone, 1};
  CHECK(from.cache->save_state(missing, [](auto) { return Status(); }).code() == StatusCode::not_found);
}

TEST_CASE("host state: every flipped bit and every cut is seen, and nothing changes") {
  CacheSpec spec = PrefixModel::small(8);
  spec.layers = {{1, 32, 32, FormatId::q4_0, FormatId::q4_0, 0, 0}};
  PrefixModel from(spec), to(spec);
  // Values of q4_0 are not the model's: only sizes matter here.
  const SequenceId a = from.cache->create_sequence().value();
  StepEntry entry;
  entry.sequence = a;
  entry.append = 3;
  auto step = from.cache->plan({&entry, 1});
  std::vector<float> rows(3 * 32, 0.5f);
  RunArgs args;
  args.k.host = args.v.host = reinterpret_cast<std::byte*>(rows.data());
  REQUIRE(from.cache->run(*step.value(), 0, args).ok());
  REQUIRE(from.cache->commit(std::move(step).value()).ok());
  Bytes bytes = save(*from.cache, everything());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    CAPTURE(bit);
    bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    const auto loaded = to.cache->load_state(source_of(bytes));
    REQUIRE_FALSE(loaded.ok());
    REQUIRE((loaded.status().code() == StatusCode::data_loss || loaded.status().code() == StatusCode::incompatible));
    REQUIRE(to.used_pages() == 0);
    bytes[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  }
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    REQUIRE_FALSE(to.cache->load_state(source_of(std::span(bytes).first(size))).ok());
    REQUIRE(to.used_pages() == 0);
  }
  bytes.push_back(std::byte{0});
  CHECK(to.cache->load_state(source_of(bytes)).status().code() == StatusCode::data_loss);
  bytes.pop_back();
  CHECK(to.cache->load_state(source_of(bytes)).ok());
}

TEST_CASE("host state: whole records that lie are refused") {
  PrefixModel from(PrefixModel::small(8));
  from.prompt(counting(0, 20));
  const CacheSpec& spec = from.spec;
  const auto refused = [&](auto write, const char* part) {
    Bytes bytes;
    StateWriter writer([&](std::span<const std::byte> piece) {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return Status();
    });
    REQUIRE(writer.begin().ok());
    write(writer);
    REQUIRE(writer.end().ok());
    const std::uint64_t before = from.used_pages();
    const auto loaded = from.cache->load_state(source_of(bytes));
    CHECK_FALSE(loaded.ok());
    CHECK_MESSAGE(loaded.status().message().find(part) != std::string::npos, loaded.status().message());
    CHECK(from.used_pages() == before);
  };
  const auto header = [&](StateWriter& writer, const CacheSpec& other) {
    RecordFields fields;
    write_state_header(other, cache_debug(*from.cache).prefix_index()->content(), {}, fields);
    REQUIRE(writer.record(StateRecord::header, fields.data()).ok());
  };
  const auto other_spec = [&](auto change, const char* part) {
    CacheSpec other = spec;
    change(other);
    refused([&](StateWriter& w) { header(w, other); }, part);
  };
  other_spec([](CacheSpec& s) { s.model_id = "another"; }, "model_id of the saved state is \"another\"; this cache has \"test\"");
  other_spec([](CacheSpec& s) { s.rope = "x"; }, "rope");
  other_spec([](CacheSpec& s) { s.page_tokens = 32; }, "page_tokens of the saved state is 32; this cache has 16");
  other_spec([](CacheSpec& s) { s.layers.pop_back(); }, "number of layers");
  other_spec([](CacheSpec& s) { s.layers[1].kv_heads = 7; }, "kv_heads of layer 1");
  other_spec([](CacheSpec& s) { s.layers[0].format_v = FormatId::nf4; }, "a format of layer 0 of the saved state is nf4");
  refused([](StateWriter&) {}, "first record");
  const auto with = [&](StateRecord type, auto fill_fields, const char* part) {
    refused(
        [&](StateWriter& w) {
          header(w, spec);
          RecordFields fields;
          fill_fields(fields);
          REQUIRE(w.record(type, fields.data()).ok());
        },
        part);
  };
  const auto page_bytes = [](RecordFields& f, std::uint32_t bytes) { f.bytes(Bytes(bytes)); };
  with(StateRecord::page, [](RecordFields& f) { f.u32(2), f.u32(1); }, "layer group 2");
  with(StateRecord::page, [](RecordFields& f) { f.u32(0), f.u32(17); }, "17 tokens");
  with(StateRecord::page, [](RecordFields& f) { f.u32(0), f.u32(0); }, "0 tokens");
  with(StateRecord::page, [&](RecordFields& f) { f.u32(0), f.u32(1), page_bytes(f, 127); }, "127 bytes; expected 128");
  with(StateRecord::header, [](RecordFields&) {}, "type 1");
  with(static_cast<StateRecord>(9), [](RecordFields&) {}, "type 9");
  const auto sequence = [&](auto change, const char* part) {
    with(StateRecord::sequence,
         [&](RecordFields& f) {
           SavedSequence saved;
           saved.id = 5;
           saved.tables.resize(2);
           change(saved);
           write_state_sequence(saved, f);
         },
         part);
  };
  sequence([](SavedSequence& s) { s.length = 1; }, "1 tokens has 0 pages");
  sequence([](SavedSequence& s) { s.length = 1ull << 40; }, "1099511627776 tokens");
  sequence([](SavedSequence& s) { s.length = 16, s.tables = {{0}, {0}}; }, "names page 0 of layer group 0");
  sequence([](SavedSequence& s) { s.length = 16, s.tables = {{-2}, {0}}; }, "names page -2");
  sequence([](SavedSequence& s) { s.length = 16, s.tables = {{-1}, {-1}}; }, "page 0 of a sequence is missing");
  sequence([](SavedSequence& s) { s.publish.priority = 101; }, "priority 101");
  with(StateRecord::sequence, [](RecordFields& f) { f.u64(1), f.u64(~0ull); }, "not whole");
  // More pages than the pool has.
  refused(
      [&](StateWriter& w) {
        header(w, spec);
        RecordFields fields;
        fields.u32(0);
        fields.u32(16);
        page_bytes(fields, 16 * 128);
        for (int i = 0; i < 9; ++i) REQUIRE(w.record(StateRecord::page, fields.data()).ok());
      },
      "pages are needed");
}

TEST_CASE("host state: a failing sink, source, upload or allocation is passed on, and nothing changes") {
  PrefixModel from(PrefixModel::small(32)), to(PrefixModel::small(32));
  fill(from);
  const Bytes bytes = save(*from.cache, everything());
  std::size_t room = 100;
  const Status full = from.cache->save_state(everything(), [&](std::span<const std::byte> piece) {
    if (piece.size() > room) return Status(StatusCode::unavailable, "disk full");
    room -= piece.size();
    return Status();
  });
  CHECK(full.message() == "disk full");
  const auto broken = to.cache->load_state([](std::span<std::byte>) -> Result<std::size_t> {
    return Status(StatusCode::unavailable, "cable pulled");
  });
  CHECK(broken.status().message() == "cable pulled");
  int failures = 0;
  for (int* countdown : {&to.executor.fail_create, &to.executor.fail_stage, &to.executor.fail_submit})
    for (int n = 0; n < 40; ++n) {
      *countdown = n;
      const auto loaded = to.cache->load_state(source_of(bytes));
      *countdown = -1;
      if (loaded.ok()) {
        for (const LoadedSequence& sequence : loaded.value()) REQUIRE(to.cache->destroy_sequence(sequence.sequence).ok());
        REQUIRE(to.cache->clear_prefixes().ok());
        REQUIRE(to.used_pages() == 0);
        break;
      }
      ++failures;
      REQUIRE(to.used_pages() == 0);
      to.check_references();
    }
  CHECK(failures >= 6);
  load(to, from.sequences, bytes);
}

class Folder {
 public:
  Folder() {
    path = (std::filesystem::temp_directory_path() / "kvant_state_XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path;
};

Status save_file(Cache& cache, const std::string& path) {
  KVANT_ASSIGN(const std::unique_ptr<AtomicFile> file, AtomicFile::create(path));
  KVANT_TRY(cache.save_state(everything(), [&](std::span<const std::byte> piece) { return file->write(piece); }));
  return file->commit();
}

TEST_CASE("host state: files are there whole or not at all, whenever the process is killed") {
  Folder folder;
  const std::string path = folder.path + "/state";
  PrefixModel small(PrefixModel::small(32)), large(PrefixModel::small(32));
  small.prompt(counting(0, 20));
  for (int i = 0; i < 6; ++i) large.prompt(counting(i * 1000, 70));
  REQUIRE(save_file(*small.cache, path).ok());
  int of_small = 0, of_large = 0;
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int i = 0;; ++i)
        if (!save_file(i % 2 == 0 ? *large.cache : *small.cache, path).ok()) ::_exit(1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 + 379 * (round % 17)));
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    const auto reader = FileReader::open(path);
    REQUIRE(reader.ok());
    PrefixModel to(PrefixModel::small(40));
    const auto loaded = to.cache->load_state([&](std::span<std::byte> out) { return reader.value()->read(out); });
    REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
    REQUIRE((loaded.value().size() == 1 || loaded.value().size() == 6));
    ++(loaded.value().size() == 1 ? of_small : of_large);
    PrefixModel& from = loaded.value().size() == 1 ? small : large;
    for (const LoadedSequence& sequence : loaded.value()) to.sequences[sequence.sequence] = from.sequences.at(sequence.saved);
    to.check_all();
  }
  CHECK(of_small + of_large == 40);
  CHECK(FileReader::open(folder.path + "/none").status().code() == StatusCode::not_found);
  CHECK(save_file(*small.cache, folder.path + "/no/such/folder").code() == StatusCode::unavailable);
}

}  // namespace
}  // namespace kvant
