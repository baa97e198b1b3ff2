// Axes with round ticks, marks with tooltips, a legend where there are several series.
#include "svg_plot.hpp"

#include <algorithm>
#include <cmath>

#include "table.hpp"

namespace kvant::tools {

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

namespace {

constexpr double kWidth = 720, kLeft = 78, kRight = 20, kTop = 14;
constexpr size_t kColours = 6, kMostMarks = 40;

// The page's own rules and those of a plot that stands alone. :root is the page, or the picture.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1c2024;
  --soft: #60646c; --rule: #e2e3e6;
  --zebra: #f6f7f8;
  --0: #2f6fde; --1: #d9730d; --2: #1a8f5a; --3: #a044c4; --4: #c8324b; --5: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --page: #121416; --card: #1a1d20;
  --ink: #e8eaed; --soft: #9aa0a8;
  --rule: #2f343a; --zebra: #202428;
  --0: #6ea8ff; --1: #ffa657; --2: #56d39a; --3: #cf9bf0; --4: #ff7b8f; --5: #9ca3af; } }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .title { font-size: 14px; font-weight: 600; } svg .card { fill: var(--card); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .quiet { opacity: 0; } svg .quiet:hover { opacity: 1; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .c0 { fill: var(--0); } svg .c1 { fill: var(--1); } svg .c2 { fill: var(--2); }
svg .c3 { fill: var(--3); } svg .c4 { fill: var(--4); } svg .c5 { fill: var(--5); }
svg .s0 { stroke: var(--0); } svg .s1 { stroke: var(--1); } svg .s2 { stroke: var(--2); }
svg .s3 { stroke: var(--3); } svg .s4 { stroke: var(--4); } svg .s5 { stroke: var(--5); }
)css";

std::string number(double value) { return fixed(value, 1); }

std::string colour(size_t index) { return "c" + std::to_string(index % kColours); }

std::string text_at(double x, double y, const std::string& style, const std::string& words) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" class=\"" + style + "\">" + escape_html(words) +
         "</text>\n";
}

std::string line_at(double x1, double y1, double x2, double y2, const char* style) {
  return "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" + number(y2) +
         "\" class=\"" + style + "\"/>\n";
}

std::string tip(const std::string& words) { return "<title>" + escape_html(words) + "</title>"; }

// Maps values to pixels, with ticks at round values.
class Axis {
 public:
  Axis(double least, double most, bool logarithmic, double begin, double end, bool tight = false)
      : logarithmic_(logarithmic), begin_(begin), end_(end) {
    if (logarithmic_) {
      low_ = std::floor(std::log10(least) - 1e-9);
      high_ = std::max(std::ceil(std::log10(most) + 1e-9), low_ + 1);
      const double step = high_ - low_ > 8 ? 2 : 1;
      for (double power = low_; power <= high_ + 1e-9; power += step) {
        ticks_.push_back(std::pow(10.0, power));
      }
      return;
    }
    if (most - least < 1e-12 * std::max(1.0, std::fabs(most))) {
      most = least + 1;
    }
    const double raw = (most - least) / 5;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double step = raw / power > 5   ? 10 * power
                        : raw / power > 2 ? 5 * power
                        : raw / power > 1 ? 2 * power
                                          : power;
    low_ = std::floor(least / step) * step;
    high_ = std::ceil(most / step) * step;
    for (double tick = low_; tick <= high_ + step / 2; tick += step) {
      if (!tight || (tick >= least - step * 1e-6 && tick <= most + step * 1e-6)) {
        ticks_.push_back(std::fabs(tick) < step * 1e-6 ? 0.0 : tick);
      }
    }
    low_ = tight ? least : low_;
    high_ = tight ? most : high_;
  }

  double at(double value) const {
    const double v = logarithmic_ ? std::log10(value) : value;
    return begin_ + (v - low_) / (high_ - low_) * (end_ - begin_);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  bool logarithmic_;
  double begin_, end_;
  double low_ = 0, high_ = 1;
  std::vector<double> ticks_;
};

std::string power_text(double value) {
  static const char* const kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  const int power = static_cast<int>(std::lround(std::log10(value)));
  if (power >= -2 && power <= 4) {
    return fixed(value, std::max(0, -power));
  }
  std::string text = power < 0 ? "10⁻" : "10";
  for (const char digit : std::to_string(std::abs(power))) {
    text += kDigits[digit - '0'];
  }
  return text;
}

std::string tick_text(double value, bool logarithmic = false) {
  if (logarithmic) {
    return power_text(value);
  }
  return value == std::floor(value) && std::fabs(value) < 1e6 ? fixed(value, 0) : significant(value, 2);
}

std::string figure(const std::string& title, double height, const std::string& drawing) {
  return "<figure><figcaption>" + escape_html(title) + "</figcaption>\n<svg viewBox=\"0 0 " + number(kWidth) + " " +
         number(height) + "\" role=\"img\" aria-label=\"" + escape_html(title) + "\">\n" + drawing +
         "</svg></figure>\n";
}

std::string legend(const std::vector<std::string>& names, double y) {
  std::string svg;
  double x = kLeft;
  for (size_t i = 0; names.size() > 1 && i < names.size(); ++i) {
    svg += "<rect x=\"" + number(x) + "\" y=\"" + number(y - 9) + "\" width=\"12\" height=\"12\" rx=\"3\" class=\"" +
           colour(i) + "\"/>\n" + text_at(x + 17, y + 1, "label", names[i]);
    x += 36 + 7.2 * static_cast<double>(names[i].size());
  }
  return svg;
}

// Puts labels beside their points where neither a point nor an earlier label is.
class LabelPlacer {
 public:
  explicit LabelPlacer(double bottom) : bottom_(bottom) {}
  // A mark of the plot, that no label may cover. All of them come before the first label.
  void avoid(double x, double y) { marks_.emplace_back(x, y); }

