#include "executor.hpp"

namespace kvant {

Dispatch& CommandList::add_dispatch(KernelId kernel, const char* label, bool barrier_before) {
  Command& command = commands.emplace_back();
  command.type = Command::Type::dispatch;
  command.barrier_before = barrier_before;
  command.label = label;
  command.dispatch.kernel = kernel;
  return command.dispatch;
}

void CommandList::add_copy(const Copy& copy, const char* label, bool barrier_before) {
  Command& command = commands.emplace_back();
  command.type = Command::Type::copy;
  command.barrier_before = barrier_before;
  command.label = label;
  command.copy = copy;
}

void CommandList::add_fill(const Fill& fill, const char* label, bool barrier_before) {
  Command& command = commands.emplace_back();
  command.type = Command::Type::fill;
  command.barrier_before = barrier_before;
  command.label = label;
  command.fill = fill;
}

}  // namespace kvant
