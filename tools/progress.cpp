// Redraws at most ten times a second.
#include "progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "table.hpp"

namespace kvant::tools {

namespace {

std::string duration_text(double seconds) {
  const auto whole = static_cast<long>(seconds + 0.5);
  return whole < 60 ? std::to_string(whole) + " s"
                    : std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
}

}  // namespace

Progress::Progress(uint64_t total, bool enabled)
    : total_(std::max<uint64_t>(total, 1)), enabled_(enabled), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { clear(); }

void Progress::phase(const std::string& text) {
  phase_ = text;
  if (enabled_ && !terminal_) {
    std::fprintf(stderr, "[%3.0f %%] %s\n", 100.0 * static_cast<double>(done_) / static_cast<double>(total_),
                 text.c_str());
  }
  draw(true);
}

void Progress::advance(uint64_t steps) {
  done_ = std::min(done_ + steps, total_);
  draw(false);
}

void Progress::clear() {
  if (drawn_) {
    std::fputs("\r\033[K", stderr);
    drawn_ = false;
  }
}

void Progress::draw(bool force) {
  if (!enabled_ || !terminal_ || (!force && drawn_ && since_draw_.seconds() < 0.1)) {
    return;
  }
  constexpr uint64_t kCells = 24;
  const uint64_t filled = done_ * kCells / total_;
  std::string bar;
  for (uint64_t cell = 0; cell < kCells; ++cell) {
    bar += cell < filled ? "█" : "░";
  }
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double spent = since_begin_.seconds();
  const std::string left =
      share > 0.01 && spent > 1.0 ? ", " + duration_text(spent / share * (1.0 - share)) + " left" : "";
  std::fprintf(stderr, "\r\033[K%s %3.0f %%  %s%s", bar.c_str(), 100.0 * share, phase_.c_str(), left.c_str());
  std::fflush(stderr);
  drawn_ = true;
  since_draw_.restart();
}

}  // namespace kvant::tools