  std::string place(double x, double y, const std::string& style, const std::string& words) {
    const double width = 6.4 * static_cast<double>(words.size());
    static constexpr double kShifts[] = {-6, 4, 12, -20, 26, -34, 40, -48, 54, -62, 68};
    for (const double aside : {8.0, 34.0, 60.0, 86.0}) {
      for (const double shift : kShifts) {
        for (const bool right : {true, false}) {
          const double left = right ? x + aside : x - aside - width;
          if (left < kLeft || left + width > kWidth || y + shift < kTop || y + shift > bottom_ || taken(left, left + width, y + shift)) {
            continue;
          }
          boxes_.push_back({left, left + width, y + shift});
          // A label that stands apart is tied to its point.
          const bool apart = aside > 8 || shift < -6 || shift > 12;
          return (apart ? line_at(x, y, right ? left - 1 : left + width + 1, y + shift - 4, "grid") : "") + text_at(left, y + shift, style, words);
        }
      }
    }
    return {};  // there is no room; the point tells its name under the pointer
  }

 private:
  struct Box {
    double left, right, base;
  };
  bool taken(double left, double right, double base) const {
    constexpr double kLetters = 11, kMark = 5;  // how high, and how far a mark reaches
    return std::any_of(boxes_.begin(), boxes_.end(),
                       [&](const Box& box) {
                         return left < box.right && box.left < right && std::fabs(base - box.base) < kLetters + 2;
                       }) ||
           std::any_of(marks_.begin(), marks_.end(), [&](const auto& mark) {
             return mark.first > left - kMark && mark.first < right + kMark && mark.second > base - kLetters - kMark &&
                    mark.second < base + kMark;
           });
  }
  double bottom_;  // no label is below it
  std::vector<Box> boxes_;
  std::vector<std::pair<double, double>> marks_;
};

bool drawn(const XyPlot& plot, double x, double y) {
  return (!plot.log_x || x > 0) && (!plot.log_y || y > 0) && std::isfinite(x) && std::isfinite(y);
}

// What stands below the axes: their ticks, the label and where there are several series, the legend.
double below(const XyPlot& plot) { return plot.series.size() > 1 ? 78 : 50; }
double height_of(const XyPlot& plot) { return plot.height + below(plot); }

// Empty where no point can be drawn.
std::string draw(const XyPlot& plot) {
  const double height = height_of(plot), bottom = plot.height;
  LabelPlacer labels(bottom);
  std::vector<double> xs, ys;
  std::vector<std::string> names;
  for (const PlotSeries& series : plot.series) {
    names.push_back(series.name);
    for (const auto& [x, y] : series.points) {
      if (drawn(plot, x, y)) {
        xs.push_back(x);
        ys.push_back(y);
      }
    }
  }
  if (xs.empty()) {
    return {};
  }
  const auto [x_least, x_most] = std::minmax_element(xs.begin(), xs.end());
  const auto [y_least, y_most] = std::minmax_element(ys.begin(), ys.end());
  const Axis x_axis(*x_least, *x_most, plot.log_x, kLeft, kWidth - kRight, plot.tight_x);
  // Lines of amounts start at zero, so that heights compare.
  const Axis y_axis(plot.log_y ? *y_least : std::min(0.0, *y_least), *y_most, plot.log_y, bottom, kTop);
  for (size_t i = 0; i < xs.size(); ++i) {
    labels.avoid(x_axis.at(xs[i]), y_axis.at(ys[i]));
  }
  std::string svg;
  for (const double tick : y_axis.ticks()) {
    svg += line_at(kLeft, y_axis.at(tick), kWidth - kRight, y_axis.at(tick), "grid");
    svg += text_at(kLeft - 8, y_axis.at(tick) + 4, "tick end", tick_text(tick, plot.log_y));
  }
  for (const double tick : x_axis.ticks()) {
    svg += line_at(x_axis.at(tick), kTop, x_axis.at(tick), bottom, "grid");
    svg += text_at(x_axis.at(tick), bottom + 18, "tick middle", tick_text(tick, plot.log_x));
  }
  svg += text_at((kLeft + kWidth - kRight) / 2, bottom + 38, "label middle", plot.x_label);
  svg += "<text transform=\"translate(16 " + number((kTop + bottom) / 2) + ") rotate(-90)\" class=\"label middle\">" +
         escape_html(plot.y_label) + "</text>\n";
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const PlotSeries& series = plot.series[i];
    std::string path, marks;
    const std::string label_style = plot.series.size() > 1 ? "tick " + colour(i) : "tick";
    // Many marks would hide their line: they appear under the pointer.
    const char* const quiet = plot.lines && series.points.size() > kMostMarks ? " quiet" : "";
    for (size_t j = 0; j < series.points.size(); ++j) {
      const auto [x, y] = series.points[j];
      if (!drawn(plot, x, y)) {
        continue;
      }
      const std::string label = j < series.labels.size() ? series.labels[j] : "";
      path += (path.empty() ? "M" : "L") + number(x_axis.at(x)) + " " + number(y_axis.at(y));
      marks += "<circle cx=\"" + number(x_axis.at(x)) + "\" cy=\"" + number(y_axis.at(y)) + "\" r=\"4.5\" class=\"" +
               colour(i) + quiet + "\">" +
               tip((label.empty() ? series.name : label) + ": " + significant(x, 4) + ", " + significant(y, 4)) +
               "</circle>\n";
      if (!label.empty()) {
        marks += labels.place(x_axis.at(x), y_axis.at(y), label_style, label);
      }
    }
    if (plot.lines) {
      svg += "<path d=\"" + path + "\" class=\"line s" + std::to_string(i % kColours) + "\"/>\n";
    }
    svg += marks;
  }
  return svg + legend(names, height - 10);
}

}  // namespace

