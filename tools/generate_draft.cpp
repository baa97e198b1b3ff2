// kvant generate --draft: a draft's cache beside the target's, and the figures of both.
#include "generate_draft.hpp"

#include <algorithm>

#include "clock.hpp"
#include "commands.hpp"
#include "engine/sampler.hpp"
#include "engine/session.hpp"

namespace kvant::tools {

void add_draft_options(CLI::App& command, DraftOptions& options) {
  CLI::Option* draft =
      command.add_option("--draft", options.draft,
                         "propose tokens by a cheaper copy of the model, FORMAT[/FORMAT][:LAYERS]: its cache's "
                         "formats, and how many of the "
                         "first layers it runs (default: all); greedy, the text stays the model's own");
  command.add_option("--draft-tokens", options.tokens, "tokens the draft proposes a step")
      ->check(at_least(1))
      ->needs(draft)
      ->capture_default_str();
  command
      .add_option("--draft-tree", options.width,
                  "alternatives it proposes for the first of them, each continued; above 1 a tree goes through one "
                  "attention call with a mask")
      ->check(at_least(1))
      ->needs(draft)
      ->capture_default_str();
  command.add_flag("--compare", options.compare, "write the text without the draft as well: same tokens, both speeds")
      ->needs(draft);
}

std::string WrittenText::rate() const {
  return seconds > 0 && tokens.size() > 1 ? significant(static_cast<double>(tokens.size() - 1) / seconds) + " tokens/s"
                                          : "-";
}

Outcome<std::unique_ptr<DraftedGeneration>> DraftedGeneration::create(const DraftOptions& options, engine::Llama& model,
                                                                      const std::shared_ptr<Device>& device,
                                                                      uint64_t capacity_tokens, uint32_t end_token) {
  const auto spec = engine::parse_draft(options.draft, model.config().layers);
  if (!spec.ok()) {
    return spec.failure();
  }
  const auto k = device->library()->format(spec->k_format);
  if (!k.ok()) {
    return k.failure();
  }
  const auto v = device->library()->format(spec->v_format);
  if (!v.ok()) {
    return v.failure();
  }
  std::unique_ptr<DraftedGeneration> drafted(new DraftedGeneration(model));
  drafted->speculation_ = {options.tokens, options.width, spec->layers, end_token};
  engine::AttentionShape shape = model.config().attention();
  shape.layers = spec->layers != 0 ? spec->layers : shape.layers;
  drafted->name_ = "K " + spec->k_format + ", V " + spec->v_format + ", " + std::to_string(shape.layers) + " of " +
                   std::to_string(model.config().layers) + " layers";
  KVANT_TRY(engine::Speculation::check(drafted->speculation_, model.config()));
  auto draft =
      engine::CacheAttention::create(device, shape, k->id, v->id, capacity_tokens + drafted->extra_tokens(), 1);
  if (!draft.ok()) {
    return draft.failure();
  }
  drafted->draft_ = std::move(*draft);
  return drafted;
}

Outcome<WrittenText> DraftedGeneration::write(engine::CacheAttention& target, const std::vector<uint32_t>& prompt,
                                              uint32_t budget, const std::function<void()>& prompt_done,
                                              const std::function<void(uint32_t)>& on_token) {
  KVANT_TRY(target.truncate(0));
  KVANT_TRY(draft_->truncate(0));
  engine::Speculation speculation(model_, target, *draft_, speculation_);
  KVANT_TRY(speculation.start(prompt));
  prompt_done();
  WrittenText text;
  const Stopwatch watch;
  KVANT_TRY(speculation.write(budget, [&](uint32_t token) {
    text.tokens.push_back(token);
    on_token(token);
  }));
  text.seconds = watch.seconds();
  counts_ = speculation.counts();
  return text;
}

Outcome<WrittenText> DraftedGeneration::write_alone(engine::CacheAttention& target, const std::vector<uint32_t>& prompt,
                                                    uint32_t budget) {
  KVANT_TRY(target.truncate(0));
  engine::Session session(model_, target, true);
  std::vector<float> logits;
  KVANT_TRY(session.feed(prompt, logits));
  WrittenText text;
  const Stopwatch watch;
  while (text.tokens.size() < budget) {
    const uint32_t token = engine::argmax(logits);
    if (token == speculation_.end_token) {
      break;
    }
    text.tokens.push_back(token);
    if (text.tokens.size() < budget) {
      KVANT_TRY(session.feed({&token, 1}, logits));
    }
  }
  text.seconds = watch.seconds();
  return text;
}

void DraftedGeneration::describe(Table& table, const WrittenText& drafted) const {
  const auto share = [](uint64_t part, uint64_t whole) {
    return whole > 0 ? percent(static_cast<double>(part) / static_cast<double>(whole)) : std::string("-");
  };
  std::string shape = std::to_string(speculation_.draft_tokens) + " tokens a step";
  if (speculation_.width > 1) {
    shape += ", " + std::to_string(speculation_.width) + " alternatives for the first";
  }
  table.add({"draft", name_ + "; " + shape});
  table.add({"acceptance", share(counts_.accepted, counts_.proposed) + " (" + std::to_string(counts_.accepted) +
                               " of " + std::to_string(counts_.proposed) + " proposed tokens)"});
  if (speculation_.width > 1) {
    table.add({"tree",
               std::to_string(counts_.nodes) + " drafted tokens verified; another alternative than the first in " +
                   std::to_string(counts_.other_branches) + " of " + std::to_string(counts_.target_steps) + " steps"});
  }
  // The first token came from the prompt's own step.
  const uint64_t after_first = counts_.written > 0 ? counts_.written - 1 : 0;
  const std::string per_step =
      counts_.target_steps > 0
          ? significant(static_cast<double>(after_first) / static_cast<double>(counts_.target_steps))
          : "-";
  table.add({"target steps", std::to_string(counts_.target_steps) + ", " + per_step + " tokens each"});
  table.add({"with draft", drafted.rate() + "; the draft took " +
                               (drafted.seconds > 0 ? percent(counts_.draft_seconds / drafted.seconds) : "-") +
                               " of the time"});
}

Outcome<void> check_equal(const std::vector<uint32_t>& drafted, const std::vector<uint32_t>& alone) {
  const auto [ours, theirs] = std::mismatch(drafted.begin(), drafted.end(), alone.begin(), alone.end());
  if (ours == drafted.end() && theirs == alone.end()) {
    return {};
  }
  return Failure{"the text with the draft parts from the model's own at token " +
                 std::to_string(ours - drafted.begin() + 1) + " of " + std::to_string(alone.size())};
}

}  // namespace kvant::tools
