// DiskFolder: the files of a disk tier, <folder>/<2 hexadecimal digits>/<64 hexadecimal digits>.kv, one an entry. Knows
// names, reading, writing under a temporary name and what a dead writer leaves; which entries stay is the tier's
// matter. Thread rule: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "status.hpp"
#include "tier.hpp"

namespace kvant {

struct DiskFile {
  TierKey key;
  std::uint64_t bytes = 0;
  std::int64_t used_ns = 0;  // last use, by the file's modification time
};

enum class DiskRead { hit, absent, corrupt, failed };

class DiskFolder {
 public:
  // Errors: unavailable (cannot be made, or is no folder that can be written).
  static Result<std::unique_ptr<DiskFolder>> open(const std::string& path);
  ~DiskFolder();
  DiskFolder(const DiskFolder&) = delete;
  DiskFolder& operator=(const DiskFolder&) = delete;

  // Every file that has an entry's name, least recently used first. Removes temporary files whose writers are gone.
  std::vector<DiskFile> scan();

  // The value of an entry that is sound; it counts as used from now on.
  DiskRead read(const TierKey& key, std::vector<std::byte>& value);
  // An entry of this size is there; it counts as used from now on.
  bool refresh(const TierKey& key, std::uint64_t value_bytes);
  std::optional<std::uint64_t> file_bytes(const TierKey& key) const;
  // The file is there whole or not at all. False: disk full, folder gone.
  bool write(const TierKey& key, std::span<const std::byte> value);
  void remove(const TierKey& key);

 private:
  explicit DiskFolder(int folder) : folder_(folder) {}

  int open_temporary(const std::string& name, std::string& temporary);
  void scan_part(const std::string& part, std::vector<DiskFile>& files);
  void remove_if_abandoned(const std::string& name);
  std::int64_t stamp();

  const int folder_;  // held open: names stay right whatever becomes of the working directory
  std::atomic<std::uint64_t> temporaries_{0};
  std::atomic<std::int64_t> last_stamp_{0};
};

}  // namespace kvant