std::string render(const XyPlot& plot) {
  const std::string drawing = draw(plot);
  return drawing.empty() ? drawing : figure(plot.title, height_of(plot), drawing);
}

std::string render_file(const XyPlot& plot) {
  constexpr double kTitle = 34;
  const double height = height_of(plot) + kTitle;
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth) + " " + number(height) +
         "\" width=\"" + number(kWidth) + "\" height=\"" + number(height) + "\" role=\"img\" aria-label=\"" +
         escape_html(plot.title) + "\">\n<style>" + kStyle +
         "</style>\n<rect width=\"100%\" height=\"100%\" class=\"card\"/>\n" +
         text_at(kLeft, kTitle - 12, "title", plot.title) + "<g transform=\"translate(0 " + number(kTitle) + ")\">\n" +
         draw(plot) + "</g>\n</svg>\n";
}

const char* plot_style() { return kStyle; }

std::string render(const BarPlot& plot) {
  if (plot.categories.empty() || plot.series.empty()) {
    return {};
  }
  double most = 0;
  double least = 0;
  size_t longest = 0;
  std::vector<std::string> names;
  for (const auto& [name, values] : plot.series) {
    names.push_back(name);
    for (const double value : values) {
      most = std::max(most, std::isfinite(value) ? value : 0);
      least = std::min(least, std::isfinite(value) ? value : 0);
    }
  }
  for (const std::string& category : plot.categories) {
    longest = std::max(longest, category.size());
  }
  constexpr double kBar = 16, kGap = 10;
  const double left = 14 + 7.2 * static_cast<double>(longest);
  const double group = kBar * static_cast<double>(plot.series.size()) + kGap;
  const double bottom = kTop + group * static_cast<double>(plot.categories.size());
  const double height = bottom + (plot.series.size() > 1 ? 66 : 44);
  const Axis axis(least, most, false, left, kWidth - kRight - 60);
  std::string svg;
  for (const double tick : axis.ticks()) {
    svg += line_at(axis.at(tick), kTop, axis.at(tick), bottom, "grid");
    svg += text_at(axis.at(tick), bottom + 16, "tick middle", tick_text(tick));
  }
  svg += text_at((left + kWidth - kRight) / 2, bottom + 34, "label middle", plot.value_label);
  for (size_t c = 0; c < plot.categories.size(); ++c) {
    const double top = kTop + group * static_cast<double>(c) + kGap / 2;
    svg += text_at(left - 8, top + kBar * static_cast<double>(plot.series.size()) / 2 + 4, "label end",
                   plot.categories[c]);
    for (size_t s = 0; s < plot.series.size(); ++s) {
      const double value = c < plot.series[s].second.size() ? plot.series[s].second[c] : 0;
      if (!std::isfinite(value)) {
        continue;
      }
      const double begin = std::min(axis.at(0), axis.at(value));
      const double width = std::max(std::fabs(axis.at(value) - axis.at(0)), 1.0);
      const double y = top + kBar * static_cast<double>(s);
      svg += "<rect x=\"" + number(begin) + "\" y=\"" + number(y) + "\" width=\"" + number(width) + "\" height=\"" +
             number(kBar - 3) + "\" rx=\"2\" class=\"" + colour(s) + "\">" +
             tip(plot.categories[c] + ", " + plot.series[s].first + ": " + significant(value, 4)) + "</rect>\n";
      svg += text_at(begin + width + 6, y + kBar - 6, "tick", significant(value));
    }
  }
  return figure(plot.title, height, svg + legend(names, height - 8));
}

}  // namespace kvant::tools
