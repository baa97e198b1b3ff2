#include "injector.hpp"

#include <atomic>

namespace faults {
namespace {

std::atomic<Kind> armed_kind{Kind::none};
std::atomic<std::uint64_t> armed_n{0}, seen{0};
std::atomic<bool> has_fired{false}, in_call{false};
thread_local unsigned driver_depth = 0;
thread_local bool is_caller = false;

}  // namespace

void arm(Kind kind, std::uint64_t n) {
  armed_kind = kind;
  armed_n = n;
  seen = 0;
  has_fired = false;
}

std::uint64_t events() { return seen; }
bool fired() { return has_fired; }

void begin_call() {
  is_caller = true;
  in_call = true;
}

void end_call() {
  in_call = false;
  is_caller = false;
}

bool event(Kind kind) {
  if (kind == Kind::host_allocation && !is_caller) kind = Kind::worker_allocation;
  if (armed_kind.load(std::memory_order_relaxed) != kind || !in_call || driver_depth != 0) return false;
  if (seen.fetch_add(1) + 1 != armed_n) return false;
  has_fired = true;
  return true;
}

void enter_driver() { ++driver_depth; }
void leave_driver() { --driver_depth; }
bool in_driver() { return driver_depth != 0; }

}  // namespace faults
