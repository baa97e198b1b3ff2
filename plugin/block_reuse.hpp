// BlockReuse: memory for objects that come and go one at a time, such as a cache's steps. The last block that was given back is kept for the next
// object of its size. ReusedBlock is the allocator for std::allocate_shared.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>

namespace kvant::abi {

// Any thread. One size and no more than the alignment of `new`.
class BlockReuse {
 public:
  BlockReuse() = default;
  BlockReuse(const BlockReuse&) = delete;
  BlockReuse& operator=(const BlockReuse&) = delete;
  ~BlockReuse() { ::operator delete(kept_.load()); }

  void* take(std::size_t bytes) {
    void* block = kept_.exchange(nullptr);
    return block != nullptr ? block : ::operator new(bytes);
  }
  void give_back(void* block) { ::operator delete(kept_.exchange(block)); }

 private:
  std::atomic<void*> kept_{nullptr};
};

template <typename T>
class ReusedBlock {
 public:
  using value_type = T;
  static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);

  explicit ReusedBlock(std::shared_ptr<BlockReuse> blocks) : blocks_(std::move(blocks)) {}
  template <typename U>
  ReusedBlock(const ReusedBlock<U>& other) : blocks_(other.blocks()) {}

  T* allocate(std::size_t count) { return static_cast<T*>(blocks_->take(count * sizeof(T))); }
  void deallocate(T* block, std::size_t) { blocks_->give_back(block); }
  const std::shared_ptr<BlockReuse>& blocks() const { return blocks_; }
  template <typename U>
  bool operator==(const ReusedBlock<U>& other) const {
    return blocks_ == other.blocks();
  }

 private:
  std::shared_ptr<BlockReuse> blocks_;  // also held by what lies in the block: it outlives the cache that made it
};

}  // namespace kvant::abi
