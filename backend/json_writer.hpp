// JsonWriter: JSON text, piece by piece. It holds no document, so that an allocation that fails leaves nothing but text
// that is thrown away.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvant {

// Appends to `out`. The caller keeps the order: a key before each value of an object, an end for each begin.
class JsonWriter {
 public:
  // `indent`: spaces per level, each value on a line of its own; 0: all on one line.
  explicit JsonWriter(std::string& out, std::uint32_t indent = 0) : out_(out), indent_(indent) {}
  JsonWriter(const JsonWriter&) = delete;
  JsonWriter& operator=(const JsonWriter&) = delete;

  void begin_object() { begin('{'); }
  void end_object() { end('}'); }
  void begin_array() { begin('['); }
  void end_array() { end(']'); }
  void key(std::string_view name);

  void null();
  // What is no UTF-8 is replaced by U+FFFD.
  void value(std::string_view text);
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(const char* text) { value(std::string_view(text)); }
  // As few digits as give the same number again; null where JSON has no number for it.
  void value(double number);
  void value(float number) { value(static_cast<double>(number)); }
  void value(const std::optional<double>& number) { number ? value(*number) : null(); }
  template <std::integral T>
  void value(T item) {
    if constexpr (std::same_as<T, bool>)
      raw(item ? "true" : "false");
    else if constexpr (std::signed_integral<T>)
      whole(static_cast<std::int64_t>(item));
    else
      whole(static_cast<std::uint64_t>(item));
  }
  template <typename T>
  void member(std::string_view name, const T& item) {
    key(name);
    value(item);
  }

 private:
  void begin(char bracket);
  void end(char bracket);
  void separate();  // from what came before at this level
  void new_line();
  void raw(std::string_view text);
  void whole(std::int64_t number);
  void whole(std::uint64_t number);

  std::string& out_;
  std::uint32_t indent_;
  std::uint32_t depth_ = 0;
  bool first_ = true;  // nothing came before at this level
  bool after_key_ = false;
};

}  // namespace kvant
