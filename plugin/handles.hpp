// Handles: serial numbers dressed as opaque pointers, never reused, looked up by type under a mutex. A number carries the type
// and a mark of this copy of the library, so that a stale, foreign or mistyped handle is an error and never a dereference.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <kvant/kvant.h>

#include "text.hpp"

namespace kvant::abi {

enum class HandleType : std::uint32_t { context = 1, device = 2, cache = 3, step = 4 };

// What every handle stands for. The registry's mutex guards `children_` and `handle_`.
class Object {
 public:
  explicit Object(std::shared_ptr<Object> parent) : parent_(std::move(parent)) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

 private:
  friend struct Registry;
  std::shared_ptr<Object> parent_;
  std::uint64_t children_ = 0;
  std::uint64_t handle_ = 0;  // 0: not registered, or destroyed
};

// The object of `handle`. Errors: invalid_argument for NULL, not_found for anything that is not a live handle of this type.
Result<std::shared_ptr<Object>> find_object(const void* handle, HandleType type, std::string_view name);
// False once the object was removed.
bool is_live(const Object& object);

// Registers a child of a live parent. Errors: not_found when the parent was destroyed meanwhile.
Result<void*> add_object(const std::shared_ptr<Object>& object, HandleType type);

// Takes the object out: later calls do not find it. With children alive nothing happens and `children` says how many.
struct Removal {
  std::shared_ptr<Object> object;  // null: not a live handle of this type
  std::uint64_t children = 0;      // not 0: refused
};
Removal remove_object(const void* handle, HandleType type);

// The first ancestor (the context) of a live handle of any type, or of one that was destroyed not long ago; null if there is none.
std::shared_ptr<Object> root_of(const void* handle);

template <typename T>
Result<std::shared_ptr<T>> find(const void* handle, std::string_view name) {
  KVANT_ASSIGN(std::shared_ptr<Object> object, find_object(handle, T::kHandleType, name));
  return std::static_pointer_cast<T>(std::move(object));
}

template <typename T>
Result<typename T::Handle*> add(const std::shared_ptr<T>& object) {
  KVANT_ASSIGN(void* handle, add_object(object, T::kHandleType));
  return static_cast<typename T::Handle*>(handle);
}

}  // namespace kvant::abi
