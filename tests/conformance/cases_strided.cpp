// Cases of the kernels on an engine's own tensors: transfer between every pair of formats, with and without indices; import and extract;
// rope; hadamard.
#include <array>
#include <string>

#include "cases.hpp"

namespace kvant::conformance {

namespace {

using std::to_string;

constexpr std::array kFormats{FormatId::f32,  FormatId::f16,  FormatId::bf16, FormatId::q8_0,  FormatId::q4_0,
                              FormatId::q4_1, FormatId::q5_0, FormatId::q5_1, FormatId::iq4_nl};

bool in_blocks(FormatId id) { return format_info(id).canonical_block > 1; }
std::string fmt(FormatId id) { return std::string(format_info(id).name); }

// Rows of dim_k elements, length x kv_heads x batch of them; variant: 0 as they lie, 1 destination's rows by indices, 2 source's.
void add_transfer(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (const FormatId from : kFormats)
    for (const FormatId to : kFormats)
      for (std::uint32_t variant = 0; variant < 3; ++variant) {
        const bool usual = from == to || from == FormatId::f32 || to == FormatId::f32;
        if (variant != 0 && !usual) continue;
        const bool blocks = in_blocks(from) || in_blocks(to);
        constexpr std::array<std::uint32_t, 4> kBlockDims{32, 96, 64, 256}, kPlainDims{36, 37, 128, 1};
        Case c;
        c.op = Op::transfer;
        c.format_k = from;
        c.format_v = to;
        c.dim_k = blocks ? kBlockDims[n % 4] : kPlainDims[n % 4];
        c.length = 3 + n % 15;
        c.kv_heads = 1 + n / 2 % 3;
        c.batch = 1 + n / 3 % 2;
        c.variant = variant;
        c.placement = n % 2 == 0 ? Placement::buffer : Placement::strided;
        c.subset = subset_of(n++, 4, 24);
        c.name = "transfer." + fmt(from) + "-" + fmt(to) + ".d" + to_string(c.dim_k) + ".n" + to_string(c.length) + ".h" +
                 to_string(c.kv_heads) + ".b" + to_string(c.batch) + (variant == 0 ? "" : variant == 1 ? ".set" : ".get") +
                 (c.placement == Placement::strided ? ".strided" : "");
        out.push_back(c);
      }
}

void add_page_rows(Op op, std::vector<Case>& out) {
  const auto add = [&](Case& c) {
    c.name = std::string(op_name(op)) + "." + fmt(c.format_k) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + ".b" + to_string(c.batch) +
             ".n" + to_string(c.length) + ".p" + to_string(c.page_tokens) + (c.placement == Placement::strided ? ".strided" : "");
    out.push_back(c);
  };
  std::uint32_t n = 0;
  for (std::uint32_t f = 0; f < kFormats.size(); ++f) {
    constexpr std::array<std::uint32_t, 10> kDims{32, 40, 64, 72, 80, 96, 128, 192, 256, 576};
    for (std::uint32_t d = 0; d < kDims.size(); ++d) {
      if (kDims[d] % format_info(kFormats[f]).canonical_block != 0 || (f + d) % 2 != 0) continue;
      Case c;
      c.op = op;
      c.format_k = kFormats[f];
      c.dim_k = kDims[d];
      c.kv_heads = 1 + n % 3;
      c.batch = 1 + n % 2;
      c.length = 1 + 20 * (n % 3);
      c.page_tokens = n / 2 % 2 == 0 ? 16 : 32;
      c.placement = n % 4 < 2 ? Placement::strided : Placement::buffer;
      c.subset = subset_of(n++, 4, 12);
      add(c);
    }
    Case large;  // pages as ggml's cache tensors have on processors
    large.op = op;
    large.format_k = kFormats[f];
    large.dim_k = 64;
    large.kv_heads = 2;
    large.length = 300;
    large.page_tokens = 128;
    large.placement = f % 2 == 0 ? Placement::strided : Placement::buffer;
    add(large);
  }
}

// Rows of dim_k elements, kv_heads x length x batch of them (rows, tokens, batches).
void add_rope(std::vector<Case>& out) {
  constexpr std::array kTypes{FormatId::f32, FormatId::f16, FormatId::bf16};
  constexpr std::array<std::uint32_t, 5> kDims{64, 36, 128, 80, 70};
  std::uint32_t n = 0;
  for (const FormatId type : kTypes)
    for (std::uint32_t variant = 0; variant < 32; ++variant) {
      if ((variant & kRopeStreams) != 0 && (variant & kRopeHalves) == 0) continue;  // streams have halves
      Case c;
      c.op = Op::rope;
      c.format_k = type;
      c.variant = variant;
      c.dim_k = kDims[n % 5];
      c.length = 1 + n * 7 % 19;
      c.kv_heads = 1 + n / 2 % 5;
      c.batch = 1 + n / 3 % 2;
      c.placement = n / 5 % 3 == 2 ? Placement::strided : Placement::buffer;
      c.subset = subset_of(n++, 4, 16);
      c.name = "rope." + fmt(type) + ".d" + to_string(c.dim_k) + ".h" + to_string(c.kv_heads) + ".n" + to_string(c.length) + ".b" +
               to_string(c.batch) + ((variant & kRopeStreams) != 0 ? ".streams" : (variant & kRopeHalves) != 0 ? ".halves" : ".pairs") +
               ((variant & kRopeFactors) != 0 ? ".factors" : "") + ((variant & kRopePart) != 0 ? ".part" : "") +
               ((variant & kRopeInPlace) != 0 ? ".inplace" : "") + (c.placement == Placement::strided ? ".strided" : "");
      out.push_back(c);
    }
}

void add_hadamard(std::vector<Case>& out) {
  std::uint32_t n = 0;
  for (std::uint32_t bits = 10; bits-- > 0;)
    for (const FormatId type : {FormatId::f32, FormatId::f16}) {
      Case c;
      c.op = Op::hadamard;
      c.format_k = type;
      c.dim_k = 1u << bits;
      c.length = 1 + n * 5 % 17;
      c.kv_heads = 1 + n / 2 % 3;
      c.batch = 1 + n / 3 % 2;
      c.placement = n % 3 == 1 ? Placement::strided : Placement::buffer;
      c.subset = subset_of(n++, 5, 15);
      c.name = "hadamard." + fmt(type) + ".d" + to_string(c.dim_k) + ".n" + to_string(c.length) + ".h" + to_string(c.kv_heads) + ".b" +
               to_string(c.batch) + (c.placement == Placement::strided ? ".strided" : "");
      out.push_back(c);
    }
}

}  // namespace

void add_strided_cases(std::vector<Case>& out) {
  add_transfer(out);
  add_page_rows(Op::import, out);
  add_page_rows(Op::extract, out);
  add_rope(out);
  add_hadamard(out);
}

}  // namespace kvant::conformance
