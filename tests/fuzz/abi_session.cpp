// The caller's objects and the checks around every call.
#include "abi_session.hpp"

#include <algorithm>

namespace kvant::fuzz {
namespace {

constexpr std::uint64_t kDeviceBytes = 48u << 20;

void on_log(void*, std::uint32_t level, const char* message, std::size_t size) {
  KVANT_FUZZ_CHECK(level != KVANT_LOG_PLUGIN_MISBEHAVING, std::string(message, size));
}

template <typename T>
T zeroed() {
  T value;
  std::memset(&value, 0, sizeof value);
  value.struct_size = sizeof value;
  return value;
}

}  // namespace

AbiLibrary::AbiLibrary() : api(kvant_get_api(KVANT_VERSION, nullptr)) {
  KVANT_FUZZ_CHECK(api != nullptr && api->struct_size >= sizeof(kvant_api));
  auto args = zeroed<kvant_context_args>();
  args.log = on_log;
  KVANT_FUZZ_CHECK(api->context_create(&args, &context) == nullptr);
  KVANT_FUZZ_CHECK(api->format_count(context, &formats) == nullptr && formats > 0);
  manager = static_cast<const kvant_ext_manager*>(api->get_extension(context, KVANT_EXT_MANAGER));
  KVANT_FUZZ_CHECK(manager != nullptr);
  auto device_args = zeroed<kvant_device_args>();
  device_args.device_index = KVANT_DEVICE_BEST;
  device_args.enable_profiling = 1;
  device_args.memory_limit = kDeviceBytes;
  kvant_error* error = api->device_open(context, &device_args, &device);
  KVANT_FUZZ_CHECK(error == nullptr, api->error_message(error));
}

AbiLibrary::~AbiLibrary() {
  api->device_close(device);
  api->context_destroy(context);
}

AbiSession::AbiSession(const AbiLibrary& lib, const std::uint8_t* data, std::size_t size)
    : library(lib), api(*lib.api), m(*lib.manager), in(data, size), arena(kArenaFloats) {
  for (std::size_t i = 0; i < arena.size(); ++i) arena[i] = static_cast<float>(i % 29) * 0.125F - 1.5F;
}

AbiSession::~AbiSession() {
  for (LiveCache& one : caches) {
    if (one.step != nullptr) api.step_abort(one.step);
    const kvant_cache_stats before = stats(one);
    std::uint64_t sequences = 0;
    if (took(m.clear_all(one.handle, &sequences), "clear_all")) {
      const kvant_cache_stats after = stats(one);
      // A store's own sequences are not counted.
      KVANT_FUZZ_CHECK(sequences <= before.sequence_count && after.sequence_count == 0 && after.sequence_tokens == 0,
                       std::to_string(sequences) + " of " + std::to_string(before.sequence_count));
      KVANT_FUZZ_CHECK(after.used_pages == 0 && after.used_bytes == 0);
    }
    // A store's cold cache goes after the store's own; either order must do, so that they go as they came.
    api.cache_destroy(one.handle);
  }
  auto info = zeroed<kvant_device_info>();
  KVANT_FUZZ_CHECK(took(api.device_describe(library.device, &info), "device_describe") && info.usable == 1);
}

LiveCache& AbiSession::own() { return caches[in.below(static_cast<std::uint32_t>(caches.size()))]; }

const kvant_cache* AbiSession::any_cache(const LiveCache& usual) {
  const std::uint8_t choice = in.u8();
  if (choice < 244) return usual.handle;
  const void* strange = nullptr;
  if (choice < 248 && !dead.empty()) strange = dead[choice % dead.size()];
  if (choice == 248) strange = library.device;
  if (choice == 249) strange = library.context;
  if (choice == 250) strange = usual.step;
  if (choice == 251) strange = reinterpret_cast<const void*>(std::uintptr_t{1});
  if (choice == 252) strange = reinterpret_cast<const char*>(usual.handle) + 1;
  if (choice == 253) strange = arena.data();
  return static_cast<const kvant_cache*>(strange);
}

kvant_step* AbiSession::step(const LiveCache& usual) {
  const std::uint8_t choice = in.u8();
  if (choice < 246) return usual.step;
  if (choice < 250 && !dead.empty()) return static_cast<kvant_step*>(const_cast<void*>(dead[choice % dead.size()]));
  return reinterpret_cast<kvant_step*>(choice == 250 ? static_cast<void*>(usual.handle)
                                                     : reinterpret_cast<void*>(std::uintptr_t{choice}));
}

kvant_sequence AbiSession::sequence(const LiveCache& usual) {
  const std::uint8_t choice = in.u8();
  if (choice < 240 && !usual.sequences.empty()) return usual.sequences[choice % usual.sequences.size()];
  if (choice < 244 && !dead_sequences.empty()) return dead_sequences[choice % dead_sequences.size()];
  if (choice < 248) {
    const LiveCache& other = caches[choice % caches.size()];
    if (!other.sequences.empty()) return other.sequences.front();
  }
  if (choice < 252 && !usual.sequences.empty()) return usual.sequences.front() + choice;
  return in.magnitude();
}

std::uint64_t AbiSession::tokens_of(const LiveCache& of, kvant_sequence sequence) {
  const std::uint8_t choice = in.u8();
  std::uint64_t length = 0;
  if (choice >= 240 || !took(api.sequence_length(of.handle, sequence, &length), "sequence_length"))
    return in.magnitude();
  return choice >= 192 ? length : choice % (length + 1);
}

const kvant_next* AbiSession::chain() {
  auto* nodes = array<kvant_next>(2);
  nodes[0] = {in.one_in(4) ? in.below(40) : sizeof(kvant_next), nullptr, in.u8(), in.below(3)};
  nodes[1] = {sizeof(kvant_next), nullptr, in.u8(), KVANT_NEXT_OPTIONAL};
  const std::uint32_t shape = in.below(4);
  if (shape == 1) nodes[0].next = &nodes[1];
  if (shape == 2) nodes[0].next = &nodes[0];
  if (shape == 3) nodes[0].flags = KVANT_NEXT_OPTIONAL;
  return nodes;
}

const std::int32_t* AbiSession::token_ids(std::size_t count) {
  auto* ids = array<std::int32_t>(count);
  const std::uint8_t kind = in.u8();
  for (std::size_t i = 0; i < count; ++i)
    ids[i] = kind < 200 ? static_cast<std::int32_t>(kind % 3) : static_cast<std::int32_t>(in.u8()) - 8;
  return ids;
}

float* AbiSession::floats(std::uint64_t count, std::uint64_t* bytes) {
  const std::size_t begin = in.one_in(8) ? in.u16() % arena.size() : std::size_t{in.below(4)} * (arena.size() / 4);
  const std::uint64_t room = arena.size() - begin;
  *bytes = (count < room ? count : room) * sizeof(float);
  return arena.data() + begin;
}

const kvant_tensor* AbiSession::tensor(std::uint64_t count) {
  Boxed<kvant_tensor>& made = box<kvant_tensor>();
  kvant_tensor& t = made.value;
  std::uint64_t bytes = 0;
  t.data = floats(count, &bytes);
  const std::uint64_t room =
      static_cast<std::uint64_t>(reinterpret_cast<char*>(arena.data() + arena.size()) - static_cast<char*>(t.data));
  t.size = room;
  const std::uint8_t choice = in.u8();
  if (choice >= 160) t.size = bytes;
  if (choice >= 190 && choice < 200) t.size = in.magnitude() % (room + 1);
  if (choice >= 200) t.type = choice < 216 ? choice % 3u : choice == 216 ? in.magnitude32() : 0;
  if (choice >= 217 && choice < 228) t.token_stride = in.magnitude();
  if (choice >= 224 && choice < 236) t.head_stride = in.magnitude();
  if (choice == 236) t.buffer = in.magnitude();
  if (choice == 237) t.offset = in.magnitude();
  if (choice == 238) t.reserved = in.magnitude32();
  if (choice == 239) t.data = nullptr;
  if (choice == 240) {
    t.data = static_cast<char*>(t.data) + 2;
    t.size = room - 2;
  }
  return spoil(made);
}

bool AbiSession::took(kvant_error* error, std::string_view source) {
  // What an input comes to, call by call.
  static const bool told = std::getenv("KVANT_FUZZ_TRACE") != nullptr;
  last_code = 0;
  if (told && error == nullptr) std::fprintf(stderr, "%.*s\n", static_cast<int>(source.size()), source.data());
  if (error == nullptr) return true;
  last_code = api.error_code(error);
  const std::string message = api.error_message(error);
  if (told)
    std::fprintf(stderr, "%.*s: %u %s\n", static_cast<int>(source.size()), source.data(), last_code, message.c_str());
  KVANT_FUZZ_CHECK(api.error_source(error) == source,
                   std::string(api.error_source(error)) + " for " + std::string(source));
  KVANT_FUZZ_CHECK(!message.empty());
  // Neither a bug of the library nor a lost device follows from what a caller says.
  KVANT_FUZZ_CHECK(last_code >= KVANT_ERROR_INVALID_ARGUMENT && last_code <= KVANT_ERROR_DATA_LOSS, message);
  KVANT_FUZZ_CHECK(last_code != KVANT_ERROR_DATA_LOSS || source.starts_with("state_load"), message);
  api.error_free(error);
  return false;
}

kvant_cache_stats AbiSession::stats(const LiveCache& of) {
  auto figures = zeroed<kvant_cache_stats>();
  kvant_error* error = api.cache_stats(of.handle, &figures);
  KVANT_FUZZ_CHECK(error == nullptr, api.error_message(error));
  return figures;
}

void AbiSession::unchanged(const LiveCache& of, const kvant_cache_stats& before, std::string_view source) {
  const kvant_cache_stats after = stats(of);
  KVANT_FUZZ_CHECK(after.sequence_tokens == before.sequence_tokens && after.sequence_count == before.sequence_count,
                   std::string(source));
  KVANT_FUZZ_CHECK(after.total_pages == before.total_pages, std::string(source));
  // Pages of the prefix cache that nobody holds may have left for room that was not enough in the end.
  if (last_code == KVANT_ERROR_RESOURCE_EXHAUSTED)
    KVANT_FUZZ_CHECK(after.used_pages <= before.used_pages, std::string(source));
  else
    KVANT_FUZZ_CHECK(after.used_pages == before.used_pages && after.used_bytes == before.used_bytes,
                     std::string(source));
}

void AbiSession::forget(LiveCache& of) {
  dead.push_back(of.handle);
  if (of.step != nullptr) dead.push_back(of.step);
  dead_sequences.insert(dead_sequences.end(), of.sequences.begin(), of.sequences.end());
}

}  // namespace kvant::fuzz
