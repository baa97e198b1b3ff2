// PrefixIndex: full, committed pages that later sequences may begin with, as a tree of one page a node. A node is found by its key
// and then compared token by token, so that equal keys of different content are a miss. Nodes hold one reference of their pages;
// they leave leaf by leaf, in the order of an EvictionPolicy, and never while pinned. Thread rule: that of the cache.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "eviction_policy.hpp"
#include "page_pool.hpp"
#include "prefix_key.hpp"

namespace kvant {

struct HeldCopies;  // wide_pages.hpp

struct PrefixNode {
  PrefixKey key;
  PrefixNode* parent = nullptr;         // null: a root, which stands for a salt and has no page
  std::vector<std::int32_t> tokens;     // of its page
  std::vector<std::int32_t> pages;      // per layer group; kNoPage where the page has left a sliding window
  std::uint32_t depth = 0;              // pages up to and including this one
  std::uint32_t children = 0;
  std::uint32_t uses = 0;               // sequences that began with it
  std::uint32_t pins = 0;               // its children's and others'
  EntryId id{};
  std::uint64_t last_use_ms = 0;
  EntryFacts facts;
  std::string_view salt;                // of its root
  std::shared_ptr<const HeldCopies> copies = {};  // of its page's tokens, if they are protected wherever it is shared
};

// What a page brings along when it is published.
struct PublishFacts {
  std::uint32_t priority = 0;  // 0..100
  std::uint64_t ttl_ms = 0;    // 0 = the policy's
};

class PrefixIndex {
 public:
  using KeyFunction = PrefixKey (*)(const PrefixKey& parent, std::span<const std::int32_t> tokens);

  // `key_function` is page_key, but for a test of equal keys.
  PrefixIndex(const PrefixKey& content, std::uint32_t page_tokens, std::span<PagePool> pools,
              std::unique_ptr<EvictionPolicy> policy, KeyFunction key_function = page_key);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // A root lives while it is pinned or has children: pin it at once.
  PrefixNode* root(std::string_view salt);
  PrefixNode* find_root(std::string_view salt);  // null: nothing of that salt is there
  // The node behind `parent` with exactly these tokens, or null.
  PrefixNode* child(PrefixNode* parent, std::span<const std::int32_t> tokens);
  // Adds references of `pages`. Null if another content has the same key: the page stays private. There is no such child yet.
  PrefixNode* insert(PrefixNode* parent, std::span<const std::int32_t> tokens, std::span<const std::int32_t> pages,
                     const PublishFacts& facts, std::uint64_t now_ms);
  // Gives a node the page of a group where it has none.
  void complete(PrefixNode& node, std::uint32_t group, std::int32_t page);
  // A use of the node and of all before it.
  void touch(PrefixNode* node, std::uint64_t now_ms);
  // A pinned node stays, and so do all before it. Pins count; a root may be pinned as well.
  void pin(PrefixNode* node);
  void unpin(PrefixNode* node, std::uint64_t now_ms);

  // The node that the policy lets go next; it is out of the policy, still in the tree, and ends by remove(). Null: none may go.
  PrefixNode* choose_victim(std::uint64_t now_ms);
  // Nodes whose time has come, leaves before those they hang on; each ends by remove().
  PrefixNode* choose_expired(std::uint64_t now_ms);
  void withdraw(PrefixNode* node);  // out of the policy: a victim of the caller's choice, not pinned
  void remove(PrefixNode* node, std::uint64_t now_ms);  // out of the tree; releases its pages
  // Removes every node that is not pinned; gives their number.
  std::uint64_t clear(std::uint64_t now_ms, const std::function<void(const PrefixNode&)>& before_removal);
  // Releases pages of one group that only the index holds, whoever hangs on their nodes, until `wanted` are free: those of a
  // sliding window, which no running sequence needs. Gives how many were released.
  std::uint64_t shed_group(std::uint32_t group, std::uint64_t wanted);

  // The new policy is told of all nodes in the order of their last use.
  void set_policy(std::unique_ptr<EvictionPolicy> policy);
  // All keys anew, after what K and V depend on has changed.
  void set_content(const PrefixKey& content);
  const PrefixKey& content() const { return content_; }

  std::uint64_t size() const { return nodes_.size(); }
  const PrefixNode* find(const PrefixKey& key) const;
  void each(const std::function<void(PrefixNode&)>& visit);
  // Every node, parents before children.
  std::vector<PrefixNode*> nodes() const;

 private:
  void list_nodes(std::vector<PrefixNode*>& out) const;

  PrefixKey content_;
  std::uint32_t page_tokens_;
  std::span<PagePool> pools_;
  std::unique_ptr<EvictionPolicy> policy_;
  KeyFunction key_function_;
  std::map<std::string, PrefixNode, std::less<>> roots_;
  std::unordered_map<PrefixKey, std::unique_ptr<PrefixNode>, PrefixKeyHash> nodes_;
  std::unordered_map<std::uint64_t, PrefixNode*> by_id_;
  std::vector<EntryId> expired_;
  std::vector<PrefixNode*> order_;  // of clear, which must not fail: has room for every node
  std::uint64_t next_id_ = 1;
};

}  // namespace kvant
