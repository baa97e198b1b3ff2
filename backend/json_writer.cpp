#include "json_writer.hpp"

#include <charconv>
#include <cmath>
#include <iterator>

namespace kvant {
namespace {

struct Utf8 {
  std::size_t bytes;  // of the character, or of the piece that is none
  bool good;
};

// One character at the beginning of `text`, or what a decoder rejects as one piece (Unicode, table 3-7 and "maximal
// subpart").
Utf8 first_character(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < length; ++i) {
    unsigned char least = 0x80, most = 0xBF;
    if (i == 1 && lead == 0xE0) least = 0xA0;  // shorter forms exist
    if (i == 1 && lead == 0xED) most = 0x9F;   // surrogates
    if (i == 1 && lead == 0xF0) least = 0x90;
    if (i == 1 && lead == 0xF4) most = 0x8F;  // beyond U+10FFFF
    if (i == text.size() || byte(i) < least || byte(i) > most) return {i, false};
  }
  return {length, true};
}

void append_escaped(std::string& out, char character) {
  static constexpr char kDigits[] = "0123456789abcdef";
  static constexpr std::string_view kSpecial = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  if (const std::size_t at = kSpecial.find(character); at != std::string_view::npos) {
    out += '\\';
    out += kLetters[at];
  } else if (const auto byte = static_cast<unsigned char>(character); byte < 0x20) {
    out += "\\u00";
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  } else {
    out += character;
  }
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const Utf8 next = first_character(text);
    if (!next.good)
      out += "\xEF\xBF\xBD";
    else if (next.bytes == 1)
      append_escaped(out, text[0]);
    else
      out += text.substr(0, next.bytes);
    text.remove_prefix(next.bytes);
  }
  out += '"';
}

// Fractions between 10^-5 and 10^15 without an exponent, and always with a point or an exponent: the number is read
// back as a fraction.
void append_double(std::string& out, double number) {
  char text[40];
  const char* const end = std::to_chars(text, std::end(text), std::abs(number), std::chars_format::scientific).ptr;
  const std::string_view written(text, static_cast<std::size_t>(end - text));  // d.ddde+xx, d.ddde-xxx, de+xx
  const std::size_t mark = written.find('e');
  int exponent = 0;
  std::from_chars(text + mark + (written[mark + 1] == '+' ? 2 : 1), end, exponent);
  char digits[24];
  std::size_t count = 0;
  for (const char c : written.substr(0, mark))
    if (c != '.') digits[count++] = c;
  const std::string_view all(digits, count);

  if (std::signbit(number)) out += '-';
  const int places = static_cast<int>(count), point = exponent + 1;  // digits before the point
  if (point >= places && point <= 15) {
    out += all;
    out.append(static_cast<std::size_t>(point - places), '0');
    out += ".0";
  } else if (point > 0 && point <= 15) {
    out += all.substr(0, static_cast<std::size_t>(point));
    out += '.';
    out += all.substr(static_cast<std::size_t>(point));
  } else if (point > -4 && point <= 0) {
    out += "0.";
    out.append(static_cast<std::size_t>(-point), '0');
    out += all;
  } else {
    out += written;  // two digits of exponent at least
  }
}

template <typename T>
void append_whole(std::string& out, T number) {
  char text[24];
  out.append(text, std::to_chars(text, std::end(text), number).ptr);
}

}  // namespace

void JsonWriter::begin(char bracket) {
  separate();
  out_ += bracket;
  ++depth_;
  first_ = true;
}

void JsonWriter::end(char bracket) {
  --depth_;
  if (!first_) new_line();
  out_ += bracket;
  first_ = false;
}

void JsonWriter::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (!first_) out_ += ',';
  if (depth_ != 0) new_line();
  first_ = false;
}

void JsonWriter::new_line() {
  if (indent_ == 0) return;
  out_ += '\n';
  out_.append(std::size_t{depth_} * indent_, ' ');
}

void JsonWriter::key(std::string_view name) {
  separate();
  append_string(out_, name);
  out_ += indent_ == 0 ? ":" : ": ";
  after_key_ = true;
}

void JsonWriter::raw(std::string_view text) {
  separate();
  out_ += text;
}

void JsonWriter::null() { raw("null"); }

void JsonWriter::value(std::string_view text) {
  separate();
  append_string(out_, text);
}

void JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  separate();
  append_double(out_, number);
}

void JsonWriter::whole(std::int64_t number) {
  separate();
  append_whole(out_, number);
}

void JsonWriter::whole(std::uint64_t number) {
  separate();
  append_whole(out_, number);
}

}  // namespace kvant
