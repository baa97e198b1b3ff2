// Saving and loading through the manager extension: files and streams, what was loaded, and what is refused.
#include <kvant/kvant_ext_manager.h>

#include <cstdio>
#include <algorithm>
#include <filesystem>
#include <fstream>

#include <stdlib.h>

#include "cache_state.hpp"

using namespace abi_test;

namespace {

const kvant_ext_manager& manager(const Session& session) {
  const auto* table = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(table != nullptr);
  REQUIRE(table->struct_size >= sizeof(kvant_ext_manager));
  return *table;
}

struct Buffer {
  std::string bytes;
  std::size_t at = 0;
  std::size_t limit = SIZE_MAX;

  static std::uint32_t write(void* self, const void* data, std::uint64_t size) {
    auto& buffer = *static_cast<Buffer*>(self);
    if (buffer.bytes.size() + size > buffer.limit) return 0;
    buffer.bytes.append(static_cast<const char*>(data), size);
    return 1;
  }
  static std::uint64_t read(void* self, void* out, std::uint64_t size) {
    auto& buffer = *static_cast<Buffer*>(self);
    const std::size_t got = std::min({static_cast<std::size_t>(size), buffer.bytes.size() - buffer.at, std::size_t{1000}});
    std::memcpy(out, buffer.bytes.data() + buffer.at, got);
    buffer.at += got;
    return got;
  }
  kvant_state_stream stream() {
    auto made = make<kvant_state_stream>();
    made.user_data = this;
    made.write = write;
    made.read = read;
    return made;
  }
};

struct Filled {
  kvant_cache* cache = nullptr;
  kvant_sequence first = 0, second = 0;
  explicit Filled(const Session& session, const char* format = "q8_0")
      : cache(make_cache(session, {.layers = 2, .format_k = format, .format_v = "q4_0"})) {
    require_ok(api().sequence_create(cache, &first));
    StepData data;
    data.k = random_floats(37 * 128, 1);
    data.v = random_floats(37 * 128, 2);
    run_step(cache, 2, first, 37, 0, data);
    require_ok(api().sequence_fork(cache, first, 20, &second));
  }
  ~Filled() { api().cache_destroy(cache); }
  Filled(const Filled&) = delete;
  Filled& operator=(const Filled&) = delete;
};

kvant_state_args all_sequences() {
  auto args = make<kvant_state_args>();
  args.flags = KVANT_STATE_ALL_SEQUENCES;
  return args;
}

}  // namespace

