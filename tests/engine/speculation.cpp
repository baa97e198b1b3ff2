// Speculative decoding writes the target's own greedy text, token for token, whatever the draft is.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "engine/cache_attention.hpp"
#include "engine/gguf.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"
#include "engine/speculate.hpp"
#include "engine/tokenizer.hpp"
#include "test_device.hpp"

namespace {

using namespace kvant;
using engine::SpeculationOptions;

struct Formats {
  const char* k = "q8_0";
  const char* v = "q4_0";
  bool operator==(const Formats&) const = default;
};

std::string shipped(const std::string& name) { return std::string(KVANT_SOURCE_DIR "/models/") + name; }

// A text, and by how much each of its tokens led the second-best.
struct Own {
  std::vector<uint32_t> tokens;
  std::vector<float> leads;
};

// What every case needs: the shipped model on the test's device, and texts of models/ to continue.
struct Bench {
  std::shared_ptr<tools::Device> device = open_test_device();
  std::unique_ptr<engine::Tokenizer> tokenizer;
  std::unique_ptr<engine::Llama> model;

  Bench() {
    const auto file = engine::GgufFile::load(shipped("tiny.gguf"));
    REQUIRE_MESSAGE(file.ok(), file.failure().message);
    auto loaded_tokenizer = engine::Tokenizer::from(*file);
    auto loaded_model = engine::Llama::load(*file);
    REQUIRE(loaded_tokenizer.ok());
    REQUIRE(loaded_model.ok());
    tokenizer = std::make_unique<engine::Tokenizer>(std::move(*loaded_tokenizer));
    model = std::make_unique<engine::Llama>(std::move(*loaded_model));
  }

  std::vector<uint32_t> encode(const std::string& text) const {
    std::vector<uint32_t> tokens = tokenizer->encode(text);
    tokens.insert(tokens.begin(), tokenizer->bos());
    return tokens;
  }

  // Two passages of the held-out text, and a recall prompt.
  std::vector<std::vector<uint32_t>> prompts() const {
    std::ostringstream held_out;
    held_out << std::ifstream(shipped("heldout.txt")).rdbuf();
    const std::string text = held_out.str();
    REQUIRE(text.size() > 60000);
    std::ifstream recall(shipped("recall_test.txt"));
    std::string line;
    REQUIRE(std::getline(recall, line));
    line.resize(std::min(line.find('\t'), line.size()));
    for (size_t at = line.find("\\n"); at != std::string::npos; at = line.find("\\n", at)) {
      line.replace(at, 2, "\n");
    }
    return {encode(text.substr(1000, 60)), encode(text.substr(50000, 21)), encode(line)};
  }

  std::unique_ptr<engine::CacheAttention> cache(const Formats& formats, uint64_t tokens, uint32_t layers = 0) const {
    const auto k_format = device->library()->format(formats.k);
    const auto v_format = device->library()->format(formats.v);
    REQUIRE(k_format.ok());
    REQUIRE(v_format.ok());
    engine::AttentionShape shape = model->config().attention();
    shape.layers = layers != 0 ? layers : shape.layers;
    auto made = engine::CacheAttention::create(device, shape, k_format->id, v_format->id, tokens, 1);
    REQUIRE_MESSAGE(made.ok(), made.failure().message);
    return std::move(*made);
  }

