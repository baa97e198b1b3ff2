// A tier of the engine's: its functions keep sealed entries, so that what they give back is checked like a file.
#include <optional>
#include <string>
#include <utility>

#include "tier.hpp"
#include "tier_counters.hpp"
#include "tier_entry.hpp"

namespace kvant {
namespace {

// The entry may be replaced by a larger one between asking for its size and reading it; not forever.
constexpr int kReadAttempts = 4;

class CustomTier final : public Tier {
 public:
  explicit CustomTier(const CustomTierFunctions& functions)
      : functions_(functions), name_(functions.name == nullptr ? "custom" : functions.name) {
    functions_.name = nullptr;  // the caller's text may be gone by the next call
  }

  std::string_view name() const override { return name_; }

  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const Stopwatch watch;
    if (value.empty() || value.size() > kMaxEntryBytes) return counters_.rejected(false);
    if (functions_.contains != nullptr && functions_.contains(functions_.user_data, raw(key)) == 1)
      return counters_.stored(0, watch.seconds());
    const std::vector<std::byte> entry = make_entry(key, value);
    if (functions_.put(functions_.user_data, raw(key), entry.data(), entry.size()) != 1)
      return counters_.rejected(false);
    return counters_.stored(value.size(), watch.seconds());
  }

  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    std::vector<std::vector<std::byte>> values(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Stopwatch watch;
      const std::optional<TierCounters::Miss> miss = read(keys[i], values[i]);
      if (!miss.has_value()) {
        counters_.hit(values[i].size(), watch.seconds());
        continue;
      }
      if (*miss == TierCounters::Miss::corrupt) erase(keys[i]);
      counters_.missed(*miss);
    }
    return values;
  }

  std::vector<bool> contains(std::span<const TierKey> keys) override {
    std::vector<bool> there(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
      there[i] = functions_.contains != nullptr ? functions_.contains(functions_.user_data, raw(keys[i])) == 1
                                                : functions_.get(functions_.user_data, raw(keys[i]), nullptr, 0) != 0;
    return there;
  }

  void erase(const TierKey& key) override {
    if (functions_.erase != nullptr) functions_.erase(functions_.user_data, raw(key));
  }

  void clear() override {
    if (functions_.clear != nullptr) functions_.clear(functions_.user_data);
  }

  TierStats stats() const override { return counters_.snapshot(); }

 private:
  static const std::uint8_t* raw(const TierKey& key) { return reinterpret_cast<const std::uint8_t*>(key.bytes.data()); }

  // None: a hit.
  std::optional<TierCounters::Miss> read(const TierKey& key, std::vector<std::byte>& value) {
    std::vector<std::byte> entry;
    for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
      const std::uint64_t size =
          functions_.get(functions_.user_data, raw(key), entry.empty() ? nullptr : entry.data(), entry.size());
      if (size == 0) return TierCounters::Miss::absent;
      if (size < kEntryHeaderBytes || size > kMaxEntryBytes + kEntryHeaderBytes) return TierCounters::Miss::corrupt;
      if (size > entry.size()) {
        entry.assign(size, std::byte{});
        continue;
      }
      const std::optional<OpenEntry> opened = open_entry(std::span(entry).first(size), key);
      if (!opened.has_value() || opened->part != EntryPart{}) return TierCounters::Miss::corrupt;
      value.assign(opened->value.begin(), opened->value.end());
      return std::nullopt;
    }
    return TierCounters::Miss::failed;
  }

  CustomTierFunctions functions_;
  const std::string name_;
  TierCounters counters_;
};

}  // namespace

Result<std::unique_ptr<Tier>> make_custom_tier(const CustomTierFunctions& functions) {
  if (functions.put == nullptr)
    return Status(StatusCode::invalid_argument, "put of the custom tier is NULL; expected a function");
  if (functions.get == nullptr)
    return Status(StatusCode::invalid_argument, "get of the custom tier is NULL; expected a function");
  return std::unique_ptr<Tier>(std::make_unique<CustomTier>(functions));
}

}  // namespace kvant
