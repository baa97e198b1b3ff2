// Device buffers that a cache keeps from step to step: scratch that grows geometrically, and the step's META words,
// which grow while layers of a step ask for new tables.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "executor.hpp"

namespace kvant {

// A device buffer of at least the size last asked for. Contents do not survive growth.
class ScratchBuffer {
 public:
  explicit ScratchBuffer(Executor& executor) : executor_(executor) {}
  ~ScratchBuffer() { release(); }
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;

  // `retired` receives a buffer that was outgrown while recorded, not yet submitted commands may still name it; null:
  // it is destroyed at once. Errors: of create_buffer.
  Status ensure(std::uint64_t size, std::vector<BufferId>* retired);
  void release();
  BufferId buffer() const { return buffer_; }
  std::uint64_t size() const { return size_; }
  BufferRange range(std::uint64_t bytes) const { return {buffer_, 0, bytes}; }

 private:
  Executor& executor_;
  BufferId buffer_ = BufferId::none;
  std::uint64_t size_ = 0;
};

class MetaTable {
 public:
  explicit MetaTable(Executor& executor) : executor_(executor), buffer_(executor) {}

  std::vector<std::uint32_t>& words() { return words_; }
  // Appends values of whole words and returns their word offset, a multiple of 4 so that kernels may load 16 bytes.
  template <typename T>
  std::uint32_t append(std::span<const T> values);

  void clear();                         // a new step: the words go, the buffer stays
  void invalidate() { uploaded_ = 0; }  // an upload may not have arrived
  bool pending() const { return uploaded_ != words_.size(); }
  // Adds copies of the words that the device does not have yet to `list`; the caller submits it next.
  // At most limits().max_staging_bytes are staged at once: a longer tail is submitted piece by piece on the way.
  Status upload(CommandList& list, std::vector<BufferId>* retired);
  BufferRange range() const { return {buffer_.buffer(), 0, words_.size() * sizeof(std::uint32_t)}; }

 private:
  Executor& executor_;
  ScratchBuffer buffer_;
  std::vector<std::uint32_t> words_;
  std::size_t uploaded_ = 0;  // words [0, uploaded_) are on the device
};

template <typename T>
std::uint32_t MetaTable::append(std::span<const T> values) {
  static_assert(sizeof(T) % sizeof(std::uint32_t) == 0);
  words_.resize((words_.size() + 3) & ~std::size_t{3}, 0);
  const auto offset = static_cast<std::uint32_t>(words_.size());
  const auto* first = reinterpret_cast<const std::uint32_t*>(values.data());
  words_.insert(words_.end(), first, first + values.size_bytes() / sizeof(std::uint32_t));
  return offset;
}

}  // namespace kvant
