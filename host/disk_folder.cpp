#include "disk_folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <tuple>
#include <utility>

#include "rollback.hpp"
#include "tier_entry.hpp"

namespace kvant {
namespace {

constexpr std::string_view kEntrySuffix = ".kv", kTemporarySuffix = ".tmp";
constexpr std::size_t kKeyDigits = 64;

class File {
 public:
  explicit File(int number) : number_(number) {}
  ~File() {
    if (number_ >= 0) ::close(number_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

std::string part_of(const TierKey& key) { return tier_key_text(key).substr(0, 2); }
std::string file_name(const TierKey& key) {
  return part_of(key) + "/" + tier_key_text(key) + std::string(kEntrySuffix);
}

int digit_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

std::optional<TierKey> key_from_text(std::string_view text) {
  TierKey key;
  if (text.size() != kKeyDigits) return std::nullopt;
  for (std::size_t i = 0; i < key.bytes.size(); ++i) {
    const int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    key.bytes[i] = static_cast<std::byte>(high * 16 + low);
  }
  return key;
}

// <64 digits>.<process>.<number>.tmp, as open_temporary makes them.
bool is_temporary_name(std::string_view name) {
  return name.ends_with(kTemporarySuffix) && name.size() > kKeyDigits + kTemporarySuffix.size() &&
         name[kKeyDigits] == '.' && key_from_text(name.substr(0, kKeyDigits)).has_value();
}

bool write_all(int file, std::span<const std::byte> head, std::span<const std::byte> body) {
  while (!head.empty() || !body.empty()) {
    const iovec pieces[2] = {{const_cast<std::byte*>(head.data()), head.size()},
                             {const_cast<std::byte*>(body.data()), body.size()}};
    const ssize_t written = ::writev(file, pieces, 2);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    const std::size_t of_head = std::min(head.size(), static_cast<std::size_t>(written));
    head = head.subspan(of_head);
    body = body.subspan(static_cast<std::size_t>(written) - of_head);
  }
  return true;
}

// `corrupt`: the file ended early.
DiskRead read_all(int file, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::read(file, out.data(), out.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return DiskRead::failed;
    if (got == 0) return DiskRead::corrupt;
    out = out.subspan(static_cast<std::size_t>(got));
  }
  return DiskRead::hit;
}

std::vector<std::string> names_in(int folder, const char* name) {
  std::vector<std::string> names;
  File opened(::openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!opened.is_open()) return names;
  DIR* stream = ::fdopendir(opened.number());
  if (stream == nullptr) return names;
  opened.release();  // closed with the stream
  const Rollback close([stream] { ::closedir(stream); });  // in any case
  while (const dirent* found = ::readdir(stream)) names.emplace_back(found->d_name);
  return names;
}

Status folder_error(const char* verb, const std::string& path) {
  return {StatusCode::unavailable, std::string("cannot ") + verb + " the folder " + path +
                                       " of the disk tier: " + std::generic_category().message(errno)};
}

}  // namespace

Result<std::unique_ptr<DiskFolder>> DiskFolder::open(const std::string& path) {
  // Each folder on the way that is missing.
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (::mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST && slash == std::string::npos)
      return folder_error("make", path);
    if (slash == std::string::npos) break;
  }
  File folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) return folder_error("open", path);
  std::unique_ptr<DiskFolder> made(new DiskFolder(folder.number()));
  folder.release();
  if (::faccessat(made->folder_, ".", W_OK | X_OK, AT_EACCESS) != 0) return folder_error("write to", path);
  return made;
}

DiskFolder::~DiskFolder() { ::close(folder_); }

// Now, and later than any stamp before: the order of uses survives clocks that stand or go back.
std::int64_t DiskFolder::stamp() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const std::int64_t wanted = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  std::int64_t last = last_stamp_.load();
  while (!last_stamp_.compare_exchange_weak(last, std::max(wanted, last + 1))) {
  }
  return std::max(wanted, last + 1);
}

namespace {

struct FileTimes {
  explicit FileTimes(std::int64_t ns)
      : values{{0, UTIME_OMIT}, {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)}} {}
  timespec values[2];  // of access, which stays as it is, and of modification
};

}  // namespace

std::vector<DiskFile> DiskFolder::scan() {
  std::vector<DiskFile> files;
  for (const std::string& part : names_in(folder_, "."))
    if (part.size() == 2 && digit_value(part[0]) >= 0 && digit_value(part[1]) >= 0) scan_part(part, files);
  std::sort(files.begin(), files.end(), [](const DiskFile& a, const DiskFile& b) {
    return std::tie(a.used_ns, a.key.bytes) < std::tie(b.used_ns, b.key.bytes);
  });
  return files;
}

