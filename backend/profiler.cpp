#include "profiler.hpp"

#include <algorithm>
#include <utility>

namespace kvant {

Profiler::~Profiler() {
  const auto destroy = [this](const Batch& batch) {
    if (batch.pool != VK_NULL_HANDLE) device_.vk().vkDestroyQueryPool(device_.handle(), batch.pool, nullptr);
  };
  destroy(current_);
  for (const Batch& batch : pending_) destroy(batch);
  for (const Batch& batch : free_) destroy(batch);
}

Status Profiler::begin(Recorder& recorder, std::size_t commands) {
  if (!uses_timestamps()) return {};
  const auto needed = static_cast<std::uint32_t>(commands + 1);
  const auto fitting =
      std::find_if(free_.begin(), free_.end(), [needed](const Batch& b) { return b.capacity >= needed; });
  if (fitting != free_.end()) {
    current_ = std::move(*fitting);
    free_.erase(fitting);
  } else {
    current_ = {};
    VkQueryPoolCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = std::max(needed, 256U);
    const VkResult result =
        device_.note(device_.vk().vkCreateQueryPool(device_.handle(), &info, nullptr, &current_.pool));
    if (result != VK_SUCCESS)
      return vk_status(result, "creating a pool of " + std::to_string(info.queryCount) + " timestamps");
    current_.capacity = info.queryCount;
  }
  current_.labels.clear();
  recorder.reset_queries(current_.pool, needed);
  recorder.timestamp(current_.pool, 0);
  return {};
}

void Profiler::after_command(Recorder& recorder, const char* label) {
  if (current_.pool == VK_NULL_HANDLE) return;
  current_.labels.push_back(label);
  recorder.timestamp(current_.pool, static_cast<std::uint32_t>(current_.labels.size()));
}

void Profiler::submitted(std::uint64_t ticket) {
  if (current_.pool == VK_NULL_HANDLE) return;
  current_.ticket = ticket;
  pending_.push_back(std::move(current_));
  current_ = {};
}

void Profiler::dropped() {
  if (current_.pool == VK_NULL_HANDLE) return;
  free_.push_back(std::move(current_));
  current_ = {};
}

void Profiler::collect(std::uint64_t completed) {
  while (!pending_.empty() && pending_.front().ticket <= completed) {
    read(pending_.front());
    free_.push_back(std::move(pending_.front()));
    pending_.pop_front();
  }
}

void Profiler::read(const Batch& batch) {
  const std::size_t count = batch.labels.size() + 1;
  ticks_.resize(count);
  const VkResult result = device_.vk().vkGetQueryPoolResults(
      device_.handle(), batch.pool, 0, static_cast<std::uint32_t>(count), count * sizeof(std::uint64_t), ticks_.data(),
      sizeof(std::uint64_t), VK_QUERY_RESULT_64_BIT);
  if (device_.note(result) != VK_SUCCESS) return;
  const std::uint32_t bits = plan_.snapshot.queue_families[plan_.queue_family].timestamp_bits;
  const std::uint64_t mask = bits >= 64 ? ~0ULL : (1ULL << bits) - 1;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    const std::uint64_t ticks = (ticks_[i + 1] - ticks_[i]) & mask;  // right also across a counter's wrap
    add(batch.labels[i], static_cast<double>(ticks) * static_cast<double>(plan_.snapshot.timestamp_period) * 1e-3);
  }
}

void Profiler::add(const char* label, double microseconds) {
  auto entry =
      std::find_if(totals_.begin(), totals_.end(), [label](const ProfileEntry& e) { return e.label == label; });
  if (entry == totals_.end()) entry = totals_.insert(totals_.end(), ProfileEntry{label, 0, 0.0});
  ++entry->count;
  entry->microseconds += microseconds;
}

std::vector<ProfileEntry> Profiler::take() { return std::exchange(totals_, {}); }

}  // namespace kvant
