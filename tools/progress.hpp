// One line on the terminal that says how far a long command is; silent where stderr is not a terminal.
#pragma once

#include <cstdint>
#include <string>

#include "clock.hpp"

namespace kvant::tools {

class Progress {
 public:
  // `total` steps in all. `enabled` false, or stderr not a terminal: prints one line at each new phase instead.
  Progress(uint64_t total, bool enabled);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // What is being done now.
  void phase(const std::string& text);
  void advance(uint64_t steps = 1);
  // Clears the line, so that other output can be printed.
  void clear();

 private:
  void draw(bool force);

  uint64_t total_;
  uint64_t done_ = 0;
  bool enabled_;
  bool terminal_;
  std::string phase_;
  Stopwatch since_begin_;
  Stopwatch since_draw_;
  bool drawn_ = false;
};

}  // namespace kvant::tools
