// Keys that neighbouring sequences share: how many, the tree that they make, and what tuning is told of it.
#include "shared_keys.hpp"

#include <doctest/doctest.h>

#include <string>

namespace kvant {
namespace {

constexpr std::uint32_t kPage = 16;

// Sequences that end with their queries and begin with `common` pages of the one before.
struct Batch : GroupBatch {
  void add(std::uint32_t kv_len, std::uint32_t q_len, std::uint32_t common) {
    params::AttendSeq seq{};
    seq.kv_len = kv_len;
    seq.page_begin = static_cast<std::uint32_t>(pages.size());
    seq.q_begin = seqs.empty() ? 0 : seqs.back().q_begin + seqs.back().q_len;
    seq.q_len = q_len;
    seq.q_pos_begin = static_cast<std::int32_t>(kv_len - q_len);
    const std::uint32_t before = seqs.empty() ? 0 : seqs.back().page_begin;
    for (std::uint32_t page = 0; page < (kv_len + kPage - 1) / kPage; ++page)
      pages.push_back(page < common ? pages[before + page] : static_cast<std::int32_t>(1000 * (seqs.size() + 1) + page));
    page_counts.push_back((kv_len + kPage - 1) / kPage);
    seqs.push_back(seq);
  }
  std::vector<std::uint32_t> common(const SharedAsk& ask) {
    find_common_pages(*this);
    std::vector<std::uint32_t> tokens;
    find_common_tokens(*this, kPage, ask, tokens);
    return tokens;
  }
};

std::string tree_of(std::span<const std::uint32_t> common) {
  std::string text;
  walk_shared(
      common, 0, static_cast<std::uint32_t>(common.size()), 0, 0,
      [&](std::uint32_t first, std::uint32_t last, std::uint32_t begin, std::uint32_t end, int depth) {
        text += std::string(static_cast<std::size_t>(depth), ' ') + std::to_string(first) + "-" + std::to_string(last) + ": " + std::to_string(begin) + ".." +
                std::to_string(end) + "\n";
        return depth + 1;
      },
      [&](std::uint32_t seq, std::uint32_t begin, int depth) {
        text += std::string(static_cast<std::size_t>(depth), ' ') + std::to_string(seq) + ": " + std::to_string(begin) + "..\n";
      });
  return text;
}

TEST_CASE("host shared keys: whole pages that all queries of both neighbours see") {
  Batch batch;
  batch.add(400, 1, 0);
  batch.add(410, 1, 20);
  batch.add(500, 90, 25);  // its first query sees 411 keys, the one before 410
  batch.add(300, 1, 7);    // 112 keys
  batch.add(300, 1, 8);
  batch.add(299, 1, 99);   // all of them, the last page begun
  CHECK(batch.common({}) == std::vector<std::uint32_t>{0, 320, 400, 0, 128, 288});
  CHECK(batch.common({true, 1, 8}) == std::vector<std::uint32_t>{0, 320, 0, 0, 128, 288});
  batch.seqs[1].q_pos_begin = 300;
  CHECK(batch.common({}) == std::vector<std::uint32_t>{0, 288, 288, 0, 128, 288});
  CHECK(batch.common({false}) == std::vector<std::uint32_t>{0, 320, 400, 0, 128, 288});
  batch.seqs[0].mask_row_words = 4;
  batch.seqs[0].mask_kv_begin = 200;
  CHECK(batch.common({false})[1] == 192);
  batch.common_pages.clear();
  std::vector<std::uint32_t> tokens{1};
  find_common_tokens(batch, kPage, {}, tokens);
  CHECK(tokens == std::vector<std::uint32_t>(6, 0));
}

TEST_CASE("host shared keys: the tree's branches have enough keys to be worth it") {
  CHECK(tree_of(std::vector<std::uint32_t>{0, 512, 640, 528}) ==
        "0-4: 0..512\n 0: 512..\n 1-3: 512..640\n  1: 640..\n  2: 640..\n 3: 512..\n");
  // A branch that is not worth it passes its keys on to those below.
  CHECK(tree_of(std::vector<std::uint32_t>{0, 256, 320, 700}) == "0-4: 0..256\n 0: 256..\n 1: 256..\n 2-4: 256..700\n  2: 700..\n  3: 700..\n");
  CHECK(tree_of(std::vector<std::uint32_t>{0}) == "0: 0..\n");
}

TEST_CASE("host shared keys: tuning is told of the branch with most keys") {
  // Two documents of 4096 tokens, three questions each, under one prompt of 256.
  Batch batch;
  for (int s = 0; s < 6; ++s) batch.add(4096 + 20, 1, s == 0 ? 0 : s % 3 == 0 ? 16 : 256);
  const SharedShape shape = shared_shape(batch, batch.common({}));
  CHECK(shape.max_queries == 3);
  CHECK(shape.max_kv_len == 4096 - 256);
  CHECK(shape.total_queries == 12);
  CHECK(shape.total_kv_len == 256 + 2 * (4096 - 256));
  CHECK(shape.saved == 5 * 256 + 4 * (4096 - 256));
  Batch apart;
  apart.add(300, 1, 0);
  apart.add(300, 1, 7);
  CHECK(shared_shape(apart, apart.common({})).saved == 0);
}

}  // namespace
}  // namespace kvant
