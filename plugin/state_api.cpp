// The state functions of the manager extension: streams, files, and what was loaded.
#include "atomic_file.hpp"
#include "boundary.hpp"
#include "checks.hpp"
#include "manager_api.hpp"
#include "objects.hpp"

namespace kvant::abi {
namespace {

struct StateRequest {
  std::vector<SequenceId> ids;
  StateSelection selection;  // points at `ids`
};

Status read_state_args(const kvant_state_args* args, const CacheObject& cache, StateRequest& request) {
  kvant_state_args values{};
  KVANT_TRY(read_args(args, "args", values));
  constexpr std::uint32_t kFlags = KVANT_STATE_ALL_SEQUENCES | KVANT_STATE_PREFIXES;
  if ((values.flags & ~kFlags) != 0) return invalid("args.flags (", hex(values.flags), ") have bits beyond ", hex(kFlags));
  request.selection.all_sequences = (values.flags & KVANT_STATE_ALL_SEQUENCES) != 0;
  request.selection.prefixes = (values.flags & KVANT_STATE_PREFIXES) != 0;
  if (request.selection.all_sequences && values.sequence_count != 0)
    return invalid("args.sequence_count (", values.sequence_count, ") is not 0 with KVANT_STATE_ALL_SEQUENCES");
  if (values.sequence_count == 0 && values.flags == 0) return invalid("args ask for nothing: no sequence and no flag is given");
  if (values.sequence_count != 0)
    KVANT_TRY(check_pointer(values.sequences, "args.sequences", text(values.sequence_count, " sequences")));
  for (std::uint32_t i = 0; i < values.sequence_count; ++i) {
    KVANT_ASSIGN(const SequenceId id, cache.sequence(values.sequences[i], text("args.sequences[", i, "]")));
    request.ids.push_back(id);
  }
  request.selection.sequences = request.ids;
  return {};
}

Status load(CacheObject& cache, const StateSource& source, std::uint32_t* out_count) {
  KVANT_ASSIGN(std::vector<LoadedSequence> loaded, cache.cache->load_state(source));
  cache.loaded = std::move(loaded);
  *out_count = static_cast<std::uint32_t>(cache.loaded.size());
  return {};
}

}  // namespace

kvant_error* state_save(kvant_cache* cache, const kvant_state_args* args, const kvant_state_stream* stream) {
  return guard("state_save", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    StateRequest request;
    KVANT_TRY(read_state_args(args, *object, request));
    kvant_state_stream to{};
    KVANT_TRY(read_args(stream, "stream", to));
    if (to.write == nullptr) return invalid("stream.write is NULL; expected a function");
    return object->cache->save_state(request.selection, [&](std::span<const std::byte> bytes) -> Status {
      if (to.write(to.user_data, bytes.data(), bytes.size()) == 1) return {};
      return {StatusCode::unavailable, text("stream.write did not take ", bytes.size(), " bytes")};
    });
  });
}

kvant_error* state_load(kvant_cache* cache, const kvant_state_stream* stream, std::uint32_t* out_count) {
  return guard("state_load", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of sequences"));
    kvant_state_stream from{};
    KVANT_TRY(read_args(stream, "stream", from));
    if (from.read == nullptr) return invalid("stream.read is NULL; expected a function");
    const StateSource source = [&](std::span<std::byte> out) -> Result<std::size_t> {
      const std::uint64_t got = from.read(from.user_data, out.data(), out.size());
      if (got > out.size()) return invalid("stream.read gave ", got, " bytes; expected at most ", out.size());
      return static_cast<std::size_t>(got);
    };
    return load(*object, source, out_count);
  });
}

kvant_error* state_loaded(kvant_cache* cache, std::uint32_t index, std::uint64_t* out_saved, kvant_sequence* out_sequence) {
  return guard("state_loaded", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_pointer(out_saved, "out_saved", "a place for the saved handle"));
    KVANT_TRY(check_pointer(out_sequence, "out_sequence", "a place for the sequence"));
    if (index >= object->loaded.size())
      return invalid("index (", index, ") is not less than the ", object->loaded.size(), " sequences of the last load");
    *out_saved = static_cast<std::uint64_t>(object->loaded[index].saved);
    *out_sequence = static_cast<kvant_sequence>(object->loaded[index].sequence);
    return {};
  });
}

kvant_error* state_save_file(kvant_cache* cache, const kvant_state_args* args, const char* path) {
  return guard("state_save_file", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_TRY(check_pointer(path, "path", "the file's path"));
    StateRequest request;
    KVANT_TRY(read_state_args(args, *object, request));
    KVANT_ASSIGN(const std::unique_ptr<AtomicFile> file, AtomicFile::create(path));
    KVANT_TRY(object->cache->save_state(request.selection,
                                        [&](std::span<const std::byte> bytes) { return file->write(bytes); }));
    return file->commit();
  });
}

kvant_error* state_load_file(kvant_cache* cache, const char* path, std::uint32_t* out_count) {
  return guard("state_load_file", [&]() -> Status {
    KVANT_ASSIGN(const auto object, access<CacheObject>(cache, "cache"));
    KVANT_TRY(check_sequences_kept(*object));
    KVANT_TRY(check_pointer(path, "path", "the file's path"));
    KVANT_TRY(check_pointer(out_count, "out_count", "a place for the number of sequences"));
    KVANT_ASSIGN(const std::unique_ptr<FileReader> file, FileReader::open(path));
    return load(*object, [&](std::span<std::byte> out) { return file->read(out); }, out_count);
  });
}

}  // namespace kvant::abi
