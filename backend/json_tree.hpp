// JsonTree: a JSON text as a flat list of values. nlohmann's parser reads it, but nlohmann::json does not hold it: its
// destructor allocates, and where that fails the process ends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvant {

struct JsonNode {
  enum class Kind : std::uint8_t { null, boolean, whole, negative, fraction, string, array, object };
  Kind kind = Kind::null;
  bool flag = false;          // boolean
  std::uint64_t whole = 0;    // whole: 0 or more
  std::int64_t negative = 0;  // negative: written with a minus sign
  double fraction = 0;        // fraction: also a whole number of more than 64 bits
  std::string text;           // string
  std::string key;            // of a member of an object
  std::size_t end = 0;        // index behind this value: of its next sibling, if there is one
};

// A value of a tree; valid as long as the tree.
class JsonView {
 public:
  using Kind = JsonNode::Kind;
  JsonView(const std::vector<JsonNode>& nodes, std::size_t at) : nodes_(&nodes), at_(at) {}

  Kind kind() const { return node().kind; }
  bool is(Kind kind) const { return node().kind == kind; }
  const JsonNode& node() const { return (*nodes_)[at_]; }
  // The number as a fraction, of any of the three kinds of number.
  std::optional<double> number() const;

  // Elements of an array or members of an object.
  std::size_t size() const;
  std::optional<JsonView> first() const { return sibling(at_ + 1); }
  // `within`: the array or object that this is an element of.
  std::optional<JsonView> next(const JsonView& within) const { return within.sibling(node().end); }
  // The member of that key, the last one if there are several.
  std::optional<JsonView> find(std::string_view key) const;

  std::string text() const;  // as JSON on one line

 private:
  std::optional<JsonView> sibling(std::size_t at) const;

  const std::vector<JsonNode>* nodes_;
  std::size_t at_;
};

class JsonTree {
 public:
  // Empty where the text is no JSON.
  static std::optional<JsonTree> parse(std::string_view text);
  JsonView root() const { return {nodes_, 0}; }

 private:
  std::vector<JsonNode> nodes_;  // each value before its elements; never empty
};

}  // namespace kvant