TEST_CASE("state: a stream and a file bring the sequences back") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  Filled from(session);
  std::string folder = (std::filesystem::temp_directory_path() / "kvant_abi_XXXXXX").string();
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  const std::string path = folder + "/state";
  Buffer buffer;
  const auto stream = buffer.stream();
  const auto args = all_sequences();
  require_ok(m.state_save(from.cache, &args, &stream));
  require_ok(m.state_save_file(from.cache, &args, path.c_str()));
  CHECK(std::filesystem::file_size(path) == buffer.bytes.size());
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);

  const CacheState expected = state_of(from.cache, {from.first, from.second}, 2, 64);
  for (const bool file : {false, true}) {
    kvant_cache* to = make_cache(session, {.layers = 2, .format_k = "q8_0", .format_v = "q4_0", .capacity = 128});
    std::uint32_t count = 0;
    require_ok(file ? m.state_load_file(to, path.c_str(), &count) : m.state_load(to, &stream, &count));
    REQUIRE(count == 2);
    std::uint64_t saved[2] = {};
    kvant_sequence now[2] = {};
    for (std::uint32_t i = 0; i < 2; ++i) require_ok(m.state_loaded(to, i, &saved[i], &now[i]));
    CHECK(saved[0] == from.first);
    CHECK(saved[1] == from.second);
    const CacheState got = state_of(to, {now[0], now[1]}, 2, 64);
    CHECK(got.keys == expected.keys);
    CHECK(got.values == expected.values);
    CHECK(got.stats.used_pages == expected.stats.used_pages);
    CHECK(got.stats.sequence_count == 2);
    check_error(m.state_loaded(to, 2, &saved[0], &now[0]), KVANT_ERROR_INVALID_ARGUMENT, "state_loaded", "index (2)");
    require_ok(api().sequence_destroy(to, now[0]));
    api().cache_destroy(to);
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("state: refusals change nothing") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  const kvant_ext_manager& m = manager(session);
  Filled from(session), other(session, "f16");
  kvant_cache* external = make_cache(session, {.external = true});
  Buffer buffer;
  auto stream = buffer.stream();
  auto args = all_sequences();
  std::uint32_t count = 7;
  const CacheState before = state_of(other.cache, {other.first}, 2, 64);
  const auto save = [&](const kvant_state_args* a, const kvant_state_stream* s, std::uint32_t code, const char* part) {
    check_error(m.state_save(from.cache, a, s), code, "state_save", part);
  };
  save(nullptr, &stream, KVANT_ERROR_INVALID_ARGUMENT, "args is NULL");
  save(&args, nullptr, KVANT_ERROR_INVALID_ARGUMENT, "stream is NULL");
  args.flags = 4;
  save(&args, &stream, KVANT_ERROR_INVALID_ARGUMENT, "flags (0x4)");
  args.flags = 0;
  save(&args, &stream, KVANT_ERROR_INVALID_ARGUMENT, "ask for nothing");
  args.sequence_count = 1;
  save(&args, &stream, KVANT_ERROR_INVALID_ARGUMENT, "args.sequences is NULL");
  args.sequences = &other.first;
  save(&args, &stream, KVANT_ERROR_NOT_FOUND, "args.sequences[0]");
  args.flags = KVANT_STATE_ALL_SEQUENCES;
  save(&args, &stream, KVANT_ERROR_INVALID_ARGUMENT, "sequence_count (1)");
  args = all_sequences();
  stream.write = nullptr;
  save(&args, &stream, KVANT_ERROR_INVALID_ARGUMENT, "stream.write is NULL");
  stream = buffer.stream();
  buffer.limit = 500;
  save(&args, &stream, KVANT_ERROR_UNAVAILABLE, "stream.write did not take");
  buffer.limit = SIZE_MAX;
  buffer.bytes.clear();
  require_ok(m.state_save(from.cache, &args, &stream));
  check_error(m.state_load(other.cache, &stream, &count), KVANT_ERROR_INCOMPATIBLE, "state_load", "is q8_0; this cache has f16");
  buffer.at = 0;
  buffer.bytes[buffer.bytes.size() / 2] = static_cast<char>(buffer.bytes[buffer.bytes.size() / 2] ^ 1);
  check_error(m.state_load(from.cache, &stream, &count), KVANT_ERROR_DATA_LOSS, "state_load", "checksum");
  stream.read = [](void*, void*, std::uint64_t size) { return size + 1; };
  check_error(m.state_load(from.cache, &stream, &count), KVANT_ERROR_INVALID_ARGUMENT, "state_load", "stream.read gave");
  stream.read = nullptr;
  check_error(m.state_load(from.cache, &stream, &count), KVANT_ERROR_INVALID_ARGUMENT, "state_load", "stream.read is NULL");
  check_error(m.state_load(from.cache, &stream, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "state_load", "out_count is NULL");
  check_error(m.state_save_file(from.cache, &args, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "state_save_file", "path is NULL");
  check_error(m.state_save_file(from.cache, &args, "/no/such/folder/x"), KVANT_ERROR_UNAVAILABLE, "state_save_file",
              "/no/such/folder/x");
  check_error(m.state_load_file(from.cache, "/no/such/file", &count), KVANT_ERROR_NOT_FOUND, "state_load_file", "/no/such/file");
  check_error(m.state_load_file(from.cache, nullptr, &count), KVANT_ERROR_INVALID_ARGUMENT, "state_load_file", "path is NULL");
  check_error(m.state_load_file(from.cache, "/dev/null", &count), KVANT_ERROR_DATA_LOSS, "state_load_file", "cut off");
  stream = buffer.stream();
  check_error(m.state_save(external, &args, &stream), KVANT_ERROR_FAILED_PRECONDITION, "state_save", "EXTERNAL_PAGES");
  check_error(m.state_save(nullptr, &args, &stream), KVANT_ERROR_INVALID_ARGUMENT, "state_save", "cache is NULL");
  CHECK(count == 7);
  CHECK((state_of(other.cache, {other.first}, 2, 64) == before));
  api().cache_destroy(external);
}
