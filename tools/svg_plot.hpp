// Plots as SVG, inside a page or as files of their own. Colours come from one style sheet and follow light and dark.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace kvant::tools {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;
  std::vector<std::string> labels;  // of each point, or empty
};

// Lines with markers, or labelled points only.
struct XyPlot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool lines = true;
  bool log_x = false;
  bool log_y = false;
  std::vector<PlotSeries> series;
  bool tight_x = false;  // the axis ends where the points do, not at a round value
  double height = 322;   // of the plot without what stands below its axes
};

// One group of bars a category, one bar a series in each; the values are printed beside the bars.
struct BarPlot {
  std::string title;
  std::string value_label;
  std::vector<std::string> categories;
  std::vector<std::pair<std::string, std::vector<double>>> series;
};

std::string render(const XyPlot& plot);
std::string render(const BarPlot& plot);
// A whole SVG file, with its title inside.
std::string render_file(const XyPlot& plot);
// The colours of light and dark as variables, and the rules of plots: what a page that holds plots begins its style
// with.
const char* plot_style();

std::string escape_html(const std::string& text);

}  // namespace kvant::tools
