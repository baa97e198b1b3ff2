// Column widths count characters, not bytes, so that UTF-8 in names stays aligned.
#include "table.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace kvant::tools {

namespace {

size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool looks_numeric(const std::string& cell) {
  return cell.empty() || cell == "-" ||
         (cell.find_first_of("0123456789") != std::string::npos &&
          (std::string("+-.0123456789").find(cell[0]) != std::string::npos));
}

std::string print(const char* pattern, int digits, double value) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), pattern, digits, value);
  return buffer.data();
}

}  // namespace

bool Table::numeric(size_t column) const {
  return std::all_of(rows_.begin(), rows_.end(),
                     [&](const auto& row) { return column >= row.size() || looks_numeric(row[column]); });
}

std::string Table::render() const {
  std::vector<size_t> widths;
  for (size_t column = 0; column < columns_.size(); ++column) {
    size_t width = width_of(columns_[column]);
    for (const auto& row : rows_) {
      width = std::max(width, column < row.size() ? width_of(row[column]) : 0);
    }
    widths.push_back(width);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t column = 0; column < columns_.size(); ++column) {
      const std::string cell = column < cells.size() ? cells[column] : "";
      const std::string space(widths[column] - width_of(cell), ' ');
      text += (column == 0 ? "" : "  ") + (numeric(column) ? space + cell : cell + space);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  };
  std::string text;
  // A list of names and values has no header.
  if (std::any_of(columns_.begin(), columns_.end(), [](const std::string& column) { return !column.empty(); })) {
    text = line(columns_);
    for (size_t column = 0; column < columns_.size(); ++column) {
      text += column == 0 ? "" : "  ";
      for (size_t i = 0; i < widths[column]; ++i) {
        text += "─";
      }
    }
    text += "\n";
  }
  for (const auto& row : rows_) {
    text += line(row);
  }
  return text;
}

std::string significant(double value, int digits) {
  if (value == 0.0) {
    return "0";
  }
  if (!std::isfinite(value)) {
    return "-";
  }
  const double magnitude = std::fabs(value);
  if (magnitude < 1e-4 || magnitude >= 1e7) {
    return print("%.*e", digits - 1, value);
  }
  const int whole = static_cast<int>(std::floor(std::log10(magnitude))) + 1;
  return fixed(value, std::max(0, digits - whole));
}

std::string fixed(double value, int decimals) { return print("%.*f", decimals, value); }

std::string percent(double share, int decimals) { return fixed(100.0 * share, decimals) + " %"; }

std::string bytes_text(double bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024.0 && unit + 1 < kUnits.size()) {
    bytes /= 1024.0;
    ++unit;
  }
  return (unit == 0 ? fixed(bytes, 0) : fixed(bytes, bytes < 100.0 ? 2 : 1)) + " " + kUnits[unit];
}

}  // namespace kvant::tools
