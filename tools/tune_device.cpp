#include "tune_device.hpp"

#include <algorithm>

#include "backend.hpp"
#include "tuned_configs.hpp"

namespace kvant::tools {

struct TuneDevice::State {
  struct Candidate {
    AttendConfig config;
    std::uint32_t workgroups = 1;
  };

  DeviceSnapshot snapshot;
  DevicePlan plan;
  AttendShape shape;
  std::vector<Candidate> candidates;
  TunedConfigs kept;
  std::vector<TuningKey> left;
};

TuneDevice::TuneDevice() : state_(std::make_unique<State>()) {}
TuneDevice::~TuneDevice() = default;

std::unique_ptr<TuneDevice> TuneDevice::open(int index, const std::string& capabilities, const std::string& quirks, std::string& reason) {
  const auto instance = Instance::create({});
  if (!instance.ok()) {
    reason = instance.status().message();
    return nullptr;
  }
  auto number = static_cast<std::uint32_t>(index);
  if (index < 0) {
    const auto best = instance.value()->best_device();
    if (!best.ok()) {
      reason = best.status().message();
      return nullptr;
    }
    number = best.value();
  }
  DeviceOptions options;
  options.capability_override = capabilities;
  options.quirks = quirks;
  const auto context = instance.value()->open(number, options);
  if (!context.ok()) {
    reason = context.status().message();
    return nullptr;
  }
  std::unique_ptr<TuneDevice> device(new TuneDevice);
  device->state_->snapshot = context.value()->snapshot();
  device->state_->plan = context.value()->plan();
  return device;
}

size_t TuneDevice::list(const TuneCall& call) {
  State& state = *state_;
  AttendShape& shape = state.shape;
  shape = {};
  shape.format_k = call.format_k;
  shape.format_v = call.format_v;
  shape.head_dim_k = shape.head_dim_v = call.head_dim;
  shape.group = call.group;
  shape.kv_heads = call.kv_heads;
  shape.max_queries = shape.total_queries = call.queries;
  shape.max_kv_len = shape.total_kv_len = call.tokens;
  shape.page_tokens = call.page_tokens;
  state.candidates.clear();
  const auto add = [&](AttendConfig config) {
    const std::uint32_t workgroups = state.plan.parallel_workgroups;
    cut_items(config, shape, workgroups);
    const bool known = std::any_of(state.candidates.begin(), state.candidates.end(), [&](const State::Candidate& c) { return c.config == config; });
    if (!known) state.candidates.push_back({config, workgroups});
  };
  add(choose_attend_config(shape, state.plan));
  for (const AttendConfig& config : all_attend_configs(shape, state.plan)) add(config);
  return state.candidates.size();
}

std::vector<size_t> TuneDevice::vary(size_t candidate) {
  State& state = *state_;
  std::vector<size_t> added;
  const State::Candidate base = state.candidates[candidate];
  for (const std::uint32_t workgroups : {base.workgroups / 4, base.workgroups / 2, base.workgroups * 2, base.workgroups * 4}) {
    State::Candidate other{base.config, std::max(workgroups, 1U)};
    cut_items(other.config, state.shape, other.workgroups);
    const bool known = std::any_of(state.candidates.begin(), state.candidates.end(), [&](const State::Candidate& c) { return c.config == other.config; });
    if (known) continue;
    added.push_back(state.candidates.size());
    state.candidates.push_back(other);
  }
  return added;
}

std::string TuneDevice::name(size_t candidate) const {
  const AttendConfig& config = state_->candidates[candidate].config;
  std::string text(kernel_info(config.kernel).name);
  text += " " + std::to_string(config.local_size) + " x " + std::to_string(config.heads_per_tile) + " x " + std::to_string(config.queries_per_item);
  if (config.subgroup_size != 0) text += ", subgroups of " + std::to_string(config.subgroup_size);
  text += ", constants";
  for (const std::uint32_t value : config.tune) text += " " + std::to_string(value);
  return text + ", items of " + std::to_string(config.kv_split);
}

std::string TuneDevice::write_alone(size_t candidate, const std::string& path) const {
  TunedConfigs alone;
  const State::Candidate& one = state_->candidates[candidate];
  alone.set(tuning_key(state_->shape), {one.config, one.workgroups, 0, 0});
  return save_tuned(path, alone, state_->snapshot, shader_set_hash()).message();
}

void TuneDevice::keep(size_t candidate, double microseconds, double default_microseconds) {
  const State::Candidate& one = state_->candidates[candidate];
  state_->kept.set(tuning_key(state_->shape), {one.config, one.workgroups, microseconds, default_microseconds});
}

void TuneDevice::leave() {
  state_->kept.erase(tuning_key(state_->shape));
  state_->left.push_back(tuning_key(state_->shape));
}

std::string TuneDevice::shader_set() { return std::string(shader_set_hash()); }

std::string TuneDevice::save(const std::string& path) const {
  TunedConfigs all = load_tuned(path, state_->snapshot, shader_set_hash()).configs;
  for (const TuningKey& key : state_->left) all.erase(key);
  for (const auto& [key, tuned] : state_->kept.all()) all.set(key, tuned);
  return save_tuned(path, all, state_->snapshot, shader_set_hash()).message();
}

std::string TuneDevice::path_in(const std::string& folder) const { return tuned_path(folder, state_->snapshot); }

}  // namespace kvant::tools
