// The tables of kvant eval, and the text on the terminal that they make up.
#include <algorithm>

#include "eval_report.hpp"

namespace kvant::tools {

namespace {

std::string recall_cell(const RecallFigures& recall) {
  return recall.lines == 0 ? "-" : std::to_string(recall.exact) + "/" + std::to_string(recall.lines);
}

std::string bits_cell(const RecallFigures& recall) { return recall.lines > 0 ? fixed(recall.bits_per_byte, 4) : "-"; }

std::string change_cell(const EvalReport& report, const TextFigures& text) {
  const double change = perplexity_change(report, text);
  return (change >= 0 ? "+" : "") + fixed(100 * change, 3) + " %";
}

// Figures of a made-up set at one deviation of the logits; null where it was not measured.
const AttentionFigures* find(const PairFigures& pair, uint32_t head_dim, const std::string& set, double logit_std) {
  const auto at = std::find_if(pair.attention.begin(), pair.attention.end(), [&](const AttentionFigures& one) {
    return one.set == set && one.head_dim == head_dim && one.logit_std == logit_std;
  });
  return at == pair.attention.end() ? nullptr : &*at;
}

// One row a pair and head size, one column a set, in the order measured.
template <typename Cell>
Table attention_table(const EvalReport& report, double logit_std, Cell cell) {
  std::vector<std::string> sets;
  std::vector<uint32_t> dims;
  for (const AttentionFigures& figures : report.pairs[0].attention) {
    if (std::find(sets.begin(), sets.end(), figures.set) == sets.end()) {
      sets.push_back(figures.set);
    }
    if (std::find(dims.begin(), dims.end(), figures.head_dim) == dims.end()) {
      dims.push_back(figures.head_dim);
    }
  }
  std::vector<std::string> columns = {"K/V", "d"};
  columns.insert(columns.end(), sets.begin(), sets.end());
  Table table(columns);
  for (const PairFigures& pair : report.pairs) {
    for (const uint32_t dim : dims) {
      std::vector<std::string> cells = {pair.pair.name(), std::to_string(dim)};
      for (const std::string& set : sets) {
        const AttentionFigures* const figures = find(pair, dim, set, logit_std);
        cells.push_back(figures != nullptr ? cell(*figures) : "-");
      }
      table.add(cells);
    }
  }
  return table;
}

Table needle_table(const EvalReport& report) {
  Table table({"K/V", "d", "keys", "found", "exact mass", "least share of it", "kept"});
  for (const PairFigures& pair : report.pairs) {
    for (const NeedleFigures& needle : pair.needles) {
      table.add({pair.pair.name(), std::to_string(needle.head_dim), std::to_string(needle.keys),
                 std::to_string(needle.found) + "/" + std::to_string(needle.needles), percent(needle.exact_mass, 2),
                 percent(needle.least_share, 2), needle.kept() ? "yes" : "no"});
    }
  }
  return table;
}

}  // namespace

const char* keys_name(Keys keys) { return keys == Keys::kOutlier ? "outlier" : "plain"; }

const LanguageFigures* PairFigures::with(Keys keys) const {
  const auto at =
      std::find_if(language.begin(), language.end(), [&](const LanguageFigures& one) { return one.keys == keys; });
  return at == language.end() ? nullptr : &*at;
}

double perplexity_change(const EvalReport& report, const TextFigures& text) {
  return text.perplexity / report.pairs[0].language[0].text.perplexity - 1.0;
}

std::string eval_introduction(const EvalReport& report) {
  std::string text =
      report.model + " on " + report.device.name + ", " + report.device.driver + ", commit " + report.commit +
      ". Text: " + std::to_string(report.chunks) + (report.chunks == 1 ? " chunk" : " chunks") +
      " of held-out text, the second half of each scored (" + std::to_string(report.pairs[0].language[0].text.tokens) +
      " tokens). The reference is the same plugin with an f32 cache; KL divergence in nats.";
  if (report.pairs[0].with(Keys::kOutlier) != nullptr) {
    text +=
        " Outlier keys: in each KV head two RoPE pairs four times as large in K and a quarter in Q, and a constant of "
        "20 "
        "times the keys' root mean square on two channels of K; what the model computes stays the same, and the "
        "reference has plain keys.";
  }
  return text;
}

Table language_table(const EvalReport& report) {
  const bool plain_only = report.pairs[0].with(Keys::kOutlier) == nullptr;
  std::vector<std::string> columns = {"K/V"};
  if (!plain_only) {
    columns.push_back("keys");
  }
  for (const char* column :
       {"bits", "PPL", "to f32", "KL mean", "KL p99", "same top-1", "hard recall", "bits/byte", "recall", "seconds"}) {
    columns.push_back(column);
  }
  Table table(columns);
  for (const PairFigures& figures : report.pairs) {
    for (const LanguageFigures& language : figures.language) {
      std::vector<std::string> cells = {figures.pair.name()};
      if (!plain_only) {
        cells.push_back(keys_name(language.keys));
      }
      const TextFigures& text = language.text;
      const bool last = &language == &figures.language.back();  // the time is that of the pair
      for (const std::string& cell :
           {fixed(figures.bits_per_element, 2), fixed(text.perplexity, 4), change_cell(report, text),
            significant(text.kl_mean), significant(text.kl_p99), percent(text.top1_agreement, 2),
            recall_cell(language.recall_hard), bits_cell(language.recall_hard), recall_cell(language.recall_test),
            last ? fixed(figures.seconds, 0) : std::string()}) {
        cells.push_back(cell);
      }
      table.add(cells);
    }
  }
  return table;
}

Table keys_table(const EvalReport& report) {
  Table table({"K/V", "bits", "KL plain", "KL outlier", "top-1 plain", "top-1 outlier", "PPL plain", "PPL outlier",
               "bits/byte plain", "bits/byte outlier"});
  for (const PairFigures& figures : report.pairs) {
    const LanguageFigures* const plain = figures.with(Keys::kPlain);
    const LanguageFigures* const outlier = figures.with(Keys::kOutlier);
    if (plain != nullptr && outlier != nullptr) {
      table.add({figures.pair.name(), fixed(figures.bits_per_element, 2), significant(plain->text.kl_mean),
                 significant(outlier->text.kl_mean), percent(plain->text.top1_agreement, 2),
                 percent(outlier->text.top1_agreement, 2), change_cell(report, plain->text),
                 change_cell(report, outlier->text), bits_cell(plain->recall_hard), bits_cell(outlier->recall_hard)});
    }
  }
  return table;
}

Table tensor_table(const EvalReport& report) {
  Table table({"K/V", "data", "K relMSE", "K cosine", "V relMSE", "V cosine", "output relMSE", "output cosine"});
  for (const PairFigures& figures : report.pairs) {
    for (const TensorFigures& set : figures.tensors) {
      table.add({figures.pair.name(), set.set, significant(set.k.relative_mse), fixed(set.k.cosine, 6),
                 significant(set.v.relative_mse), fixed(set.v.cosine, 6), significant(set.output.relative_mse),
                 fixed(set.output.cosine, 6)});
    }
  }
  return table;
}

std::vector<TitledTable> attention_tables(const EvalReport& report) {
  std::vector<TitledTable> tables;
  if (report.pairs[0].attention.empty()) {
    return tables;
  }
  tables.push_back(
      {"Made-up keys as the cache holds them",
       "Squared error over the keys' energy around their mean: softmax sees no offset that all keys share.",
       attention_table(report, report.pairs[0].attention[0].logit_std,
                       [](const AttentionFigures& one) { return significant(one.key_error); })});
  std::vector<double> deviations;
  for (const AttentionFigures& figures : report.pairs[0].attention) {
    if (std::find(deviations.begin(), deviations.end(), figures.logit_std) == deviations.end()) {
      deviations.push_back(figures.logit_std);
    }
  }
  for (const double logit_std : deviations) {
    tables.push_back(
        {"Attention over made-up keys, standard deviation of the logits " + significant(logit_std, 1),
         "Relative L2 error of the output against exact attention in double, K and V quantized; in "
         "parentheses of the held keys alone: KL divergence of the weights in nats, and how often the same "
         "key weighs most.",
         attention_table(report, logit_std, [](const AttentionFigures& one) {
           return significant(one.output_error) + " (" + significant(one.key_divergence, 2) + ", " +
                  fixed(one.top1_agreement, 2) + ")";
         })});
  }
  tables.push_back(
      {"Needles: keys that are multiples of their queries, among normal keys",
       "Found: the needle weighs most of the held keys. Least share: the smallest part of its exact weight "
       "that the cache's attention gives a needle. Kept: all found, and no share below 99 %.",
       needle_table(report)});
  return tables;
}

std::vector<TitledTable> synthetic_tables(const EvalReport& report) {
  std::vector<TitledTable> tables;
  if (report.formats.empty()) {
    return tables;
  }
  for (const bool keys : {false, true}) {
    std::vector<std::string> columns = {"format"};
    for (const SyntheticSet& set : report.formats[0].sets) {
      if (set.keys == keys) {
        columns.push_back(set.name);
        if (keys) {
          columns.push_back("centred");
        }
        columns.push_back("cosine");
      }
    }
    Table table(columns);
    for (const SyntheticFigures& figures : report.formats) {
      std::vector<std::string> cells = {figures.format.name};
      for (const SyntheticSet& set : figures.sets) {
        if (set.keys == keys) {
          cells.push_back(significant(set.error.relative_mse));
          if (keys) {
            cells.push_back(significant(set.centred));
          }
          cells.push_back(fixed(set.error.cosine, 5));
        }
      }
      table.add(cells);
    }
    tables.push_back(
        {keys ? "Made-up keys" : "Made-up data",
         keys ? "Relative squared error, the same error over the energy around the keys' mean, and cosine, "
                "which an offset makes look better than it is."
              : "Relative squared error and cosine after one trip through the stand-alone conversion on the "
                "device.",
         std::move(table)});
  }
  return tables;
}

Table memory_table(const EvalReport& report) {
  Table table({"format", "bits per element", "K and V held", "of f16"});
  constexpr double kElements = 2.0 * 80 * 64 * 128 * 2048;
  for (const SyntheticFigures& figures : report.formats) {
    const double bytes = static_cast<double>(figures.bytes_65b);
    table.add(
        {figures.format.name, fixed(8 * bytes / kElements, 3), bytes_text(bytes), percent(bytes / (2 * kElements))});
  }
  return table;
}

std::string eval_text(const EvalReport& report) {
  std::string text = eval_introduction(report) + "\n\n" + language_table(report).render();
  if (report.keys.size() > 1) {
    text += "\nPlain and outlier keys side by side (PPL: change to f32)\n\n" + keys_table(report).render();
  }
  if (!report.pairs[0].tensors.empty()) {
    text +=
        "\nRecorded K, V and Q of the model (relative squared error; output: attention against exact attention in "
        "double)\n\n" +
        tensor_table(report).render();
  }
  for (const auto& tables : {attention_tables(report), synthetic_tables(report)}) {
    for (const TitledTable& one : tables) {
      text += "\n" + one.title + ". " + one.explanation + "\n\n" + one.table.render();
    }
  }
  if (!report.formats.empty()) {
    text += "\nA 65B-shaped cache: 80 layers, 64 heads of 128, 2048 tokens\n\n" + memory_table(report).render();
  }
  return text;
}

}  // namespace kvant::tools
