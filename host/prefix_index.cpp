#include "prefix_index.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <tuple>
#include <utility>

#include "rollback.hpp"

namespace kvant {
namespace {

std::uint64_t fingerprint_of(const PrefixKey& key) {
  std::uint64_t fingerprint = 0;
  std::memcpy(&fingerprint, key.bytes.data() + 8, sizeof fingerprint);
  return fingerprint;
}

}  // namespace

PrefixIndex::PrefixIndex(const PrefixKey& content, std::uint32_t page_tokens, std::span<PagePool> pools,
                         std::unique_ptr<EvictionPolicy> policy, KeyFunction key_function)
    : content_(content),
      page_tokens_(page_tokens),
      pools_(pools),
      policy_(std::move(policy)),
      key_function_(key_function) {}

PrefixIndex::~PrefixIndex() {
  for (const auto& [key, node] : nodes_)
    for (std::size_t g = 0; g < node->pages.size(); ++g)
      if (node->pages[g] != kNoPage) pools_[g].release_indexed(static_cast<std::uint32_t>(node->pages[g]));
}

PrefixNode* PrefixIndex::find_root(std::string_view salt) {
  const auto found = roots_.find(salt);
  return found == roots_.end() ? nullptr : &found->second;
}

PrefixNode* PrefixIndex::root(std::string_view salt) {
  if (PrefixNode* const known = find_root(salt)) return known;
  PrefixNode node;
  node.key = root_key(content_, salt);
  const auto added = roots_.emplace(std::string(salt), std::move(node)).first;
  added->second.salt = added->first;
  return &added->second;
}

PrefixNode* PrefixIndex::child(PrefixNode* parent, std::span<const std::int32_t> tokens) {
  assert(tokens.size() == page_tokens_);
  const auto found = nodes_.find(key_function_(parent->key, tokens));
  if (found == nodes_.end()) return nullptr;
  PrefixNode* const node = found->second.get();
  // The parents are the same node, so by induction all tokens before are the same too.
  return node->parent == parent && std::equal(tokens.begin(), tokens.end(), node->tokens.begin()) ? node : nullptr;
}

PrefixNode* PrefixIndex::insert(PrefixNode* parent, std::span<const std::int32_t> tokens,
                                std::span<const std::int32_t> pages, const PublishFacts& facts, std::uint64_t now_ms) {
  assert(tokens.size() == page_tokens_ && pages.size() == pools_.size());
  const PrefixKey key = key_function_(parent->key, tokens);
  if (nodes_.contains(key)) return nullptr;
  auto made = std::make_unique<PrefixNode>();
  PrefixNode* const node = made.get();
  node->key = key;
  node->parent = parent;
  node->tokens.assign(tokens.begin(), tokens.end());
  node->pages.assign(pages.begin(), pages.end());
  node->depth = parent->depth + 1;
  node->id = EntryId{next_id_++};
  node->last_use_ms = now_ms;
  node->facts = {fingerprint_of(key), parent->depth, facts.priority, facts.ttl_ms};
  node->salt = parent->salt;
  if (order_.capacity() <= nodes_.size()) order_.reserve(std::max<std::size_t>(64, nodes_.size() * 2));
  // All that allocates, and may fail, comes before the pages and the parent know of it.
  const auto id = static_cast<std::uint64_t>(node->id);
  Rollback undo([&] {
    by_id_.erase(id);
    nodes_.erase(key);
  });
  nodes_.emplace(key, std::move(made));
  by_id_.emplace(id, node);
  policy_->insert(node->id, node->facts, now_ms);
  undo.complete();
  for (std::size_t g = 0; g < pages.size(); ++g)
    if (pages[g] != kNoPage) pools_[g].add_indexed(static_cast<std::uint32_t>(pages[g]));
  ++parent->children;
  pin(parent);
  return node;
}

void PrefixIndex::complete(PrefixNode& node, std::uint32_t group, std::int32_t page) {
  assert(node.pages[group] == kNoPage && page != kNoPage);
  pools_[group].add_indexed(static_cast<std::uint32_t>(page));
  node.pages[group] = page;
}

void PrefixIndex::touch(PrefixNode* node, std::uint64_t now_ms) {
  // From the deepest one up: a prefix's end is older than its beginning.
  for (; node->parent != nullptr; node = node->parent) {
    ++node->uses;
    node->last_use_ms = now_ms;
    policy_->touch(node->id, now_ms);
  }
}

void PrefixIndex::pin(PrefixNode* node) {
  ++node->pins;
  if (node->parent != nullptr) policy_->pin(node->id);
}

void PrefixIndex::unpin(PrefixNode* node, std::uint64_t now_ms) {
  assert(node->pins > 0);
  --node->pins;
  if (node->parent != nullptr) {
    policy_->unpin(node->id, now_ms);
  } else if (node->pins == 0) {
    roots_.erase(roots_.find(node->salt));
  }
}

PrefixNode* PrefixIndex::choose_victim(std::uint64_t now_ms) {
  const std::optional<EntryId> id = policy_->evict(now_ms);
  return id ? by_id_.at(static_cast<std::uint64_t>(*id)) : nullptr;
}

PrefixNode* PrefixIndex::choose_expired(std::uint64_t now_ms) {
  if (expired_.empty()) policy_->expire(now_ms, expired_);
  if (expired_.empty()) return nullptr;
  PrefixNode* const node = by_id_.at(static_cast<std::uint64_t>(expired_.back()));
  expired_.pop_back();
  return node;
}

void PrefixIndex::withdraw(PrefixNode* node) {
  assert(node->pins == 0);
  policy_->erase(node->id);
}

void PrefixIndex::remove(PrefixNode* node, std::uint64_t now_ms) {
  assert(node->children == 0 && node->parent != nullptr);
  for (std::size_t g = 0; g < node->pages.size(); ++g)
    if (node->pages[g] != kNoPage) pools_[g].release_indexed(static_cast<std::uint32_t>(node->pages[g]));
  --node->parent->children;
  unpin(node->parent, now_ms);
  by_id_.erase(static_cast<std::uint64_t>(node->id));
  nodes_.erase(PrefixKey(node->key));  // a copy: the node dies with its place
}

std::uint64_t PrefixIndex::clear(std::uint64_t now_ms, const std::function<void(const PrefixNode&)>& before_removal) {
  list_nodes(order_);
  std::uint64_t removed = 0;
  for (auto node = order_.rbegin(); node != order_.rend(); ++node) {
    if ((*node)->pins != 0) continue;
    before_removal(**node);
    policy_->erase((*node)->id);
    remove(*node, now_ms);
    ++removed;
  }
  return removed;
}

std::uint64_t PrefixIndex::shed_group(std::uint32_t group, std::uint64_t wanted) {
  std::uint64_t released = 0;
  for (const auto& [id, node] : by_id_) {
    if (released >= wanted) break;
    std::int32_t& page = node->pages[group];
    if (page == kNoPage || pools_[group].references(static_cast<std::uint32_t>(page)) != 1) continue;
    pools_[group].release_indexed(static_cast<std::uint32_t>(page));
    page = kNoPage;
    ++released;
  }
  return released;
}

void PrefixIndex::set_policy(std::unique_ptr<EvictionPolicy> policy) {
  std::vector<PrefixNode*> all = nodes();
  // Of equal time the deeper one was used before: touch goes from the end of a prefix to its beginning.
  std::stable_sort(all.begin(), all.end(), [](const PrefixNode* a, const PrefixNode* b) {
    return a->last_use_ms != b->last_use_ms ? a->last_use_ms < b->last_use_ms : a->depth > b->depth;
  });
  for (const PrefixNode* node : all) {
    policy->insert(node->id, node->facts, node->last_use_ms);
    for (std::uint32_t i = 0; i < node->pins; ++i) policy->pin(node->id);
  }
  policy_ = std::move(policy);
}

void PrefixIndex::set_content(const PrefixKey& content) {
  const std::vector<PrefixNode*> all = nodes();
  decltype(nodes_) renamed;
  renamed.reserve(all.size());
  // From here on nothing allocates: entries move as they are.
  content_ = content;
  for (auto& [salt, node] : roots_) node.key = root_key(content, salt);
  for (PrefixNode* node : all) {
    auto entry = nodes_.extract(node->key);
    node->key = key_function_(node->parent->key, node->tokens);
    entry.key() = node->key;
    [[maybe_unused]] const bool added = renamed.insert(std::move(entry)).inserted;
    assert(added);
  }
  nodes_ = std::move(renamed);
}

void PrefixIndex::each(const std::function<void(PrefixNode&)>& visit) {
  for (auto& [id, node] : by_id_) visit(*node);
}

std::vector<PrefixNode*> PrefixIndex::nodes() const {
  std::vector<PrefixNode*> all;
  all.reserve(by_id_.size());
  list_nodes(all);
  return all;
}

void PrefixIndex::list_nodes(std::vector<PrefixNode*>& out) const {
  out.clear();
  for (const auto& [id, node] : by_id_) out.push_back(node);
  std::sort(out.begin(), out.end(), [](const PrefixNode* a, const PrefixNode* b) {
    return std::tie(a->depth, a->id) < std::tie(b->depth, b->id);
  });
}

const PrefixNode* PrefixIndex::find(const PrefixKey& key) const {
  const auto found = nodes_.find(key);
  return found == nodes_.end() ? nullptr : found->second.get();
}

}  // namespace kvant