  // The target's own text, one token a step.
  Own greedy(const Formats& formats, const std::vector<uint32_t>& prompt, uint32_t budget) const {
    const auto target = cache(formats, prompt.size() + budget);
    engine::Session session(*model, *target, true);
    std::vector<float> logits;
    Own own;
    REQUIRE(session.feed(prompt, logits).ok());
    while (own.tokens.size() < budget) {
      own.tokens.push_back(engine::argmax(logits));
      std::vector<float> order = logits;
      std::nth_element(order.begin(), order.begin() + 1, order.end(), std::greater<>());
      own.leads.push_back(order[0] - order[1]);
      REQUIRE(session.feed({&own.tokens.back(), 1}, logits).ok());
    }
    return own;
  }
};

// Texts are equal; where they are not, says where they part and how near the tie was that they part at.
void check_equal(const std::vector<uint32_t>& tokens, const Own& own) {
  const auto [ours, theirs] = std::mismatch(tokens.begin(), tokens.end(), own.tokens.begin(), own.tokens.end());
  if (theirs != own.tokens.end()) {
    const auto at = theirs - own.tokens.begin();
    MESSAGE("token ", at, " differs; there the best logit leads by ", own.leads[static_cast<size_t>(at)]);
  }
  CHECK(tokens == own.tokens);
}

struct Draft {
  Formats formats;
  uint32_t layers = 0;
};

struct Speculated {
  std::vector<uint32_t> tokens;
  engine::SpeculationCounts counts;
  uint64_t target_length = 0;
  uint64_t draft_length = 0;
};

Speculated speculate(const Bench& bench, const Formats& formats, const Draft& draft, SpeculationOptions options,
                     const std::vector<uint32_t>& prompt, uint32_t budget) {
  options.draft_layers = draft.layers;
  const uint64_t room = prompt.size() + budget + engine::tree_tokens(options);
  const auto target = bench.cache(formats, room);
  const auto helper = bench.cache(draft.formats, room, draft.layers);
  engine::Speculation speculation(*bench.model, *target, *helper, options);
  const auto started = speculation.start(prompt);
  REQUIRE_MESSAGE(started.ok(), started.failure().message);
  Speculated result;
  const auto written = speculation.write(budget, [&](uint32_t token) { result.tokens.push_back(token); });
  REQUIRE_MESSAGE(written.ok(), written.failure().message);
  result.counts = speculation.counts();
  const auto length = [](engine::CacheAttention& attention) {
    uint64_t tokens = 0;
    REQUIRE(attention.cache().api().sequence_length(attention.cache().handle(), attention.sequence(0), &tokens) ==
            nullptr);
    CHECK(tokens == attention.length(0));
    return tokens;
  };
  result.target_length = length(*target);
  result.draft_length = length(*helper);
  return result;
}

double acceptance(const engine::SpeculationCounts& counts) {
  return static_cast<double>(counts.accepted) / static_cast<double>(counts.proposed);
}

}  // namespace

TEST_CASE("speculation: drafts of every kind, chains and trees, write the target's own text") {
  const Bench bench;
  if (bench.device == nullptr) {
    return;
  }
  constexpr uint32_t kBudget = 32;
  const std::vector<SpeculationOptions> shapes = {{4, 1, 0, {}}, {3, 2, 0, {}}, {2, 4, 0, {}}};
  uint64_t other_branches = 0, rejected = 0;
  for (const Formats& formats : {Formats{"f32", "f32"}, Formats{"q8_0", "q4_0"}}) {
    // Every kind for the formats in use; for f32, where rounding is far below any lead, the two extremes.
    std::vector<Draft> drafts = {{formats, 0}, {{"q4_0", "q4_0"}, 1}};
    if (formats == Formats{}) {
      drafts.push_back({{"q4_0", "q4_0"}, 0});
      drafts.push_back({{"f16", "f16"}, 3});
    }
    for (const auto& prompt : bench.prompts()) {
      const Own own = bench.greedy(formats, prompt, kBudget);
      for (const Draft& draft : drafts) {
        for (const SpeculationOptions& shape : shapes) {
          CAPTURE(formats.k);
          CAPTURE(prompt.size());
          CAPTURE(draft.formats.k);
          CAPTURE(draft.layers);
          CAPTURE(shape.draft_tokens);
          CAPTURE(shape.width);
          const Speculated result = speculate(bench, formats, draft, shape, prompt, kBudget);
          check_equal(result.tokens, own);
          // All but the last token, in both caches: nothing of the trees is left behind.
          CHECK(result.target_length == prompt.size() + kBudget - 1);
          CHECK(result.draft_length <= prompt.size() + kBudget - 1);
          CHECK(result.counts.written == kBudget);
          CHECK(result.counts.target_steps + result.counts.accepted == kBudget - 1);
          CHECK(result.counts.accepted <= result.counts.proposed);
          if (draft.formats == formats && draft.layers == 0) {
            CHECK(acceptance(result.counts) > 0.95);
          }
          other_branches += result.counts.other_branches;
          rejected += result.counts.proposed - result.counts.accepted;
        }
      }
    }
  }
  // Else the paths that put an alternative in order, or take drafts back, were not walked.
  CHECK(other_branches > 20);
  CHECK(rejected > 100);
  check_quiet(*bench.device);
}

