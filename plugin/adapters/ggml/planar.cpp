#include "planar.hpp"

#include <algorithm>

#include "buffers.hpp"
#include "ggml_log.hpp"
#include "operations.hpp"
#include "page_rows.hpp"
#include "work.hpp"

namespace kvant::ggml {

namespace {

constexpr std::uint32_t kFewUses = 16;     // a tensor that is turned back after fewer graphs gets a strike
constexpr std::uint32_t kMostStrikes = 4;  // and is left alone after so many

// Where tensors begin that the device may bind, whatever it asks of bindings.
constexpr std::uint64_t kAlignedBytes = 256;

// A leaf that outlives its graph, in memory that the device alone sees.
bool may_be_cache(const ggml_tensor* root) {
  return root->op == GGML_OP_NONE && root->buffer != nullptr && root->buffer->usage != GGML_BACKEND_BUFFER_USAGE_COMPUTE &&
         !is_shared(root->buffer) && offset_of(root) % kAlignedBytes == 0;
}

// A tensor of whole pages of rows.
bool rows_may_be_pages(const ggml_tensor* root) {
  return format_of(root->type).has_value() && ggml_is_contiguous(root) && ggml_nrows(root) % kPageTokens == 0 && ggml_nelements(root) > 0;
}

bool can_bind_pages(const ggml_tensor* root, std::uint32_t page_tokens, const ExecutorLimits& limits) {
  const std::uint64_t page = std::uint64_t{ggml_row_size(root->type, root->ne[0])} * page_tokens;
  return ggml_nbytes(root) <= limits.max_binding_bytes || kAlignedPages * page <= limits.max_binding_bytes;
}

// The largest that the device likes, that can be bound, and of which each matrix of the tensor (llama.cpp's stream) has a whole number.
std::uint32_t page_tokens_of(const ggml_tensor* root, const ExecutorLimits& limits) {
  std::uint32_t tokens = std::max(limits.run_tokens, kPageTokens);
  while (tokens > kPageTokens && (root->ne[1] % tokens != 0 || !can_bind_pages(root, tokens, limits))) tokens /= 2;
  return tokens;
}

PageRows side_of(const PlanarTensor& tensor) { return {tensor.format, tensor.head_dim, tensor.heads, tensor.page_tokens, tensor.page_bytes()}; }

bool overlap(std::uint64_t a, std::uint64_t a_size, std::uint64_t b, std::uint64_t b_size) { return a < b + b_size && b < a + a_size; }

}  // namespace

bool rows_are_heads(const ggml_tensor* view, std::uint32_t heads, const ExecutorLimits& limits) {
  const ggml_tensor* root = root_of(view);
  if (!rows_may_be_pages(root) || view->type != root->type) return false;
  const FormatInfo& format = format_info(*format_of(view->type));
  const auto head_dim = static_cast<std::uint32_t>(view->ne[0]);
  if (head_dim % format.canonical_block != 0) return false;
  const std::uint32_t page_tokens = page_tokens_of(root, limits);
  const std::uint64_t head_bytes = canonical_row_bytes(format, head_dim), row = heads * head_bytes, page = row * page_tokens;
  const std::uint64_t offset = view->view_src != nullptr ? view->view_offs : 0;
  const bool rows = ggml_row_size(root->type, root->ne[0]) == row && view->nb[1] == row && (heads == 1 || view->nb[2] == head_bytes) &&
                    offset % page == 0 && (view->ne[3] == 1 || view->nb[3] % page == 0);
  return rows && can_bind_pages(root, page_tokens, limits) && page_layout(format, head_dim, page_tokens).head_bytes == head_bytes * page_tokens;
}

PlanarTensor* PlanarTensors::at(BufferId buffer, std::uint64_t offset) {
  for (PlanarTensor& t : tensors_)
    if (t.buffer == buffer && t.offset == offset) return &t;
  return nullptr;
}

Status PlanarTensors::note_rows_set(Work& work, const ggml_tensor* destination) {
  const ggml_tensor* root = root_of(destination);
  if (mode_ == PlanarMode::never || !may_be_cache(root) || !rows_may_be_pages(root)) return {};
  const BufferId buffer = buffer_id(root);
  if (buffer == BufferId::none) return {};
  PlanarTensor tensor;
  tensor.buffer = buffer;
  tensor.offset = offset_of(root);
  tensor.bytes = ggml_nbytes(root);
  tensor.format = *format_of(root->type);
  tensor.row_bytes = ggml_row_size(root->type, root->ne[0]);
  tensor.page_tokens = page_tokens_of(root, work.executor().limits());
  const PlanarTensor* known = at(buffer, tensor.offset);
  if (known != nullptr && known->bytes == tensor.bytes && known->format == tensor.format && known->row_bytes == tensor.row_bytes &&
      known->page_tokens == tensor.page_tokens)
    return {};
  KVANT_TRY(release(work, buffer, tensor.offset, tensor.bytes));
  tensors_.push_back(tensor);
  return {};
}

Status PlanarTensors::release(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t bytes) {
  KVANT_TRY(settle(work, buffer, offset, bytes));
  std::erase_if(tensors_, [&](const PlanarTensor& t) { return t.buffer == buffer && overlap(t.offset, t.bytes, offset, bytes); });
  return {};
}

Status PlanarTensors::prepare(Work& work, const ggml_tensor* k, const ggml_tensor* v, std::uint32_t kv_heads) {
  if (mode_ == PlanarMode::never) return {};
  const ggml_tensor* const sides[] = {k, v};
  for (const ggml_tensor* side : sides)
    if (!may_be_cache(root_of(side)) || !rows_are_heads(side, kv_heads, work.executor().limits()) || buffer_id(side) == BufferId::none) return {};
  if (root_of(k) == root_of(v) && k->ne[0] != v->ne[0]) return {};
  if (mode_ == PlanarMode::always)
    for (const ggml_tensor* side : sides) KVANT_TRY(note_rows_set(work, side));
  for (const ggml_tensor* side : sides) {
    const PlanarTensor* t = at(buffer_id(side), offset_of(root_of(side)));
    if (t == nullptr || t->strikes >= kMostStrikes) return {};
  }
  for (const ggml_tensor* side : sides) {
    PlanarTensor& t = *at(buffer_id(side), offset_of(root_of(side)));
    const auto head_dim = static_cast<std::uint32_t>(side->ne[0]);
    if (t.planar && (t.heads != kv_heads || t.head_dim != head_dim)) KVANT_TRY(settle(work, t.buffer, t.offset, t.bytes));
    if (t.planar) {
      ++t.uses;
      continue;
    }
    t.heads = kv_heads;
    t.head_dim = head_dim;
    KVANT_TRY(turn(work, t, true));
    log_debug(std::string(root_of(side)->name) + " lies in pages now: " + std::string(format_info(t.format).name) + ", " +
              std::to_string(t.heads) + " heads of " + std::to_string(t.head_dim) + ", " + std::to_string(t.page_tokens) + " rows a page");
  }
  return {};
}

// Through scratch memory, a piece of whole pages after the other.
Status PlanarTensors::turn(Work& work, PlanarTensor& tensor, bool planar) {
  const std::uint64_t pages = tensor.bytes / tensor.page_bytes();
  const std::uint64_t piece = std::max<std::uint64_t>(kPieceBytes / tensor.page_bytes() / kAlignedPages, 1) * kAlignedPages;
  KVANT_ASSIGN(const BufferRange rows, work.scratch(Scratch::rows, std::min(pages, piece) * tensor.page_bytes()));
  for (std::uint64_t page = 0; page < pages; page += piece) {
    const std::uint64_t bytes = std::min(piece, pages - page) * tensor.page_bytes(), at = tensor.offset + page * tensor.page_bytes();
    const auto first = static_cast<std::uint32_t>(page), count = static_cast<std::uint32_t>(std::min(piece, pages - page));
    if (planar) work.list().add_copy({tensor.buffer, at, rows.buffer, rows.offset, bytes}, "to_pages", true);
    KVANT_TRY(move(work, planar ? KernelId::import : KernelId::extract, tensor, first, count, rows));
    if (!planar) work.list().add_copy({rows.buffer, rows.offset, tensor.buffer, at, bytes}, "to_rows", true);
  }
  tensor.planar = planar;
  if (planar)
    tensor.uses = 0;
  else if (tensor.uses < kFewUses)
    ++tensor.strikes;
  return {};
}

const PlanarTensor* PlanarTensors::holding(BufferId buffer, std::uint64_t offset, std::uint64_t size) const {
  for (const PlanarTensor& t : tensors_)
    if (t.planar && t.buffer == buffer && t.offset <= offset && offset + size <= t.offset + t.bytes) return &t;
  return nullptr;
}

bool PlanarTensors::touches(BufferId buffer, std::uint64_t offset, std::uint64_t size) const {
  return std::any_of(tensors_.begin(), tensors_.end(), [&](const PlanarTensor& t) {
    return t.planar && t.buffer == buffer && overlap(t.offset, t.bytes, offset, size);
  });
}

const PlanarTensor* PlanarTensors::find(const ggml_tensor* tensor) const {
  if (tensors_.empty()) return nullptr;
  const BufferId buffer = buffer_id(tensor);
  const PlanarTensor* t = buffer == BufferId::none ? nullptr : holding(buffer, offset_of(tensor), ggml_nbytes(tensor));
  return t != nullptr && format_of(tensor->type) == t->format ? t : nullptr;
}

std::optional<PlanarView> PlanarTensors::view(const ggml_tensor* tensor, const ExecutorLimits& limits) const {
  const PlanarTensor* t = find(tensor);
  const auto heads = static_cast<std::uint32_t>(tensor->ne[2]);
  if (t == nullptr || t->heads != heads || t->head_dim != static_cast<std::uint32_t>(tensor->ne[0]) || !rows_are_heads(tensor, heads, limits))
    return std::nullopt;
  const std::uint64_t sequence = tensor->ne[3] == 1 ? 0 : tensor->nb[3];
  return PlanarView{t, static_cast<std::uint32_t>((offset_of(tensor) - t->offset) / t->page_bytes()),
                    static_cast<std::uint32_t>(sequence / t->page_bytes())};
}

Status PlanarTensors::settle(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t bytes) {
  for (PlanarTensor& t : tensors_)
    if (t.planar && t.buffer == buffer && overlap(t.offset, t.bytes, offset, bytes)) KVANT_TRY(turn(work, t, false));
  return {};
}

Status PlanarTensors::settle(Work& work, const ggml_tensor* tensor) {
  if (tensors_.empty() || tensor == nullptr) return {};
  const BufferId buffer = buffer_id(tensor);
  return buffer == BufferId::none ? Status() : settle(work, buffer, offset_of(tensor), ggml_nbytes(tensor));
}

namespace {

// The pages that hold some of a tensor's bytes.
struct Pages {
  std::uint32_t first = 0, count = 0;
  std::uint64_t skipped = 0;  // bytes of the first page before the range
};

Pages pages_of(const PlanarTensor& t, std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t begin = offset - t.offset, first = begin / t.page_bytes(), end = (begin + size + t.page_bytes() - 1) / t.page_bytes();
  return {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(end - first), begin - first * t.page_bytes()};
}

}  // namespace

Result<bool> PlanarTensors::reach(Work& work, BufferId buffer, std::uint64_t offset, std::uint64_t size) {
  const PlanarTensor* t = holding(buffer, offset, size);
  if (t == nullptr) {
    KVANT_TRY(settle(work, buffer, offset, size));
    return false;
  }
  KVANT_ASSIGN([[maybe_unused]] const BufferRange rows, work.scratch(Scratch::rows, pages_of(*t, offset, size).count * t->page_bytes()));
  return true;
}

Status PlanarTensors::move(Work& work, KernelId kernel, const PlanarTensor& t, std::uint32_t first, std::uint32_t count, const BufferRange& rows) {
  bool barrier = true;
  return record_page_rows(work, kernel, side_of(t), count * t.page_tokens, rows.buffer, rows.offset, {t.row_bytes, t.row_bytes / t.heads},
                          {t.buffer, t.offset, t.bytes}, first, &barrier);
}

Status PlanarTensors::read(Work& work, BufferId buffer, std::uint64_t offset, const BufferRange& to) {
  const PlanarTensor& t = *holding(buffer, offset, to.size);
  const Pages pages = pages_of(t, offset, to.size);
  KVANT_ASSIGN(const BufferRange rows, work.scratch(Scratch::rows, pages.count * t.page_bytes()));
  KVANT_TRY(move(work, KernelId::extract, t, pages.first, pages.count, rows));
  work.list().add_copy({rows.buffer, rows.offset + pages.skipped, to.buffer, to.offset, to.size}, "get_rows", true);
  return {};
}

Status PlanarTensors::write(Work& work, const BufferRange& from, BufferId buffer, std::uint64_t offset) {
  const PlanarTensor& t = *holding(buffer, offset, from.size);
  const Pages pages = pages_of(t, offset, from.size);
  KVANT_ASSIGN(const BufferRange rows, work.scratch(Scratch::rows, pages.count * t.page_bytes()));
  // What else these pages hold stays.
  if (from.size != pages.count * t.page_bytes()) KVANT_TRY(move(work, KernelId::extract, t, pages.first, pages.count, rows));
  work.list().add_copy({from.buffer, from.offset, rows.buffer, rows.offset + pages.skipped, from.size}, "set_rows", true);
  return move(work, KernelId::import, t, pages.first, pages.count, rows);
}

bool PlanarTensors::whole(BufferId buffer, std::uint64_t offset, std::uint64_t size) const {
  const std::uint64_t end = offset + size;
  return std::all_of(tensors_.begin(), tensors_.end(), [&](const PlanarTensor& t) {
    if (!t.planar || t.buffer != buffer || !overlap(t.offset, t.bytes, offset, size)) return true;
    const bool begins = offset <= t.offset || (offset - t.offset) % t.page_bytes() == 0;
    const bool ends = end >= t.offset + t.bytes || (end - t.offset) % t.page_bytes() == 0;
    return begins && ends;
  });
}

bool PlanarTensors::alike(BufferId source, std::uint64_t source_offset, BufferId destination, std::uint64_t offset, std::uint64_t size) const {
  const PlanarTensor *from = holding(source, source_offset, size), *to = holding(destination, offset, size);
  if (from == nullptr || to == nullptr) return !touches(source, source_offset, size) && !touches(destination, offset, size);
  return from->format == to->format && from->heads == to->heads && from->head_dim == to->head_dim && from->page_tokens == to->page_tokens &&
         (source_offset - from->offset) % from->page_bytes() == 0 && (offset - to->offset) % to->page_bytes() == 0 && size % to->page_bytes() == 0;
}

void PlanarTensors::forget(BufferId buffer) {
  std::erase_if(tensors_, [&](const PlanarTensor& t) { return t.buffer == buffer; });
}

}  // namespace kvant::ggml
