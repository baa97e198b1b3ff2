#include "profiler.hpp"

#include <algorithm>
#include <utility>

namespace kvant {

Profiler::~Profiler() {
  for (const Batches* batches : {&current_, &pending_, &free_})
    for (const Batch& batch : *batches) device_.vk().vkDestroyQueryPool(device_.handle(), batch.pool, nullptr);
}

Status Profiler::begin(Recorder& recorder, std::size_t commands) {
  if (!uses_timestamps()) return {};
  const auto needed = static_cast<std::uint32_t>(commands + 1);
  const auto fitting =
      std::find_if(free_.begin(), free_.end(), [needed](const Batch& b) { return b.capacity >= needed; });
  if (fitting != free_.end()) {
    current_.splice(current_.end(), free_, fitting);
  } else {
    Batches made(1);
    VkQueryPoolCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = std::max(needed, 256U);
    made.front().labels.reserve(info.queryCount);
    const VkResult result =
        device_.note(device_.vk().vkCreateQueryPool(device_.handle(), &info, nullptr, &made.front().pool));
    if (result != VK_SUCCESS)
      return vk_status(result, "creating a pool of " + std::to_string(info.queryCount) + " timestamps");
    made.front().capacity = info.queryCount;
    current_.splice(current_.end(), made);
  }
  Batch& batch = current_.front();
  batch.labels.clear();
  recorder.reset_queries(batch.pool, needed);
  recorder.timestamp(batch.pool, 0);
  return {};
}

void Profiler::after_command(Recorder& recorder, const char* label) {
  if (current_.empty()) return;
  Batch& batch = current_.front();
  batch.labels.push_back(label);
  recorder.timestamp(batch.pool, static_cast<std::uint32_t>(batch.labels.size()));
}

void Profiler::submitted(std::uint64_t ticket) {
  if (current_.empty()) return;
  current_.front().ticket = ticket;
  pending_.splice(pending_.end(), current_);
}

void Profiler::dropped() { free_.splice(free_.end(), current_); }

void Profiler::collect(std::uint64_t completed) {
  while (!pending_.empty() && pending_.front().ticket <= completed) {
    read(pending_.front());
    free_.splice(free_.end(), pending_, pending_.begin());
  }
}

void Profiler::read(const Batch& batch) {
  // What can fail comes first, so that a batch is added whole or, later, again.
  const std::size_t count = batch.labels.size() + 1;
  ticks_.resize(count);
  for (const char* const label : batch.labels) expect(label);
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

ProfileEntry& Profiler::entry(const char* label) {
  const auto found =
      std::find_if(totals_.begin(), totals_.end(), [label](const ProfileEntry& e) { return e.label == label; });
  return found != totals_.end() ? *found : *totals_.insert(totals_.end(), ProfileEntry{label, 0, 0.0});
}

void Profiler::add(const char* label, double microseconds) {
  ProfileEntry& total = entry(label);
  ++total.count;
  total.microseconds += microseconds;
}

// Labels that only had room made for them are no entries.
std::vector<ProfileEntry> Profiler::take() {
  std::erase_if(totals_, [](const ProfileEntry& total) { return total.count == 0; });
  return std::exchange(totals_, {});
}

}  // namespace kvant