TEST_CASE("speculation: a prompt of one token, drafts longer than what is left, and no budget") {
  const Bench bench;
  if (bench.device == nullptr) {
    return;
  }
  const std::vector<uint32_t> prompt = {bench.tokenizer->bos()};
  const auto expected = bench.greedy({}, prompt, 12).tokens;
  for (const uint32_t budget : {0u, 1u, 2u, 3u, 12u}) {
    for (const SpeculationOptions& shape : {SpeculationOptions{8, 1, 0, {}}, SpeculationOptions{8, 3, 0, {}}}) {
      CAPTURE(budget);
      CAPTURE(shape.width);
      const Speculated result = speculate(bench, {}, {{"q4_0", "q4_0"}, 2}, shape, prompt, budget);
      CHECK(result.tokens == std::vector<uint32_t>(expected.begin(), expected.begin() + budget));
      // A step is never asked for more than can be written.
      CHECK(result.counts.proposed <= (budget == 0 ? 0 : uint64_t{budget - 1} * (budget - 1)));
      CHECK(result.target_length == prompt.size() + (budget == 0 ? 0 : budget - 1));
    }
  }
}

TEST_CASE("speculation: the text ends before its end token, wherever in a step that comes") {
  const Bench bench;
  if (bench.device == nullptr) {
    return;
  }
  const auto prompt = bench.prompts()[0];
  const auto own = bench.greedy({}, prompt, 24).tokens;
  std::vector<uint32_t> ends = own;
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  REQUIRE(ends.size() >= 5);
  for (const uint32_t end : ends) {
    const std::vector<uint32_t> expected(own.begin(), std::find(own.begin(), own.end(), end));
    for (const SpeculationOptions& shape : {SpeculationOptions{4, 1, 0, end}, SpeculationOptions{2, 2, 0, end}}) {
      CAPTURE(end);
      CAPTURE(shape.width);
      const Speculated result = speculate(bench, {}, {}, shape, prompt, 24);
      CHECK(result.tokens == expected);
      CHECK(result.counts.written == expected.size());
    }
  }
}

TEST_CASE("speculation: a chain's logits are those of single steps to the bit, where runs are invariant") {
  const Bench bench;
  if (bench.device == nullptr) {
    return;
  }
  const auto text = bench.encode("And God said, Let there be light: and there was light. And God saw the light, that it was good");
  constexpr uint32_t kChain = 7;
  for (const Formats& formats : {Formats{"f32", "f32"}, Formats{"q8_0", "q4_0"}}) {
    const auto chain = bench.cache(formats, 256), single = bench.cache(formats, 256);
    chain->make_invariant();
    single->make_invariant();
    const auto at = static_cast<uint32_t>(text.size()) - kChain;
    const auto feed = [&](engine::CacheAttention& attention, uint32_t begin, uint32_t count) {
      engine::Batch batch;
      batch.entries = {{0, begin, count}};
      batch.tokens.assign(text.begin() + begin, text.begin() + begin + count);
      for (uint32_t i = 0; i < count; ++i) {
        batch.logit_rows.push_back(i);
      }
      std::vector<float> logits;
      const auto done = bench.model->forward(batch, attention, logits);
      REQUIRE_MESSAGE(done.ok(), done.failure().message);
      return logits;
    };
    feed(*chain, 0, at);
    feed(*single, 0, at);
    const std::vector<float> together = feed(*chain, at, kChain);
    std::vector<float> apart;
    for (uint32_t i = 0; i < kChain; ++i) {
      const std::vector<float> row = feed(*single, at + i, 1);
      apart.insert(apart.end(), row.begin(), row.end());
    }
    CHECK(together == apart);
  }
}

