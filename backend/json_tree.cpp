#include "json_tree.hpp"

#include <nlohmann/json.hpp>

#include "json_writer.hpp"

namespace kvant {
namespace {

using Kind = JsonNode::Kind;

// What nlohmann's parser calls.
class Builder {
 public:
  explicit Builder(std::vector<JsonNode>& nodes) : nodes_(nodes) {}

  bool null() {
    add(Kind::null);
    return true;
  }
  bool boolean(bool flag) {
    add(Kind::boolean).flag = flag;
    return true;
  }
  bool number_unsigned(std::uint64_t number) {
    add(Kind::whole).whole = number;
    return true;
  }
  bool number_integer(std::int64_t number) {
    add(Kind::negative).negative = number;
    return true;
  }
  bool number_float(double number, const std::string&) {
    add(Kind::fraction).fraction = number;
    return true;
  }
  bool string(std::string& text) {
    add(Kind::string).text = std::move(text);
    return true;
  }
  bool binary(std::vector<std::uint8_t>&) { return false; }
  bool start_object(std::size_t) { return open(Kind::object); }
  bool start_array(std::size_t) { return open(Kind::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) { return false; }

 private:
  JsonNode& add(Kind kind) {
    JsonNode& node = nodes_.emplace_back();
    node.kind = kind;
    node.key = std::exchange(key_, {});
    node.end = nodes_.size();
    return node;
  }
  bool open(Kind kind) {
    open_.push_back(nodes_.size());
    add(kind);
    return true;
  }
  bool close() {
    nodes_[open_.back()].end = nodes_.size();
    open_.pop_back();
    return true;
  }

  std::vector<JsonNode>& nodes_;
  std::vector<std::size_t> open_;  // indices of arrays and objects
  std::string key_;
};

void write_scalar(JsonWriter& writer, const JsonNode& node) {
  switch (node.kind) {
    case Kind::boolean:
      return writer.value(node.flag);
    case Kind::whole:
      return writer.value(node.whole);
    case Kind::negative:
      return writer.value(node.negative);
    case Kind::fraction:
      return writer.value(node.fraction);
    case Kind::string:
      return writer.value(node.text);
    default:
      return writer.null();
  }
}

}  // namespace

std::optional<double> JsonView::number() const {
  const JsonNode& value = node();
  if (value.kind == Kind::whole) return static_cast<double>(value.whole);
  if (value.kind == Kind::negative) return static_cast<double>(value.negative);
  if (value.kind == Kind::fraction) return value.fraction;
  return std::nullopt;
}

std::optional<JsonView> JsonView::sibling(std::size_t at) const {
  return at < node().end ? std::optional(JsonView(*nodes_, at)) : std::nullopt;
}

std::size_t JsonView::size() const {
  std::size_t count = 0;
  for (auto item = first(); item; item = item->next(*this)) ++count;
  return count;
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  std::optional<JsonView> found;
  if (!is(Kind::object)) return found;
  for (auto item = first(); item; item = item->next(*this))
    if (item->node().key == key) found = item;
  return found;
}

std::string JsonView::text() const {
  std::string text;
  JsonWriter writer(text);
  std::vector<std::size_t> open;  // no recursion: the text may come from outside
  for (std::size_t i = at_; i < node().end; ++i) {
    const JsonNode& value = (*nodes_)[i];
    if (!open.empty() && (*nodes_)[open.back()].kind == Kind::object) writer.key(value.key);
    const bool is_object = value.kind == Kind::object;
    if (is_object || value.kind == Kind::array) {
      is_object ? writer.begin_object() : writer.begin_array();
      open.push_back(i);
    } else {
      write_scalar(writer, value);
    }
    while (!open.empty() && (*nodes_)[open.back()].end == i + 1) {
      (*nodes_)[open.back()].kind == Kind::object ? writer.end_object() : writer.end_array();
      open.pop_back();
    }
  }
  return text;
}

std::optional<JsonTree> JsonTree::parse(std::string_view text) {
  JsonTree tree;
  Builder builder(tree.nodes_);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return std::nullopt;
  return tree;
}

}  // namespace kvant
