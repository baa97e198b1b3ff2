// The registry. A handle is [mark:24][serial:36][type:4]: the mark is made of this library's load address, so that another copy
// in the same process makes other numbers.
#include "handles.hpp"

#include <array>
#include <mutex>
#include <unordered_map>

namespace kvant::abi {

static_assert(sizeof(void*) == 8, "handles need 64-bit pointers");

struct Registry {
  std::mutex mutex;
  std::uint64_t next_serial = 1;
  using Objects = std::unordered_map<std::uint64_t, std::shared_ptr<Object>>;
  Objects objects;
  Objects::node_type spare;  // the node of the last object that was taken out, for the next one
  // Handles lately destroyed and where to complain about their use; the oldest is forgotten first.
  static constexpr std::size_t kRemembered = 1024;
  struct Removed {
    std::uint64_t number = 0;
    std::weak_ptr<Object> root;
  };
  std::array<Removed, kRemembered> removed;
  std::size_t next_removed = 0;

  static std::uint64_t& handle_of(Object& object) { return object.handle_; }
  static std::uint64_t& children_of(Object& object) { return object.children_; }
  static const std::shared_ptr<Object>& parent_of(const Object& object) { return object.parent_; }
  static std::shared_ptr<Object> root_of(std::shared_ptr<Object> object) {
    while (object->parent_ != nullptr) object = object->parent_;
    return object;
  }
};

namespace {

constexpr std::uint64_t kTypeBits = 4, kSerialBits = 36;

// Made at first use and never destroyed: at process exit the drivers below may be gone already.
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

std::uint64_t library_mark() {
  static const char anchor = 0;
  const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&anchor));
  return ((address * 0x9E3779B97F4A7C15ull) >> 40) | 1;  // 24 bits, not zero
}

std::uint64_t number_of(const void* handle) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(handle));
}

std::string_view type_name(HandleType type) {
  switch (type) {
    case HandleType::context: return "kvant_context";
    case HandleType::device: return "kvant_device";
    case HandleType::cache: return "kvant_cache";
    case HandleType::step: return "kvant_step";
  }
  return "object";
}

HandleType type_of(std::uint64_t number) { return static_cast<HandleType>(number & ((1u << kTypeBits) - 1)); }

}  // namespace

Result<std::shared_ptr<Object>> find_object(const void* handle, HandleType type, std::string_view name) {
  if (handle == nullptr) return invalid(name, " is NULL; expected a ", type_name(type));
  const std::uint64_t number = number_of(handle);
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto it = all.objects.find(number);
  if (it == all.objects.end())
    return not_found(name, " (", hex(number), ") is not a live ", type_name(type),
                     ": it was destroyed, or this copy of the library did not make it");
  if (type_of(number) != type)
    return not_found(name, " (", hex(number), ") is a ", type_name(type_of(number)), "; expected a ", type_name(type));
  return it->second;
}

bool is_live(const Object& object) {
  const std::lock_guard lock(registry().mutex);
  return Registry::handle_of(const_cast<Object&>(object)) != 0;
}

Result<void*> add_object(const std::shared_ptr<Object>& object, HandleType type) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  Object* parent = Registry::parent_of(*object).get();
  if (parent != nullptr && Registry::handle_of(*parent) == 0)
    return not_found("the parent of the new ", type_name(type), " was destroyed during the call");
  if (all.next_serial >> kSerialBits != 0)
    return Status{StatusCode::resource_exhausted, text("handles are exhausted: ", all.next_serial - 1, " were made")};
  const std::uint64_t number =
      library_mark() << (kTypeBits + kSerialBits) | all.next_serial << kTypeBits | static_cast<std::uint64_t>(type);
  if (all.spare.empty()) {
    all.objects.emplace(number, object);
  } else {
    all.spare.key() = number;
    all.spare.mapped() = object;
    all.objects.insert(std::move(all.spare));
  }
  ++all.next_serial;
  Registry::handle_of(*object) = number;
  if (parent != nullptr) ++Registry::children_of(*parent);
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(number));
}

Removal remove_object(const void* handle, HandleType type) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto it = all.objects.find(number_of(handle));
  if (it == all.objects.end() || type_of(it->first) != type) return {};
  Removal removal{it->second, Registry::children_of(*it->second)};
  if (removal.children != 0) return removal;
  all.removed[all.next_removed++ % Registry::kRemembered] = {it->first, Registry::root_of(removal.object)};
  Registry::handle_of(*removal.object) = 0;
  if (Object* parent = Registry::parent_of(*removal.object).get()) --Registry::children_of(*parent);
  all.spare = all.objects.extract(it);
  all.spare.mapped().reset();
  return removal;
}

std::shared_ptr<Object> root_of(const void* handle) {
  if (handle == nullptr) return nullptr;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  if (const auto it = all.objects.find(number_of(handle)); it != all.objects.end()) return Registry::root_of(it->second);
  for (const Registry::Removed& removed : all.removed) {
    if (removed.number != number_of(handle)) continue;
    std::shared_ptr<Object> root = removed.root.lock();
    // A destroyed context's callbacks may be gone.
    return root != nullptr && Registry::handle_of(*root) != 0 ? root : nullptr;
  }
  return nullptr;
}

}  // namespace kvant::abi
