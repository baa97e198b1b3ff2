#include "cpu_executor.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace kvant::reference {

namespace {

constexpr std::uint64_t kStagingBytes = 64u << 20;

// Staging stays readable after its submit, until a few later submits: a caller that keeps it longer breaks the contract.
constexpr std::uint64_t kStagingLife = 4;

std::string place(const Command& command) {
  return std::string("command '") + (command.label != nullptr ? command.label : "") + "'";
}

Status bad(const Command& command, const std::string& what) {
  return Status(StatusCode::internal, place(command) + ": " + what);
}

}  // namespace

CpuExecutor::CpuExecutor() {
  limits_.max_slab_bytes = 64u << 20;
  limits_.max_binding_bytes = 64u << 20;
  limits_.binding_alignment = 16;
  limits_.max_staging_bytes = static_cast<std::uint32_t>(kStagingBytes);
  limits_.parallel_workgroups = 4;
}

AttendConfig CpuExecutor::attend_config(const AttendShape& shape) const {
  if (config_) return *config_;
  AttendConfig config;
  config.kernel = shape.max_queries > 1 ? KernelId::attend_prefill : KernelId::attend_decode;
  config.heads_per_tile = shape.group;
  config.queries_per_item = shape.max_queries > 1 ? 16 : 1;
  config.kv_per_item = 256;
  config.kv_split = 256;
  return config;
}

PageKernelConfig CpuExecutor::page_kernel_config(KernelId) const { return {}; }

GuardedBuffer* CpuExecutor::buffer(BufferId id) {
  const auto found = buffers_.find(static_cast<std::uint64_t>(id));
  return found == buffers_.end() ? nullptr : found->second.get();
}

BufferId CpuExecutor::add_buffer(std::uint64_t size) {
  const std::uint64_t id = next_buffer_++;
  buffers_.emplace(id, std::make_unique<GuardedBuffer>(size));
  return static_cast<BufferId>(id);
}

Result<BufferId> CpuExecutor::create_buffer(std::uint64_t size, BufferKind) {
  if (size == 0 || size > limits_.max_slab_bytes)
    return Status(StatusCode::resource_exhausted, "buffer of " + std::to_string(size) + " bytes; the limit is " +
                                                      std::to_string(limits_.max_slab_bytes));
  return add_buffer(size);
}

void CpuExecutor::destroy_buffer(BufferId id) { buffers_.erase(static_cast<std::uint64_t>(id)); }

Result<BufferId> CpuExecutor::import_buffer(std::uint64_t, std::uint64_t) {
  return Status(StatusCode::unimplemented, "the CPU executor has no native buffers");
}

Result<Staging> CpuExecutor::stage(std::uint64_t size, BufferKind kind) {
  if (kind == BufferKind::device) return Status(StatusCode::invalid_argument, "staging is of kind upload or readback");
  if (size > limits_.max_staging_bytes)
    return Status(StatusCode::invalid_argument, "staging of " + std::to_string(size) + " bytes; the limit is " +
                                                    std::to_string(limits_.max_staging_bytes));
  const BufferId id = add_buffer(std::max<std::uint64_t>(size, 4));
  staged_.emplace(static_cast<std::uint64_t>(id), next_ticket_);
  return Staging{BufferRange{id, 0, size}, buffer(id)->data()};
}

Result<Ticket> CpuExecutor::record(const CommandList&, void*) {
  return Status(StatusCode::unimplemented, "the CPU executor has no command buffers");
}

Status CpuExecutor::wait(Ticket ticket) {
  if (static_cast<std::uint64_t>(ticket) >= next_ticket_)
    return Status(StatusCode::invalid_argument, "wait for a ticket that was never given");
  return {};
}

Result<Ticket> CpuExecutor::submit(const CommandList& list) {
  const auto& commands = list.commands;
  for (std::size_t begin = 0; begin < commands.size();) {
    std::size_t end = begin + 1;
    while (end < commands.size() && !commands[end].barrier_before) ++end;
    for (std::size_t i = end; i-- > begin;) KVANT_TRY(run_command(commands[i]));
    begin = end;
  }
  KVANT_TRY(check_guards());
  for (auto it = staged_.begin(); it != staged_.end();) {
    if (it->second + kStagingLife < next_ticket_) {
      buffers_.erase(it->first);
      it = staged_.erase(it);
    } else {
      ++it;
    }
  }
  return static_cast<Ticket>(next_ticket_++);
}

