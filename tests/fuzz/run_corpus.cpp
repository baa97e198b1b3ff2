// The main of a fuzz target where there is no libFuzzer: runs every file of the folders that it is given, in the order
// of their names. So seeds and what fuzzing once found are tests of any build.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz_input.hpp"

namespace {

namespace fs = std::filesystem;

// In memory of exactly this size, that a sanitizer sees a step beyond.
void run_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.good() && !file.eof()) {
    std::fprintf(stderr, "%s cannot be read\n", path.c_str());
    std::exit(2);
  }
  std::vector<std::uint8_t> input(bytes.size());
  std::copy(bytes.begin(), bytes.end(), input.begin());
  input.shrink_to_fit();
  std::fprintf(stderr, "%s: %zu bytes\n", path.filename().c_str(), input.size());
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(argv[i]))
      if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) run_file(file);
  std::printf("%zu inputs\n", files.size());
  return files.empty() ? 2 : 0;  // a corpus that is not there is no success
}
