// Sizes are such that some hundred turns fill the pool, and that a turn takes milliseconds on a software device.
#include "stats_demo.hpp"

#include <kvant/kvant_ext_manager.h>

#include <algorithm>
#include <string>

namespace kvant::tools {

namespace {

constexpr uint32_t kLayers = 6, kWideLayers = 1, kHeads = 2, kHeadDim = 64;
constexpr uint64_t kCapacityTokens = 6144;
constexpr uint32_t kSystemPrompts = 3, kConversations = 20, kTurnsOfConversation = 9, kLiveSequences = 4;
constexpr uint32_t kTurnsADocument = 12, kDocumentTokens = 320;
constexpr uint64_t kLongestPrompt = 640;
constexpr int32_t kVocabulary = 32000;
constexpr uint64_t kErrorSampleTokens = 64;

}  // namespace

Outcome<std::unique_ptr<StatsDemo>> StatsDemo::open(std::shared_ptr<Device> device, uint32_t seed) {
  std::unique_ptr<StatsDemo> demo(new StatsDemo(std::move(device), seed));
  KVANT_TRY(demo->create_cache());
  demo->system_prompts_.resize(kSystemPrompts);
  for (std::vector<int32_t>& prompt : demo->system_prompts_) {
    demo->append_random(prompt, 96 + 16 * demo->below(5));
  }
  demo->conversations_.resize(kConversations);
  for (Conversation& conversation : demo->conversations_) {
    demo->begin(conversation);
  }
  // One prompt's rows and as many again, so that steps begin at different places of it.
  demo->floats_.resize(2 * (kLongestPrompt + 64) * kHeads * kHeadDim);
  std::normal_distribution<float> normal;
  std::generate(demo->floats_.begin(), demo->floats_.end(), [&] { return normal(demo->random_); });
  return demo;
}

StatsDemo::~StatsDemo() {
  if (cache_ != nullptr) {
    device_->api().cache_destroy(cache_);
  }
}

Outcome<void> StatsDemo::create_cache() {
  const Library& library = *device_->library();
  std::vector<kvant_layer_args> layers(kLayers);
  for (uint32_t i = 0; i < kLayers; ++i) {
    // The first layer wider than the rest, as where its measured error is the largest.
    const auto k = library.format(i < kWideLayers ? "f16" : "q8_0");
    const auto v = library.format(i < kWideLayers ? "f16" : "q4_0");
    if (!k.ok() || !v.ok()) {
      return k.ok() ? v.failure() : k.failure();
    }
    layers[i].struct_size = sizeof(kvant_layer_args);
    layers[i].kv_heads = kHeads;
    layers[i].head_dim_k = kHeadDim;
    layers[i].format_k = k->id;
    layers[i].format_v = v->id;
  }
  kvant_policy_args policy{};
  policy.struct_size = sizeof(policy);
  policy.kind = KVANT_POLICY_ADAPTIVE;
  kvant_cache_args args{};
  args.struct_size = sizeof(args);
  args.layer_count = kLayers;
  args.layers = layers.data();
  args.capacity_tokens = kCapacityTokens;
  args.flags = KVANT_CACHE_PREFIXES;
  args.model_id = "kvant top --demo";
  args.policy = &policy;
  KVANT_TRY(device_->check(device_->api().cache_create(device_->handle(), &args, &cache_)));
  const auto* const manager =
      static_cast<const kvant_ext_manager*>(library.api().get_extension(library.context(), KVANT_EXT_MANAGER));
  return manager == nullptr ? Outcome<void>()
                            : device_->check(manager->stats_sample_errors(cache_, kErrorSampleTokens));
}

void StatsDemo::append_random(std::vector<int32_t>& tokens, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(below(kVocabulary)));
  }
}

void StatsDemo::begin(Conversation& conversation) {
  conversation.tokens = system_prompts_[below(kSystemPrompts)];
  conversation.turns = 0;
}

Outcome<void> StatsDemo::step(kvant_sequence sequence, const std::vector<int32_t>& tokens, uint64_t begin) {
  const uint64_t count = tokens.size() - begin;
  kvant_step_entry entry{};
  entry.struct_size = sizeof(entry);
  entry.sequence = sequence;
  entry.append = static_cast<uint32_t>(count);
  entry.queries = 1;
  entry.tokens = tokens.data() + begin;
  kvant_step_args args{};
  args.struct_size = sizeof(args);
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  KVANT_TRY(device_->check(device_->api().step_plan(cache_, &args, &step)));
  std::vector<float> output(kHeads * kHeadDim);
  const uint64_t rows = count * kHeads * kHeadDim;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const auto from = [&] { return floats_.data() + below(static_cast<uint32_t>(floats_.size() - rows)); };
    const kvant_tensor k = float_tensor(from(), rows), v = float_tensor(from(), rows);
    const kvant_tensor q = float_tensor(from(), output.size()), out = float_tensor(output.data(), output.size());
    kvant_run_args run{};
    run.struct_size = sizeof(run);
    run.k = &k;
    run.v = &v;
    run.q = &q;
    run.out = &out;
    run.q_heads = kHeads;
    if (auto ran = device_->check(device_->api().step_run(step, layer, &run)); !ran.ok()) {
      device_->api().step_abort(step);
      return ran;
    }
  }
  return device_->check(device_->api().step_commit(step));
}

Outcome<void> StatsDemo::close_oldest() {
  const kvant_sequence oldest = live_.front();
  live_.pop_front();
  return device_->check(device_->api().sequence_destroy(cache_, oldest));
}

Outcome<void> StatsDemo::turn() {
  // A document that is asked about once, or a conversation: of two draws the lower one, so that some are busier than
  // others.
  Conversation document;
  const bool once = below(kTurnsADocument) == 0;
  Conversation& conversation = once ? document : conversations_[std::min(below(kConversations), below(kConversations))];
  const uint32_t question = 16 + below(48), answer = 4 + below(8);
  if (conversation.turns >= kTurnsOfConversation || conversation.tokens.size() + question + answer > kLongestPrompt) {
    begin(conversation);
  }
  std::vector<int32_t>& tokens = conversation.tokens;
  append_random(tokens, once ? kDocumentTokens : question);
  while (live_.size() >= kLiveSequences) {
    KVANT_TRY(close_oldest());
  }
  kvant_sequence_args args{};
  args.struct_size = sizeof(args);
  args.tokens = tokens.data();
  args.token_count = tokens.size();
  args.leave_tokens = 1;
  kvant_sequence sequence = 0;
  uint64_t reused = 0;
  KVANT_TRY(device_->check(device_->api().sequence_open(cache_, &args, &sequence, &reused)));
  live_.push_back(sequence);
  KVANT_TRY(step(sequence, tokens, reused));
  for (uint32_t i = 0; i < answer; ++i) {
    append_random(tokens, 1);
    KVANT_TRY(step(sequence, tokens, tokens.size() - 1));
  }
  ++conversation.turns;
  ++turns_;
  return {};
}

}  // namespace kvant::tools
