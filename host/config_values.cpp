// What a field takes: checks of single values, and the words for them.
#include <algorithm>

#include "config_fields.hpp"
#include "quoted_text.hpp"

namespace kvant {
namespace {

std::string joined(std::span<const std::string_view> names) {
  std::string text;
  for (const std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

std::string format_names() {
  std::string text;
  for (const FormatInfo& format : formats()) text += (text.empty() ? "" : ", ") + std::string(format.name);
  return text;
}

std::string range_text(const ConfigField& field, std::string_view what) {
  const std::string least = std::to_string(field.least), most = std::to_string(field.most);
  if (field.most == field.least + field.step && field.step > 1) return least + " or " + most;
  return (field.zero ? "0 or " : "") + std::string(what) + " from " + least + " to " + most;
}

bool number_allowed(const ConfigField& field, std::uint64_t number) {
  if (field.zero && number == 0) return true;
  return number >= field.least && number <= field.most && number % field.step == 0;
}

bool port_allowed(std::string_view port) {
  if (port.empty() || port.size() > 5) return false;
  std::uint32_t number = 0;
  for (const char c : port) {
    if (c < '0' || c > '9') return false;
    number = number * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return number >= 1 && number <= 65535;
}

bool host_allowed(std::string_view host) {
  return !host.empty() && host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
                              std::string_view::npos;
}

bool server_allowed(std::string_view server) {
  const std::size_t colon = server.find(':');
  if (!host_allowed(server.substr(0, colon))) return false;
  return colon == std::string_view::npos || port_allowed(server.substr(colon + 1));
}

bool servers_allowed(std::string_view servers) {
  while (!servers.empty()) {
    const std::size_t comma = servers.find(',');
    if (!server_allowed(servers.substr(0, comma))) return false;
    if (comma == std::string_view::npos) return true;
    servers.remove_prefix(comma + 1);
    if (servers.empty()) return false;
  }
  return true;
}

bool text_allowed(const ConfigField& field, const std::string& text) {
  switch (field.type) {
    case FieldType::name: {
      const std::vector<std::string_view> names = field.names();
      return std::find(names.begin(), names.end(), text) != names.end();
    }
    case FieldType::format:
      return text.empty() || format_by_name(text).has_value();
    case FieldType::format_pair:
      return text.empty() || format_pair_from_text(text).has_value();
    case FieldType::servers:
      return text.size() <= field.most && servers_allowed(text);
    case FieldType::text:
      return text.size() <= field.most && plain_text(text);
    default:
      return false;
  }
}

bool value_allowed(const ConfigField& field, const ConfigValue& value) {
  const bool is_number =
      field.type == FieldType::count || field.type == FieldType::bytes || field.type == FieldType::duration;
  if (std::holds_alternative<bool>(value)) return field.type == FieldType::boolean;
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return is_number && number_allowed(field, *number);
  return text_allowed(field, std::get<std::string>(value));
}

}  // namespace

std::string_view field_type_name(FieldType type) {
  switch (type) {
    case FieldType::boolean:
      return "boolean";
    case FieldType::count:
      return "number";
    case FieldType::bytes:
      return "size";
    case FieldType::duration:
      return "duration";
    case FieldType::name:
      return "name";
    case FieldType::format:
      return "format";
    case FieldType::format_pair:
      return "formats";
    case FieldType::servers:
      return "servers";
    case FieldType::text:
      return "text";
  }
  return "unknown";
}

std::string expected_text(const ConfigField& field) {
  switch (field.type) {
    case FieldType::boolean:
      return "true or false";
    case FieldType::count:
      return range_text(field, "a whole number");
    case FieldType::bytes:
      return range_text(field, "a whole number") + " bytes, or text such as \"512MiB\" or \"2GB\"";
    case FieldType::duration:
      return range_text(field, "a whole number") + " milliseconds, or text such as \"30s\" or \"5m\"";
    case FieldType::name: {
      std::vector<std::string_view> names = field.names();
      const bool empty = std::erase(names, std::string_view()) != 0;
      return "one of " + joined(names) + (empty ? ", or empty" : "");
    }
    case FieldType::format:
      return "one of " + format_names() + ", or empty";
    case FieldType::format_pair:
      return "one of " + format_names() + ", two of them as \"k/v\", or empty";
    case FieldType::servers:
      return "\"host:port,host:port\" of at most " + std::to_string(field.most) + " bytes, or empty";
    case FieldType::text:
      return "text of at most " + std::to_string(field.most) + " bytes without control characters";
  }
  return "known";
}

std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = 0;
  while (i < text.size()) {
    const unsigned lead = byte(i);
    const std::size_t more = lead < 0x80 ? 0 : lead >= 0xC2 && lead < 0xE0 ? 1 : (lead & 0xF0u) == 0xE0 ? 2 : 3;
    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || text.size() - i <= more) return i;
    for (std::size_t j = 1; j <= more; ++j)
      if ((byte(i + j) & 0xC0u) != 0x80u) return i;
    if (more >= 2) {  // overlong forms, surrogates, beyond U+10FFFF
      const unsigned second = byte(i + 1);
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0)) return i;
      if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90)) return i;
    }
    i += more + 1;
  }
  return text.size();
}

bool plain_text(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  return utf8_length(text) == text.size() && std::none_of(text.begin(), text.end(), control);
}

// Terminals and logs must not stumble over what somebody wrote into a configuration.
std::string printable(std::string text) {
  const bool utf8 = utf8_length(text) == text.size();
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || (!utf8 && static_cast<unsigned char>(c) >= 0x80)) c = '?';
  return text;
}

std::string shown_text(std::string_view text) { return '"' + printable(quoted_text(text)) + '"'; }

std::string value_text(const ConfigValue& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return std::to_string(*number);
  return shown_text(std::get<std::string>(value));
}

Status refused_value(const ConfigField& field, std::string_view shown) {
  return {StatusCode::invalid_argument,
          std::string(field.key) + " (" + std::string(shown) + ") is not " + expected_text(field)};
}

Status check_value(const ConfigField& field, const ConfigValue& value) {
  return value_allowed(field, value) ? Status() : refused_value(field, value_text(value));
}

std::optional<FormatPair> format_pair_from_text(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::optional<FormatId> k = format_by_name(text.substr(0, slash));
  const std::optional<FormatId> v = slash == std::string_view::npos ? k : format_by_name(text.substr(slash + 1));
  if (!k || !v) return std::nullopt;
  return FormatPair{*k, *v};
}

}  // namespace kvant
