// Saving, loading and exporting; files whose writes and reads fail.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "scene.hpp"

using namespace faults;

namespace {

constexpr Kind kKinds[] = {Kind::device_allocation, Kind::submit, Kind::map, Kind::wait, Kind::object, Kind::host_allocation,
                           Kind::file_write, Kind::file_read};

std::vector<char> bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void save_and_load(Pass& pass, const std::filesystem::path& folder) {
  const std::string path = (folder / "state").string();
  Scene scene(pass, shared_host(), {.flags = KVANT_CACHE_PREFIXES});
  const kvant_ext_manager& manager = scene.manager();
  const std::vector<std::int32_t> ids = token_ids(40);
  const kvant_sequence first = scene.open(ids);
  scene.step(first, 40, 1, ids.data());
  auto args = make<kvant_state_args>();
  args.flags = KVANT_STATE_ALL_SEQUENCES | KVANT_STATE_PREFIXES;
  std::filesystem::remove(path);
  pass.call("state_save_file", [&] { return manager.state_save_file(scene.cache(), &args, path.c_str()); });
  const std::vector<char> saved = bytes_of(path);
  // Written over: whatever fails, a whole file is there, and nothing else in its folder.
  pass.call("state_save_file again", [&] {
    kvant_error* error = manager.state_save_file(scene.cache(), &args, path.c_str());
    enter_driver();
    const bool whole = bytes_of(path) == saved;
    const auto files = std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
    leave_driver();
    CHECK(whole);
    CHECK(files == 1);
    return error;
  });
  scene.results(first);

  Scene loaded(pass, shared_host(), {.flags = KVANT_CACHE_PREFIXES});
  std::uint32_t count = 0;
  pass.call("state_load_file", [&] { return manager.state_load_file(loaded.cache(), path.c_str(), &count); });
  REQUIRE(count == 1);
  std::uint64_t was = 0;
  kvant_sequence sequence = 0;
  pass.call("state_loaded", [&] { return manager.state_loaded(loaded.cache(), 0, &was, &sequence); });
  CHECK(was == first);
  loaded.hold(sequence);
  loaded.results(sequence);
  loaded.step(sequence, 1, 1);
}

void transport(Pass& pass) {
  Scene scene(pass, shared_host());
  const kvant_ext_manager& manager = scene.manager();
  const kvant_sequence first = scene.create();
  scene.step(first, 33, 1);
  const std::uint64_t bytes = [&] {
    std::uint64_t row = 0;
    pass.call("row_bytes", [&] { return api().row_bytes(shared_host().context, shared_host().format("q8_0"), kDim, &row); });
    return row * kHeads * 33;
  }();
  std::vector<unsigned char> codes(bytes);
  pass.call("sequence_export",
            [&] { return api().sequence_export(scene.cache(), first, 0, KVANT_SIDE_K, 0, 33, codes.data(), codes.size()); });
  std::vector<float> rows(33 * kRow);
  const kvant_tensor view = abi_test::tensor_of(rows);
  pass.call("sequence_read", [&] { return api().sequence_read(scene.cache(), first, 1, KVANT_SIDE_V, 0, 33, &view); });
  pass.result(rows);

  struct Pipe {
    std::vector<char> data;
    std::size_t at = 0;
  } pipe;
  auto stream = make<kvant_state_stream>();
  stream.user_data = &pipe;
  stream.write = [](void* user, const void* data, std::uint64_t size) -> std::uint32_t {
    enter_driver();
    auto& to = static_cast<Pipe*>(user)->data;
    to.insert(to.end(), static_cast<const char*>(data), static_cast<const char*>(data) + size);
    leave_driver();
    return 1;
  };
  stream.read = [](void* user, void* out, std::uint64_t size) -> std::uint64_t {
    auto& from = *static_cast<Pipe*>(user);
    const std::uint64_t count = std::min<std::uint64_t>(size, from.data.size() - from.at);
    std::memcpy(out, from.data.data() + from.at, count);
    from.at += count;
    return count;
  };
  auto args = make<kvant_state_args>();
  args.sequences = &first;
  args.sequence_count = 1;
  pass.call("state_save", [&] {
    pipe.data.clear();
    return manager.state_save(scene.cache(), &args, &stream);
  });
  std::uint32_t count = 0;
  pass.call("state_load", [&] {
    pipe.at = 0;
    return manager.state_load(scene.cache(), &stream, &count);
  });
  std::uint64_t was = 0;
  kvant_sequence sequence = 0;
  pass.call("state_loaded", [&] { return manager.state_loaded(scene.cache(), 0, &was, &sequence); });
  scene.hold(sequence);
  scene.results(sequence);
}

}  // namespace

TEST_CASE("state: saved to a file and loaded") {
  if (!shared_host().has_device()) return;
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("kvant_faults_state." + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  for (const Kind kind : kKinds)
    sweep("state file", kind, [&](Pass& pass) { save_and_load(pass, folder); }, {.unreached = {Kind::map}});
  std::filesystem::remove_all(folder);
}

TEST_CASE("state: exported, read, saved and loaded through memory") {
  if (!shared_host().has_device()) return;
  for (const Kind kind : kKinds)
    sweep("state", kind, transport, {.unreached = {Kind::map, Kind::file_read, Kind::file_write}});
}
