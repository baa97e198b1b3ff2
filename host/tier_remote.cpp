// The remote tier: entries in memcached servers, cut into parts that a server takes, each sealed in an envelope of its
// own. Beside its parts an entry has a mark of one byte, so that asking whether it is there moves no values.
#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "memcached_client.hpp"
#include "tier.hpp"
#include "tier_counters.hpp"
#include "tier_entry.hpp"

namespace kvant {
namespace {

constexpr std::uint64_t kLeastValueBytes = 2 * kEntryHeaderBytes;
// Entries are asked for in groups of this, which bounds what is held of them beside the result.
constexpr std::size_t kGroupKeys = 64;

std::string name_of(const TierKey& key) { return "kvant" + std::to_string(kEntryVersion) + ":" + tier_key_text(key); }
std::string part_name(const TierKey& key, std::uint32_t part) { return name_of(key) + "." + std::to_string(part); }
std::string mark_name(const TierKey& key) { return name_of(key) + ".mark"; }

// An entry that is being put together. Parts come in any order, and the first one says how many there are.
class Assembly {
 public:
  void add(const TierKey& key, std::uint32_t number, std::span<const std::byte> entry) {
    const std::optional<OpenEntry> opened = open_entry(entry, key);
    if (!opened.has_value() || opened->part.number != number) {
      corrupt_ = true;
      return;
    }
    if (number == 0) {
      first_ = opened->part;
      has_first_ = true;
      parts_.resize(first_.parts);
    }
    // Parts of the same key cut by a client with other settings, or of another value: none of them is wrong, but they
    // do not join.
    if (!has_first_ || number >= first_.parts || opened->part.parts != first_.parts ||
        opened->part.whole != first_.whole)
      return;
    parts_[number].assign(opened->value.begin(), opened->value.end());
  }

  bool has_first() const { return has_first_ && !corrupt_; }
  std::uint32_t parts() const { return first_.parts; }
  bool corrupt() const { return corrupt_; }

  // The value; empty: a part is missing, or (corrupt) they are not of one value.
  std::vector<std::byte> join() {
    if (!has_first_ || corrupt_) return {};
    if (first_.parts == 1) return std::move(parts_[0]);
    std::uint64_t bytes = 0;
    for (const std::vector<std::byte>& part : parts_) {
      if (part.empty()) return {};
      bytes += part.size();
    }
    std::vector<std::byte> value;
    if (bytes <= kMaxEntryBytes) value.reserve(bytes);
    for (const std::vector<std::byte>& part : parts_) {
      if (bytes > kMaxEntryBytes) break;
      value.insert(value.end(), part.begin(), part.end());
    }
    corrupt_ = hash_whole_value(value) != first_.whole;
    if (corrupt_) value.clear();
    return value;
  }

 private:
  EntryPart first_;
  std::vector<std::vector<std::byte>> parts_;
  bool has_first_ = false, corrupt_ = false;
};

class RemoteTier final : public Tier {
 public:
  RemoteTier(std::shared_ptr<const MemcachedLibrary> library, std::vector<MemcachedServerName> servers,
             const RemoteTierSpec& spec)
      : clients_(std::move(library), std::move(servers), spec.timeout_ms),
        part_bytes_(std::min(spec.max_value_bytes, kMaxEntryBytes) - kEntryHeaderBytes) {}

  std::string_view name() const override { return "remote"; }

  bool put(const TierKey& key, std::span<const std::byte> value) override {
    const Stopwatch watch;
    const std::uint64_t parts = (value.size() + part_bytes_ - 1) / part_bytes_;
    if (value.empty() || value.size() > kMaxEntryBytes || parts > kMaxEntryParts) return counters_.rejected(false);
    const MemcachedClients::Lent client = clients_.lend();
    if (client == nullptr) return counters_.rejected(true);
    if (refresh(*client, key, static_cast<std::uint32_t>(parts))) return counters_.stored(0, watch.seconds());
    EntryPart part;
    part.parts = static_cast<std::uint32_t>(parts);
    part.whole = parts == 1 ? 0 : hash_whole_value(value);
    // The first part last: it is what a reader asks for, and the others are there then.
    for (part.number = part.parts; part.number-- > 0;) {
      const std::uint64_t begin = part.number * part_bytes_;
      const auto piece = value.subspan(begin, std::min<std::uint64_t>(part_bytes_, value.size() - begin));
      const MemcachedAnswer answer = client->set(part_name(key, part.number), make_entry(key, piece, part));
      if (answer != MemcachedAnswer::done) return counters_.rejected(answer == MemcachedAnswer::failed);
    }
    const std::byte mark{1};
    client->set(mark_name(key), {&mark, 1});  // without it the entry is found all the same, by who asks for it
    return counters_.stored(value.size(), watch.seconds());
  }

  std::vector<std::vector<std::byte>> get(std::span<const TierKey> keys) override {
    std::vector<std::vector<std::byte>> values(keys.size());
    const MemcachedClients::Lent client = clients_.lend();
    for (std::size_t begin = 0; begin < keys.size(); begin += kGroupKeys) {
      const std::size_t count = std::min(kGroupKeys, keys.size() - begin);
      get_group(client.get(), keys.subspan(begin, count), std::span(values).subspan(begin, count));
    }
    return values;
  }

