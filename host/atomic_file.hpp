// AtomicFile: a file that is there whole or not at all. Written under a temporary name in its folder, and renamed when complete.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "status.hpp"

namespace kvant {

class AtomicFile {
 public:
  // Errors: unavailable (the folder cannot be written).
  static Result<std::unique_ptr<AtomicFile>> create(const std::string& path);
  ~AtomicFile();  // without commit nothing is left behind
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  Status write(std::span<const std::byte> bytes);  // errors: unavailable (disk full, ...)
  // Reaches the disk and takes its name, replacing what had it.
  Status commit();

 private:
  explicit AtomicFile(std::string path) : path_(std::move(path)) {}
  Status failed(const char* verb) const;

  std::string path_, temporary_;
  int file_ = -1;
};

// Reads a file piece by piece.
class FileReader {
 public:
  static Result<std::unique_ptr<FileReader>> open(const std::string& path);  // errors: not_found, unavailable
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  Result<std::size_t> read(std::span<std::byte> out);  // bytes read; 0 at the end

 private:
  explicit FileReader(std::string path) : path_(std::move(path)) {}
  std::string path_;
  int file_ = -1;
};

}  // namespace kvant