TEST_CASE("speculation: a tree sees its own path alone, and what is kept of it is what a chain would have written") {
  const Bench bench;
  if (bench.device == nullptr) {
    return;
  }
  // Tokens a b c d after a text; then the same as a tree of two paths (a b) and (c d), of which the second is kept.
  const auto text = bench.encode("In the beginning God created ");
  const auto at = static_cast<uint32_t>(text.size());
  const std::vector<uint32_t> path = bench.tokenizer->encode("the heav");
  std::vector<float> logits, tree_logits;
  const auto feed = [&](engine::CacheAttention& attention, const engine::Batch& batch, std::vector<float>& out) {
    const auto done = bench.model->forward(batch, attention, out);
    REQUIRE_MESSAGE(done.ok(), done.failure().message);
  };
  const auto chain = bench.cache({"f32", "f32"}, 256);
  const auto tree = bench.cache({"f32", "f32"}, 256);
  engine::Batch prompt;
  prompt.entries = {{0, 0, at}};
  prompt.tokens = text;
  feed(*chain, prompt, logits);
  feed(*tree, prompt, logits);

  engine::Batch straight;
  straight.entries = {{0, at, 3}};
  straight.tokens = {path[0], path[3], path[4]};
  straight.logit_rows = {0, 1, 2};
  feed(*chain, straight, logits);

  REQUIRE(tree->record().ok());
  const std::vector<uint32_t> mask = {0b00001, 0b00011, 0b00111, 0b01001, 0b11001};
  engine::Batch branched;
  branched.entries = {{0, at, 5, mask, at}};
  branched.tokens = {path[0], path[1], path[2], path[3], path[4]};
  branched.positions = {at, at + 1, at + 2, at + 1, at + 2};
  branched.logit_rows = {0, 3, 4};
  feed(*tree, branched, tree_logits);
  double worst = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - static_cast<double>(tree_logits[i])));
  }
  CHECK(worst < 1e-3);  // logits have an rms of about 12

  const std::vector<uint32_t> backwards = {at + 3, at};
  CHECK_FALSE(tree->keep(backwards).ok());
  const std::vector<uint32_t> beyond = {at, at + 5};
  CHECK_FALSE(tree->keep(beyond).ok());
  const std::vector<uint32_t> kept = {at, at + 3, at + 4};
  const auto done = tree->keep(kept);
  REQUIRE_MESSAGE(done.ok(), done.failure().message);
  CHECK(tree->length(0) == at + 3);
  CHECK_FALSE(tree->keep(kept).ok());  // the record is over
  const auto& shape = bench.model->config();
  std::vector<float> ours(size_t{3} * shape.kv_heads * shape.head_dim), theirs(ours.size());
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (const uint32_t side : {KVANT_SIDE_K, KVANT_SIDE_V}) {
      const auto read = [&](engine::CacheAttention& attention, std::vector<float>& out) {
        const kvant_tensor tensor = tools::float_tensor(out.data(), out.size());
        REQUIRE(attention.cache().api().sequence_read(attention.cache().handle(), attention.sequence(0), layer, side,
                                                      at, 3, &tensor) == nullptr);
      };
      read(*tree, ours);
      read(*chain, theirs);
      double difference = 0;
      for (size_t i = 0; i < ours.size(); ++i) {
        difference = std::max(difference, std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
      }
      CAPTURE(layer);
      CHECK(difference < 1e-4);  // values reach 12
    }
  }
}

TEST_CASE("speculation: drafts are spelled FORMAT[/FORMAT][:LAYERS]") {
  const auto both = engine::parse_draft("q4_0", 6);
  REQUIRE(both.ok());
  CHECK(both->k_format == "q4_0");
  CHECK(both->v_format == "q4_0");
  CHECK(both->layers == 0);
  const auto cut = engine::parse_draft("q8_0/nf4:6", 6);
  REQUIRE(cut.ok());
  CHECK(cut->k_format == "q8_0");
  CHECK(cut->v_format == "nf4");
  CHECK(cut->layers == 6);
  for (const char* wrong : {"", ":1", "q4_0/", "/q4_0", "q4_0:", "q4_0:0", "q4_0:7", "q4_0:-1", "q4_0:1x"}) {
    CAPTURE(wrong);
    const auto refused = engine::parse_draft(wrong, 6);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.failure().exit == tools::Exit::kUsage);
  }
}

TEST_CASE("speculation: trees too large for the engine are refused before anything is read") {
  engine::LlamaConfig config;
  config.vocabulary = 260;
  CHECK(engine::Speculation::check({4, 1, 0, {}}, config).ok());
  CHECK(engine::Speculation::check({31, 1, 0, {}}, config).ok());
  CHECK_FALSE(engine::Speculation::check({32, 1, 0, {}}, config).ok());
  CHECK_FALSE(engine::Speculation::check({8, 4, 0, {}}, config).ok());
  CHECK_FALSE(engine::Speculation::check({0, 1, 0, {}}, config).ok());
  CHECK_FALSE(engine::Speculation::check({1u << 31, 1u << 31, 0, {}}, config).ok());
  config.vocabulary = 2;
  CHECK_FALSE(engine::Speculation::check({1, 3, 0, {}}, config).ok());
}
