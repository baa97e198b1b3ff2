// Rollback: what a function has begun is undone when it ends without having said that it is complete, also when memory runs out
// in the midst of it.
#pragma once

#include <new>
#include <utility>

#include "status.hpp"

namespace kvant {

template <typename F>
class [[nodiscard]] Rollback {
 public:
  explicit Rollback(F undo) : undo_(std::move(undo)) {}
  ~Rollback() {
    if (pending_) undo_();
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;

  void complete() { pending_ = false; }

 private:
  F undo_;  // throws nothing
  bool pending_ = true;
};

// The function's Status, also where it ends because host memory is out: for what then has to be put right by hand.
template <typename F>
Status within_memory(F&& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return {StatusCode::resource_exhausted, "no host memory"};  // short enough to need none
  }
}

}  // namespace kvant
