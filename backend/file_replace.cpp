#include "file_replace.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "quoted_text.hpp"

namespace kvant {

Status replace_file(const std::string& path, std::span<const std::byte> bytes, std::string_view what) {
  const auto failed = [&](const std::string& file, const std::string& how) {
    return Status(StatusCode::unavailable, "the " + std::string(what) + " file (" + quoted_text(file, kMostPathBytes) + ") " + how);
  };
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  // Two threads of one process may save at once.
  const std::size_t thread = std::hash<std::thread::id>()(std::this_thread::get_id());
  const std::string temporary = path + ".tmp" + std::to_string(getpid()) + "-" + std::to_string(thread);
  {
    std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    stream.close();
    if (!stream) {
      std::filesystem::remove(temporary, error);
      return failed(temporary, "could not be written");
    }
  }
  std::filesystem::rename(temporary, path, error);
  if (!error) return {};
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  return failed(path, "could not be replaced: " + error.message());
}

}  // namespace kvant