  std::vector<bool> contains(std::span<const TierKey> keys) override {
    std::vector<bool> there(keys.size());
    const MemcachedClients::Lent client = clients_.lend();
    if (client == nullptr) return there;
    std::vector<std::string> names;
    std::unordered_map<std::string, std::vector<std::size_t>> places;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      std::vector<std::size_t>& place = places[mark_name(keys[i])];
      if (place.empty()) names.push_back(mark_name(keys[i]));
      place.push_back(i);
    }
    client->get(names, [&](std::string_view name, std::span<const std::byte>) {
      const auto found = places.find(std::string(name));
      if (found == places.end()) return;
      for (const std::size_t i : found->second) there[i] = true;
    });
    return there;
  }

  void erase(const TierKey& key) override {
    // The other parts are of no use without the first, and leave by age.
    if (const MemcachedClients::Lent client = clients_.lend(); client != nullptr) forget(*client, key);
  }

  void clear() override {
    if (const MemcachedClients::Lent client = clients_.lend(); client != nullptr) client->flush();
  }

  TierStats stats() const override { return counters_.snapshot(); }

 private:
  static void forget(MemcachedClient& client, const TierKey& key) {
    client.erase(mark_name(key));
    client.erase(part_name(key, 0));
  }

  // Whether every part is held; each counts as used from now on.
  static bool refresh(MemcachedClient& client, const TierKey& key, std::uint32_t parts) {
    if (client.touch(mark_name(key)) != MemcachedAnswer::done) return false;
    for (std::uint32_t part = 0; part < parts; ++part)
      if (client.touch(part_name(key, part)) != MemcachedAnswer::done) return false;
    return true;
  }

  struct Wanted {
    std::size_t entry;
    std::uint32_t part;
  };
  // Asks for the named parts; false: a server failed.
  static bool fetch(MemcachedClient& client, std::span<const TierKey> keys, std::span<const Wanted> wanted,
                    std::vector<Assembly>& entries) {
    std::vector<std::string> names;
    std::unordered_map<std::string, Wanted> places;
    for (const Wanted& part : wanted) {
      names.push_back(part_name(keys[part.entry], part.part));
      places.emplace(names.back(), part);
    }
    return client.get(names, [&](std::string_view name, std::span<const std::byte> value) {
      const auto place = places.find(std::string(name));
      if (place == places.end()) return;  // no answer to this question
      entries[place->second.entry].add(keys[place->second.entry], place->second.part, value);
    }) != MemcachedAnswer::failed;
  }

  void get_group(MemcachedClient* client, std::span<const TierKey> keys, std::span<std::vector<std::byte>> values) {
    const Stopwatch watch;
    // A key that is asked for twice is fetched once.
    std::unordered_map<TierKey, std::size_t, TierKeyHash> first_at;
    std::vector<Assembly> entries(keys.size());
    std::vector<Wanted> wanted;
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (first_at.emplace(keys[i], i).second) wanted.push_back({i, 0});
    bool failed = client == nullptr || !fetch(*client, keys, wanted, entries);
    wanted.clear();
    for (std::size_t i = 0; i < keys.size(); ++i)
      for (std::uint32_t part = 1; entries[i].has_first() && part < entries[i].parts(); ++part)
        wanted.push_back({i, part});
    if (!wanted.empty()) failed |= !fetch(*client, keys, wanted, entries);
    std::size_t hits = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::size_t first = first_at.at(keys[i]);
      values[i] = first == i ? entries[i].join() : values[first];
      hits += !values[i].empty();
    }
    const double seconds = hits == 0 ? 0 : watch.seconds() / static_cast<double>(hits);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (!values[i].empty()) {
        counters_.hit(values[i].size(), seconds);
      } else if (entries[i].corrupt()) {
        forget(*client, keys[i]);
        counters_.missed(TierCounters::Miss::corrupt);
      } else {
        // Which of the misses are the failed server's is not known: the failure counts once.
        counters_.missed(std::exchange(failed, false) ? TierCounters::Miss::failed : TierCounters::Miss::absent);
      }
    }
  }

  MemcachedClients clients_;
  const std::uint64_t part_bytes_;
  TierCounters counters_;
};

}  // namespace

Result<std::unique_ptr<Tier>> make_remote_tier(const RemoteTierSpec& spec) {
  KVANT_ASSIGN(std::vector<MemcachedServerName> servers, parse_memcached_servers(spec.servers));
  if (spec.timeout_ms == 0)
    return Status(StatusCode::invalid_argument, "timeout_ms (0) of the remote tier is no time; expected 1 or more");
  if (spec.max_value_bytes < kLeastValueBytes)
    return Status(StatusCode::invalid_argument, "max_value_bytes (" + std::to_string(spec.max_value_bytes) +
                                                    ") of the remote tier holds no part; expected " +
                                                    std::to_string(kLeastValueBytes) + " or more");
  KVANT_ASSIGN(std::shared_ptr<const MemcachedLibrary> library, MemcachedLibrary::open());
  return std::unique_ptr<Tier>(std::make_unique<RemoteTier>(std::move(library), std::move(servers), spec));
}

}  // namespace kvant
