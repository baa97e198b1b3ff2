// Tables of text cells, printed to a terminal with aligned columns.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

namespace kvant::tools {

class Table {
 public:
  explicit Table(std::vector<std::string> columns) : columns_(std::move(columns)) {}

  // One cell a column; missing cells are empty.
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }

  // Columns whose cells are all numbers stand on the right.
  bool numeric(size_t column) const;
  std::string render() const;

 private:
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Figures in words: "1.50 MiB", 3 significant digits, "12.3 %", fixed decimals.
std::string bytes_text(double bytes);
std::string significant(double value, int digits = 3);
std::string fixed(double value, int decimals);
std::string percent(double share, int decimals = 1);

}  // namespace kvant::tools