void DiskFolder::scan_part(const std::string& part, std::vector<DiskFile>& files) {
  for (const std::string& name : names_in(folder_, part.c_str())) {
    if (is_temporary_name(name)) remove_if_abandoned(part + "/" + name);
    if (name.size() != kKeyDigits + kEntrySuffix.size() || !name.ends_with(kEntrySuffix) || !name.starts_with(part))
      continue;
    const std::optional<TierKey> key = key_from_text(std::string_view(name).substr(0, kKeyDigits));
    struct stat facts {};
    if (!key.has_value() || ::fstatat(folder_, (part + "/" + name).c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(facts.st_mode)) continue;
    const std::int64_t used_ns = std::int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec;
    files.push_back({*key, static_cast<std::uint64_t>(facts.st_size), used_ns});
  }
}

// A writer holds a lock on its temporary file until the file has its name or the process is dead, however it died.
// Process ids would not do: they are used again, and mean nothing to another machine or container that shares the
// folder.
void DiskFolder::remove_if_abandoned(const std::string& name) {
  const File file(::openat(folder_, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.is_open() && ::flock(file.number(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(folder_, name.c_str(), 0);
}

DiskRead DiskFolder::read(const TierKey& key, std::vector<std::byte>& value) {
  // No link is followed, and a pipe of that name must not make us wait.
  const File file(::openat(folder_, file_name(key).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.is_open())
    return errno == ENOENT ? DiskRead::absent : errno == ELOOP ? DiskRead::corrupt : DiskRead::failed;
  struct stat facts {};
  if (::fstat(file.number(), &facts) != 0) return DiskRead::failed;
  if (!S_ISREG(facts.st_mode) || facts.st_size < 0) return DiskRead::corrupt;
  EntryHeader header{};
  if (const DiskRead got = read_all(file.number(), header); got != DiskRead::hit) return got;
  const auto frame = read_entry_header(header, key, static_cast<std::uint64_t>(facts.st_size));
  if (!frame.has_value() || frame->part != EntryPart{}) return DiskRead::corrupt;
  std::vector<std::byte> bytes(frame->value_bytes);
  if (const DiskRead got = read_all(file.number(), bytes); got != DiskRead::hit) return got;
  if (!entry_is_sound(header, bytes)) return DiskRead::corrupt;
  value = std::move(bytes);
  // Where the times may not be changed the order of the next start is less good, no more.
  [[maybe_unused]] const int changed = ::futimens(file.number(), FileTimes(stamp()).values);
  return DiskRead::hit;
}

std::optional<std::uint64_t> DiskFolder::file_bytes(const TierKey& key) const {
  struct stat facts {};
  if (::fstatat(folder_, file_name(key).c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(facts.st_mode))
    return std::nullopt;
  return static_cast<std::uint64_t>(facts.st_size);
}

bool DiskFolder::refresh(const TierKey& key, std::uint64_t value_bytes) {
  if (file_bytes(key) != value_bytes + kEntryHeaderBytes) return false;
  [[maybe_unused]] const int changed =
      ::utimensat(folder_, file_name(key).c_str(), FileTimes(stamp()).values, AT_SYMLINK_NOFOLLOW);
  return true;
}

// A new file, locked, beside where `name` will be; -1: there can be none.
int DiskFolder::open_temporary(const std::string& name, std::string& temporary) {
  const std::string stem = name.substr(0, name.size() - kEntrySuffix.size()) + "." + std::to_string(::getpid()) + ".";
  for (int attempt = 0; attempt < 1000; ++attempt) {
    temporary = stem + std::to_string(temporaries_.fetch_add(1)) + std::string(kTemporarySuffix);
    File file(::openat(folder_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file.is_open() && errno == ENOENT) {  // its part of the folder is not there yet
      if (::mkdirat(folder_, name.substr(0, 2).c_str(), 0755) != 0 && errno != EEXIST) return -1;
      continue;
    }
    if (!file.is_open() && errno == EEXIST) continue;  // of another tier or process
    if (!file.is_open()) return -1;
    // Another tier that just starts may have taken the file for an abandoned one before it was locked; then the next
    // name is tried. Where locks are not supported nobody gets one, and none is removed.
    if (::flock(file.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) continue;
    struct stat facts {};
    if (::fstat(file.number(), &facts) == 0 && facts.st_nlink == 1) return file.release();
  }
  return -1;
}

bool DiskFolder::write(const TierKey& key, std::span<const std::byte> value) {
  const std::string name = file_name(key);
  std::string temporary;
  const File file(open_temporary(name, temporary));
  if (!file.is_open()) return false;
  const EntryHeader header = seal_entry(key, value);
  bool written = write_all(file.number(), header, value);
  // Not flushed to the disk: a killed process cannot take back what the kernel has, and after a loss of power the
  // checksum tells.
  if (written) {
    [[maybe_unused]] const int changed = ::futimens(file.number(), FileTimes(stamp()).values);
    written = ::renameat(folder_, temporary.c_str(), folder_, name.c_str()) == 0;
  }
  if (!written) ::unlinkat(folder_, temporary.c_str(), 0);
  return written;
}

void DiskFolder::remove(const TierKey& key) { ::unlinkat(folder_, file_name(key).c_str(), 0); }

}  // namespace kvant
