#include "config_reader.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quoted_text.hpp"

namespace kvant {
namespace {

Status invalid(std::string message) { return {StatusCode::invalid_argument, std::move(message)}; }

// Keys are far shorter; a longer one is not even compared with them.
constexpr std::size_t kMostKeyBytes = 64;

class Reader {
 public:
  // --- called by the parser; false stops it ---
  bool null() { return value({}); }
  bool boolean(bool flag) { return value({.kind = JsonValue::Kind::boolean, .flag = flag, .number = 0, .text = {}}); }
  bool number_unsigned(std::uint64_t number) { return value(whole(number)); }
  bool number_integer(std::int64_t number) {
    if (number >= 0) return value(whole(static_cast<std::uint64_t>(number)));  // "-0"
    return value(other_number(std::to_string(number)));
  }
  bool number_float(double, const std::string& written) { return value(other_number(written)); }
  bool string(std::string& text) {
    return value({.kind = JsonValue::Kind::string, .flag = false, .number = 0, .text = std::move(text)});
  }
  bool binary(std::vector<std::uint8_t>&) { return fail("the configuration holds binary data; expected text"); }

  bool start_object(std::size_t) {
    if (!enter()) return false;
    if (depth_ == 1 || (skipping_ == 0 && field_ == nullptr)) {
      sections_.push_back(depth_ == 1 ? std::string() : path_ + ".");
      return true;
    }
    return skip(JsonValue::Kind::object);
  }
  bool end_object() {
    --depth_;
    if (skipping_ != 0)
      --skipping_;
    else
      sections_.pop_back();
    return true;
  }
  bool start_array(std::size_t) {
    if (!enter()) return false;
    if (depth_ == 1) return fail("the configuration is an array; expected an object such as {\"preset\": \"llm\"}");
    if (skipping_ == 0 && field_ == nullptr) return no_object("array");
    return skip(JsonValue::Kind::array);
  }
  bool end_array() {
    --depth_;
    --skipping_;
    return true;
  }

  bool key(const std::string& name) {
    if (skipping_ != 0) return true;
    if (name.size() > kMostKeyBytes)
      return fail(sections_.back() + printable(quoted_text(name)) + " is no key; none is longer than " +
                  std::to_string(kMostKeyBytes) + " bytes");
    const std::string path = sections_.back() + name;
    const ConfigField* field = config_field(path);
    if (field == nullptr && !(sections_.size() == 1 && config_section(path)))
      return fail(printable(path) + " is no key; did you mean " + std::string(nearest_config_key(path)) + "?");
    path_ = path;
    field_ = field;
    if (std::find(seen_.begin(), seen_.end(), path_) != seen_.end())
      return fail(path_ + " is there twice; expected it once");
    seen_.push_back(path_);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    std::string reason = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ..."
    if (const std::size_t end = reason.find("] "); reason.starts_with('[') && end != std::string::npos)
      reason.erase(0, end + 2);
    const std::string place = path_.empty() ? " at its beginning" : " at or after " + path_;
    return fail("the configuration is no JSON" + place + ", byte " + std::to_string(position) + ": " +
                printable(quoted_text(reason, 300)));
  }

  Status status() const { return status_; }
  std::vector<ConfigEntry>& entries() { return entries_; }
  const std::string& path() const { return path_; }

 private:
  static JsonValue whole(std::uint64_t number) {
    return {.kind = JsonValue::Kind::whole, .flag = false, .number = number, .text = {}};
  }
  static JsonValue other_number(std::string written) {
    return {.kind = JsonValue::Kind::other_number, .flag = false, .number = 0, .text = std::move(written)};
  }
  bool fail(std::string message) {
    status_ = invalid(std::move(message));
    return false;
  }
  bool no_object(std::string_view what) {
    std::string names;
    for (const ConfigField& field : config_fields())
      if (field.key.starts_with(path_ + "."))
        names += (names.empty() ? "" : ", ") + std::string(field.key.substr(path_.size() + 1));
    return fail(path_ + " (" + std::string(what) + ") is not an object of the keys " + names);
  }
  bool enter() {
    if (++depth_ <= kMostConfigDepth) return true;
    return fail((path_.empty() ? "the configuration" : path_) + " is nested deeper than " +
                std::to_string(kMostConfigDepth) + " levels; expected " +
                (field_ != nullptr ? expected_text(*field_) : "an object"));
  }
  // Of a field that is no array or object; said when its type is checked, unless the text turns out to be worse.
  bool skip(JsonValue::Kind kind) {
    if (skipping_++ == 0) entries_.push_back({field_, {.kind = kind, .flag = false, .number = 0, .text = {}}});
    return true;
  }
  bool value(JsonValue value) {
    if (depth_ == 0)
      return fail("the configuration (" + json_value_text(value) + ") is not an object such as {\"preset\": \"llm\"}");
    if (skipping_ != 0) return true;
    if (field_ == nullptr) return no_object(json_value_text(value));
    entries_.push_back({field_, std::move(value)});
    return true;
  }

  std::uint32_t depth_ = 0, skipping_ = 0;  // skipping_: containers open below a field
  std::vector<std::string> sections_;       // what keys of the open objects begin with
  std::string path_;                        // the latest key that exists
  const ConfigField* field_ = nullptr;      // of path_; null: a section
  std::vector<std::string> seen_;
  std::vector<ConfigEntry> entries_;
  Status status_;
};

}  // namespace

std::string json_value_text(const JsonValue& value) {
  switch (value.kind) {
    case JsonValue::Kind::null:
      return "null";
    case JsonValue::Kind::boolean:
      return value.flag ? "true" : "false";
    case JsonValue::Kind::whole:
      return std::to_string(value.number);
    case JsonValue::Kind::other_number:
      return quoted_text(value.text);
    case JsonValue::Kind::string:
      return shown_text(value.text);
    case JsonValue::Kind::array:
      return "array";
    case JsonValue::Kind::object:
      return "object";
  }
  return "unknown";
}

Result<std::vector<ConfigEntry>> read_config_json(std::string_view text) {
  if (text.size() > kMostConfigBytes)
    return invalid("the configuration (" + std::to_string(text.size()) + " bytes) is longer than " +
                   std::to_string(kMostConfigBytes) + " bytes");
  // The parser takes a zero byte for the end, and would quote what is no UTF-8. What comes before is read, to name the
  // key.
  const std::size_t good = std::min(utf8_length(text), text.find('\0'));
  Reader reader;
  const bool read = nlohmann::json::sax_parse(
      text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(good, text.size())), &reader);
  if (good < text.size()) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(text[good]);
    return invalid("the configuration is no UTF-8 text" +
                   (reader.path().empty() ? "" : " at or after " + reader.path()) + ": byte " + std::to_string(good) +
                   " is 0x" + kDigits[byte >> 4] + kDigits[byte & 15]);
  }
  if (!read) return reader.status();
  return std::move(reader.entries());
}

}  // namespace kvant