Status CpuExecutor::check_guards() const {
  for (const auto& [id, memory] : buffers_)
    if (!memory->guards_intact())
      return Status(StatusCode::internal, "guard zone of buffer " + std::to_string(id) + " was overwritten");
  return {};
}

Status CpuExecutor::run_command(const Command& command) {
  if (command.type == Command::Type::dispatch) return run_dispatch(command);
  FaultLog log;
  const auto view = [&](BufferId id, const char* name) {
    GuardedBuffer* memory = buffer(id);
    if (memory == nullptr) log.report(std::string(name) + " does not exist");
    return memory == nullptr ? View() : View({memory->data(), memory->size()}, name, log);
  };
  if (command.type == Command::Type::copy) {
    const Copy& copy = command.copy;
    View source = view(copy.source, "source"), destination = view(copy.destination, "destination");
    const std::byte* from = source.range(copy.source_offset, copy.size, "reads");
    std::byte* to = destination.range(copy.destination_offset, copy.size, "writes");
    if (from != nullptr && to != nullptr && log.empty()) std::memmove(to, from, copy.size);
  } else {
    const BufferRange& range = command.fill.range;
    View target = view(range.buffer, "range");
    if (range.offset % 4 != 0 || range.size % 4 != 0) log.report("fill is not a multiple of 4");
    for (std::uint64_t at = 0; at < range.size && log.empty(); at += 4) target.store(range.offset + at, command.fill.value);
  }
  return log.empty() ? Status() : bad(command, log.message());
}

Status CpuExecutor::run_dispatch(const Command& command) {
  const Dispatch& dispatch = command.dispatch;
  if (dispatch.kernel >= KernelId::count) return bad(command, "kernel does not exist");
  const KernelInfo& info = kernel_info(dispatch.kernel);
  FaultLog log;
  KernelCall call;
  call.spec = dispatch.spec;
  call.push = dispatch.push.data();
  call.groups = dispatch.groups;
  call.log = &log;
  call.mutation = mutation_;
  for (std::size_t i = 0; i < 3; ++i)
    if (dispatch.groups[i] == 0 || dispatch.groups[i] > limits_.max_groups[i])
      return bad(command, "grid dimension " + std::to_string(i) + " is " + std::to_string(dispatch.groups[i]));
  for (std::uint32_t i = 0; i < info.bindings; ++i) {
    const BufferRange& range = dispatch.bindings[i];
    const std::string name = std::string(info.name) + " binding " + std::to_string(i);
    call.bindings[i] = View({}, name, log);
    if (range.buffer == BufferId::none) continue;
    GuardedBuffer* memory = buffer(range.buffer);
    if (memory == nullptr) return bad(command, name + " is a buffer that does not exist");
    if (range.offset % limits_.binding_alignment != 0) return bad(command, name + " starts unaligned");
    if (range.size == 0 || range.size > memory->size() || range.offset > memory->size() - range.size)
      return bad(command, name + " lies outside its buffer of " + std::to_string(memory->size()) + " bytes");
    if (range.size > limits_.max_binding_bytes) return bad(command, name + " is larger than max_binding_bytes");
    call.bindings[i] = View({memory->data() + range.offset, static_cast<std::size_t>(range.size)}, name, log);
  }
  const std::string_view name = info.name;
  if (name == "append") run_append(call);
  else if (name == "read") run_read(call);
  else if (name == "means") run_means(call);
  else if (name == "copy") run_copy(call);
  else if (name == "convert") run_convert(call);
  else if (name == "gather") run_gather(call);
  else if (name == "rotate") run_rotate(call);
  else if (name == "transfer") run_transfer(call);
  else if (name == "import") run_import(call);
  else if (name == "extract") run_extract(call);
  else if (name == "rope") run_rope(call);
  else if (name == "hadamard") run_hadamard(call);
  else if (name == "attend_merge") run_merge(call);
  else if (name == "score") run_score(call);
  else if (name.starts_with("attend_decode") || name.starts_with("attend_prefill")) run_attend(call);
  else return bad(command, "kernel " + std::string(name) + " has no reference");
  return log.empty() ? Status() : bad(command, log.message());
}

}  // namespace kvant::reference
