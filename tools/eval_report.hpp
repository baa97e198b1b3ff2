// The figures of kvant eval as terminal tables, as JSON, as a page with plots and as one plot.
#pragma once

#include <string>

#include "eval.hpp"
#include "svg_plot.hpp"
#include "table.hpp"

namespace kvant::tools {

std::string eval_text(const EvalReport& report);
std::string eval_json(const EvalReport& report);
std::string eval_html(const EvalReport& report);
// Mean KL divergence by the bits that an element takes, a series for plain and one for outlier keys. The reference is
// not in it.
XyPlot divergence_plot(const EvalReport& report);

// What text and page share.
std::string eval_introduction(const EvalReport& report);
// Change of the perplexity to the reference's.
double perplexity_change(const EvalReport& report, const TextFigures& text);

struct TitledTable {
  std::string title;
  std::string explanation;  // what the title leaves open, or empty
  Table table;
};
Table language_table(const EvalReport& report);
// Plain and outlier keys in one row; for reports that have both.
Table keys_table(const EvalReport& report);
Table tensor_table(const EvalReport& report);
// Of what the caches of made-up keys hold, their attention at each deviation of the logits, and the needles.
std::vector<TitledTable> attention_tables(const EvalReport& report);
// Of stand-alone conversions: values, and keys.
std::vector<TitledTable> synthetic_tables(const EvalReport& report);
Table memory_table(const EvalReport& report);

}  // namespace kvant::tools
