#include "atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

namespace kvant {
namespace {

Status file_error(StatusCode code, const char* verb, const std::string& path, int error) {
  return {code, std::string("cannot ") + verb + " " + path + ": " + std::generic_category().message(error)};
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace

Result<std::unique_ptr<AtomicFile>> AtomicFile::create(const std::string& path) {
  std::unique_ptr<AtomicFile> made(new AtomicFile(path));  // before the file, which then has an owner at once
  // A name that is free: another process, or another thread of this one, may be writing the same file.
  for (unsigned attempt = 0;; ++attempt) {
    made->temporary_ = path + "." + std::to_string(::getpid()) + "." + std::to_string(attempt) + ".tmp";
    made->file_ = ::open(made->temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (made->file_ >= 0) return made;
    if (errno != EEXIST || attempt == 1000) return file_error(StatusCode::unavailable, "create", made->temporary_, errno);
  }
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

Status AtomicFile::failed(const char* verb) const { return file_error(StatusCode::unavailable, verb, temporary_, errno); }

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Status AtomicFile::commit() {
  if (::fsync(file_) != 0) return failed("flush");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return file_error(StatusCode::unavailable, "name", path_, errno);
  ::close(std::exchange(file_, -1));
  // The name itself reaches the disk with its folder; where that cannot be opened the file is there all the same.
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
  return {};
}

Result<std::unique_ptr<FileReader>> FileReader::open(const std::string& path) {
  std::unique_ptr<FileReader> made(new FileReader(path));
  made->file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (made->file_ < 0)
    return file_error(errno == ENOENT ? StatusCode::not_found : StatusCode::unavailable, "open", path, errno);
  return made;
}

FileReader::~FileReader() {
  if (file_ >= 0) ::close(file_);
}

Result<std::size_t> FileReader::read(std::span<std::byte> out) {
  while (true) {
    const ssize_t got = ::read(file_, out.data(), out.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return file_error(StatusCode::unavailable, "read", path_, errno);
  }
}

}  // namespace kvant
