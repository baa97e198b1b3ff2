// Cases of the kernels that move tokens between tensors and pages, of stand-alone quantization, and of the merge kernel.
#include <array>
#include <set>
#include <string>
#include <utility>

#include "cases.hpp"
#include "pairwise.hpp"
#include "transforms.hpp"

namespace kvant::conformance {

namespace {

using std::to_string;

constexpr std::array<std::uint32_t, 9> kDims{32, 40, 64, 80, 96, 128, 192, 256, 576};
constexpr std::array<IoType, 3> kIo{IoType::f32, IoType::f16, IoType::bf16};
constexpr std::array<DataClass, 8> kData{DataClass::normal, DataClass::uniform, DataClass::outlier, DataClass::small,
                                         DataClass::zeros,  DataClass::one_hot, DataClass::ramp,    DataClass::constant};
constexpr std::array<std::uint32_t, 4> kHeads{1, 2, 3, 8};

std::string fmt(FormatId id) { return std::string(format_info(id).name); }

std::uint32_t length_of(std::uint32_t index, std::uint32_t page_tokens) {
  const std::uint32_t lengths[] = {1, page_tokens - 1, page_tokens, page_tokens + 1, 37, 101};
  return lengths[index];
}

FormatId format_at(std::uint32_t index) { return formats()[index].id; }
std::uint32_t format_count() { return static_cast<std::uint32_t>(formats().size()); }

void name_append(Case& c) {
  c.name = "append." + fmt(c.format_k) + "-" + fmt(c.format_v) + ".d" + to_string(c.dim_k) + "-" + to_string(c.dim_v) + ".h" +
           to_string(c.kv_heads) + ".n" + to_string(c.length) + ".p" + to_string(c.page_tokens) + "." +
           std::string(io_name(c.in)) + "." + std::string(data_class_name(c.data)) +
           (c.tables == Tables::shuffled ? ".shuffled" : ".identity") + (c.placement == Placement::strided ? ".strided" : "") + transform_name(c);
}

// append: K and V formats and head dimensions independent. Every format is K and V of a quick case.
void add_append(std::vector<Case>& out) {
  std::uint32_t n = 0;
  std::set<FormatId> seen_k, seen_v;
  for (const auto& row : pairwise_rows({format_count(), format_count(), 9, 9, 4, 6, 2, 3, 8, 2, 2, 3, 3, 3, 3})) {
    Case c;
    c.op = Op::append;
    c.format_k = format_at(row[0]);
    c.format_v = format_at(row[1]);
    c.dim_k = kDims[row[2]];
    c.dim_v = kDims[row[3]];
    c.kv_heads = kHeads[row[4]];
    c.page_tokens = row[6] == 0 ? 16 : 32;
    c.length = length_of(row[5], c.page_tokens);
    c.in = kIo[row[7]];
    c.data = kData[row[8]];
    c.tables = row[9] == 0 ? Tables::identity : Tables::shuffled;
    c.placement = row[10] == 0 ? Placement::buffer : Placement::strided;
    c.rotate_k = row[11] == 0;
    c.rotate_v = row[12] == 0;
    c.centre_k = row[13] == 0;
    c.centre_v = row[14] == 0;
    c.subset = subset_of(n++, 8, 32);
    if (c.subset == Subset::full && c.dim_k + c.dim_v <= 256 && (!seen_k.contains(c.format_k) || !seen_v.contains(c.format_v)))
      c.subset = Subset::quick;
    if (c.subset != Subset::full) seen_k.insert(c.format_k), seen_v.insert(c.format_v);
    name_append(c);
    out.push_back(c);
  }
  // Every format with every class of data, the encoders' own corners, from every input type.
  for (std::uint32_t f = 0; f < format_count(); ++f)
    for (std::uint32_t d = 0; d < kData.size() * kIo.size(); ++d) {
      Case c;
      c.op = Op::append;
      c.format_k = c.format_v = format_at(f);
      c.dim_k = kDims[(f + d) % kDims.size()];
      c.dim_v = kDims[(f * 2 + d + 3) % kDims.size()];
      c.kv_heads = 2;
      c.length = 67;
      c.in = kIo[d / kData.size()];
      c.data = kData[d % kData.size()];
      c.tables = Tables::shuffled;
      c.placement = Placement::buffer;
      name_append(c);
      out.push_back(c);
    }
  // Pages as ggml's cache tensors have on processors.
  for (std::uint32_t f = 0; f < format_count(); ++f) {
    Case c;
    c.op = Op::append;
    c.format_k = format_at(f);
    c.format_v = format_at((f + 1) % format_count());
    c.dim_k = c.dim_v = f % 2 == 0 ? 64 : 128;
    c.kv_heads = 2;
    c.page_tokens = 128;
    c.length = 300;
    c.tables = Tables::shuffled;
    c.placement = Placement::buffer;
    c.subset = f % 6 == 0 ? Subset::quick : Subset::full;
    name_append(c);
    out.push_back(c);
  }
}

void name_read(Case& c) {
  c.name = "read." + fmt(c.format_k) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + ".n" + to_string(c.length) +
           ".p" + to_string(c.page_tokens) + "." + std::string(io_name(c.out)) + "." + std::string(data_class_name(c.data)) +
           (c.placement == Placement::strided ? ".strided" : "") + transform_name(c);
}

void add_read(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (const auto& row : pairwise_rows({format_count(), 9, 4, 6, 2, 3, 8, 2, 2, 2})) {
    Case c;
    c.op = Op::read;
    c.format_k = format_at(row[0]);
    c.dim_k = kDims[row[1]];
    c.kv_heads = kHeads[row[2]];
    c.page_tokens = row[4] == 0 ? 16 : 32;
    c.length = length_of(row[3], c.page_tokens);
    c.out = kIo[row[5]];
    c.data = kData[row[6]];
    c.placement = row[7] == 0 ? Placement::buffer : Placement::strided;
    c.rotate_k = row[8] == 0;
    c.centre_k = row[9] == 0;
    c.subset = subset_of(n++, 4, 24);
    name_read(c);
    out.push_back(c);
  }
  // Every format and head size into every output type.
  for (std::uint32_t f = 0; f < format_count(); ++f)
    for (std::uint32_t t = 0; t < kIo.size(); ++t)
      for (std::uint32_t d = 0; d < kDims.size(); ++d) {
        const std::uint32_t page_tokens = (f + t + d) % 2 == 0 ? 16 : 32;
        Case c;
        c.op = Op::read;
        c.format_k = format_at(f);
        c.dim_k = kDims[d];
        c.kv_heads = 3;
        c.page_tokens = page_tokens;
        c.length = 71;
        c.out = kIo[t];
        c.placement = Placement::strided;
        name_read(c);
        out.push_back(c);
      }
}

void add_copy(std::vector<Case>& out) {
  for (std::uint32_t f = 0; f < format_count(); ++f)
    for (std::uint32_t i = 0; i < 3; ++i) {
      Case c;
      c.op = Op::copy;
      c.format_k = format_at(f);
      c.dim_k = kDims[(f * 3 + i * 4) % kDims.size()];
      c.kv_heads = kHeads[(f + i) % kHeads.size()];
      c.page_tokens = (f + i) % 2 == 0 ? 16 : 32;
      c.batch = 1 + 3 * i;  // pairs
      c.subset = subset_of(f * 3 + i, 5, 15);
      c.name = "copy." + fmt(c.format_k) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + ".p" +
               to_string(c.page_tokens) + ".pairs" + to_string(c.batch);
      out.push_back(c);
    }
}

void add_convert(std::vector<Case>& out) {
  for (std::uint32_t from = 0; from < format_count(); ++from)
    for (std::uint32_t to = 0; to < format_count(); ++to) {
      Case c;
      c.op = Op::convert;
      const std::uint32_t n = from * format_count() + to;
      c.format_k = format_at(from);
      c.format_v = format_at(to);
      c.dim_k = kDims[n % kDims.size()];
      c.kv_heads = kHeads[(n / 2) % kHeads.size()];
      c.page_tokens = n % 2 == 0 ? 16 : 32;
      c.length = length_of(n % 6, c.page_tokens);
      c.data = kData[(n / 3) % kData.size()];
      c.subset = subset_of(n, 7, 35);
      c.name = "convert." + fmt(c.format_k) + "-" + fmt(c.format_v) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) +
               ".n" + to_string(c.length) + ".p" + to_string(c.page_tokens) + "." + std::string(data_class_name(c.data));
      out.push_back(c);
    }
}

void add_quantize(std::vector<Case>& out) {
  for (std::uint32_t f = 0; f < format_count(); ++f)
    for (std::uint32_t i = 0; i < 2 * kDims.size(); ++i) {
      const std::uint32_t d = i % static_cast<std::uint32_t>(kDims.size());
      Case c;
      c.op = Op::quantize;
      c.format_k = format_at(f);
      c.dim_k = kDims[d];
      c.length = i == d ? 5 + 13 * ((f + d) % 4) : 200;
      c.data = i == d ? kData[(f + 2 * d) % kData.size()] : kData[f % 3];
      c.subset = subset_of(f + i, 9, 27);
      c.name = "quantize." + fmt(c.format_k) + ".d" + to_string(c.dim_k) + ".n" + to_string(c.length) + "." +
               std::string(data_class_name(c.data));
      out.push_back(c);
    }
}

void add_merge(std::vector<Case>& out) {
  constexpr std::array<std::uint32_t, 6> kSplits{1, 2, 3, 7, 33, 130};
  std::uint32_t n = 0;
  for (const auto& row : pairwise_rows({6, 9, 4, 3, 3, 2, 2, 2, 2, 2})) {
    Case c;
    c.op = Op::merge;
    c.splits = kSplits[row[0]];
    c.dim_v = kDims[row[1]];
    c.kv_heads = kHeads[row[2]] * 2;  // query heads here
    c.queries = row[3] == 0 ? 1 : row[3] == 1 ? 3 : 19;
    c.out = kIo[row[4]];
    c.sinks = row[5] != 0;
    c.lse = row[6] != 0;
    c.placement = row[7] == 0 ? Placement::buffer : Placement::strided;
    c.rotate_v = row[8] == 0;
    c.centre_v = row[9] == 0;
    c.subset = subset_of(n++, 3, 12);
    c.name = "merge.s" + to_string(c.splits) + ".d" + to_string(c.dim_v) + ".h" + to_string(c.kv_heads) + ".q" +
             to_string(c.queries) + "." + std::string(io_name(c.out)) + (c.sinks ? ".sinks" : "") + (c.lse ? ".lse" : "") +
             (c.placement == Placement::strided ? ".strided" : "") + transform_name(c);
    out.push_back(c);
  }
}

void add_gather(std::vector<Case>& out) {
  for (std::uint32_t f = 0; f < format_count(); ++f)
    for (std::uint32_t i = 0; i < 3; ++i) {
      Case c;
      c.op = Op::gather;
      c.format_k = format_at(f);
      c.dim_k = kDims[(f * 2 + i * 3) % kDims.size()];
      c.kv_heads = kHeads[(f + i) % kHeads.size()];
      c.page_tokens = (f + i) % 2 == 0 ? 16 : 32;
      c.batch = 1 + 2 * i;  // pages
      c.subset = subset_of(f * 3 + i, 5, 15);
      c.name = "gather." + fmt(c.format_k) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + ".p" +
               to_string(c.page_tokens) + ".pages" + to_string(c.batch);
      out.push_back(c);
    }
}

// Rows with a mean that pays and without, by DataClass; variant: which sides are asked for.
void add_means(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (const auto& row : pairwise_rows({9, 9, 4, 4, 3, 8, 2, 3, 2, 2})) {
    Case c;
    c.op = Op::means;
    c.dim_k = kDims[row[0]];
    c.dim_v = kDims[row[1]];
    c.kv_heads = kHeads[row[2]];
    const std::uint32_t lengths[] = {32, 37, 101, 1024};
    c.length = lengths[row[3]];
    c.in = kIo[row[4]];
    c.data = kData[row[5]];
    c.placement = row[6] == 0 ? Placement::buffer : Placement::strided;
    c.variant = 1 + row[7];
    c.rotate_k = row[8] == 0;
    c.rotate_v = row[9] == 0;
    c.subset = subset_of(n++, 6, 18);
    c.name = "means.d" + to_string(c.dim_k) + "-" + to_string(c.dim_v) + ".h" + to_string(c.kv_heads) + ".n" + to_string(c.length) + "." +
             std::string(io_name(c.in)) + "." + std::string(data_class_name(c.data)) + ".sides" + to_string(c.variant) +
             (c.placement == Placement::strided ? ".strided" : "") + transform_name(c);
    out.push_back(c);
  }
}

void add_rotate(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (const std::uint32_t dim : kDims)
    for (const bool halves : {false, true}) {
      Case c;
      c.op = Op::rotate;
      c.dim_k = dim;
      c.kv_heads = kHeads[n % kHeads.size()];
      c.length = 1 + 36 * (n % 3);
      c.variant = n % 2 == 0 ? dim / 2 : dim / 4;
      c.page_tokens = halves ? 32 : 16;
      c.subset = subset_of(n++, 3, 6);
      c.name = "rotate.d" + to_string(dim) + ".h" + to_string(c.kv_heads) + ".n" + to_string(c.length) + ".pairs" +
               to_string(c.variant) + (halves ? ".halves" : ".adjacent");
      out.push_back(c);
    }
}

}  // namespace

void add_page_cases(std::vector<Case>& out) {
  add_append(out);
  add_read(out);
  add_copy(out);
  add_convert(out);
  add_quantize(out);
  add_merge(out);
  add_gather(out);
  add_rotate(out);
  add_means(out);
}

}  // namespace kvant::conformance
