#include "struct_cases.hpp"

namespace abi_test {
namespace {

constexpr std::uint32_t kDim = 32;

std::uint32_t take_bytes(void*, const void*, std::uint64_t) { return 1; }
std::uint32_t put_nothing(void*, const std::uint8_t*, const void*, std::uint64_t) { return 0; }
std::uint64_t get_nothing(void*, const std::uint8_t*, void*, std::uint64_t) { return 0; }

template <typename T>
std::string name_of() {
  const std::string function = __PRETTY_FUNCTION__;  // "... [with T = kvant_layer_args; ..."
  const std::size_t begin = function.find("kvant_");
  return function.substr(begin, function.find_first_of(";]", begin) - begin);
}

}  // namespace

template <typename T>
void StructCases::add(const T& good, std::function<Outcome(T*)> call, bool output) {
  StructCase made;
  made.type = name_of<T>();
  made.good.resize(sizeof(T));
  std::memcpy(made.good.data(), &good, sizeof(T));
  made.output = output;
  made.call = [call = std::move(call)](void* bytes) { return call(static_cast<T*>(bytes)); };
  cases_.push_back(std::move(made));
}

StructCases::StructCases() {
  manager_ = static_cast<const kvant_ext_manager*>(api().get_extension(session_.context, KVANT_EXT_MANAGER));
  REQUIRE(manager_ != nullptr);
  add_without_device();
  if (session_.device == nullptr) return;
  layer_.kv_heads = 1;
  layer_.head_dim_k = layer_.head_dim_v = kDim;
  data_.k = random_floats(2 * kDim, 1);
  data_.v = random_floats(2 * kDim, 2);
  data_.q = random_floats(kDim, 3);
  data_.out.assign(kDim, 0.0F);
  data_.q_heads = 1;
  add_caches();
  add_steps();
  add_paged();
  add_manager();
  add_tiers();
  add_borrowed();
}

StructCases::~StructCases() {
  for (kvant_step* step : steps_) api().step_abort(step);
  for (kvant_cache* cache : caches_) api().cache_destroy(cache);
  if (borrowed_ != nullptr) {
    CHECK(borrowed_->take_blame().empty());
    borrowed_.reset();
    for (VulkanEngine* engine : {&often_, &engine_})
      for (const std::string& message : engine->validation_messages()) FAIL_CHECK(message);
  }
}

kvant_cache* StructCases::prefix_cache() const {
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer_;
  args.capacity_tokens = 256;
  args.flags = KVANT_CACHE_PREFIXES | KVANT_CACHE_MASS;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session_.device, &args, &cache));
  return cache;
}

void StructCases::add_without_device() {
  auto context_args = make<kvant_context_args>();
  context_args.log_level = KVANT_LOG_ERROR;
  add<kvant_context_args>(context_args, [](kvant_context_args* args) {
    kvant_context* context = nullptr;
    const Outcome outcome = take(api().context_create(args, &context));
    api().context_destroy(context);
    return outcome;
  });
  add_output<kvant_build_info>([](kvant_build_info* info) { return take(api().get_build_info(info)); });
  add_output<kvant_format_info>([this](kvant_format_info* info) { return take(api().format_info(session_.context, 1, info)); });
  auto config = make<kvant_config>();
  require_ok(manager_->config_default(session_.context, "llm", &config));
  config.struct_size = sizeof config;
  add<kvant_config>(config, [this](kvant_config* given) {
    const char* json = nullptr;
    Outcome outcome = take(manager_->config_write(session_.context, given, &json));
    if (json != nullptr) outcome.message = json;  // what was understood
    return outcome;
  });
  add_output<kvant_config>([this](kvant_config* out) { return take(manager_->config_default(session_.context, "llm", out)); });
}

void StructCases::add_caches() {
  add_output<kvant_device_info>([this](kvant_device_info* info) { return take(api().device_info(session_.context, 0, info)); });
  add<kvant_device_args>(make<kvant_device_args>(), [this](kvant_device_args* args) {
    kvant_device* device = nullptr;
    const Outcome outcome = take(api().device_open(session_.context, args, &device));
    api().device_close(device);
    return outcome;
  });
  const auto create = [this](const kvant_cache_args* args) {
    kvant_cache* cache = nullptr;
    const Outcome outcome = take(api().cache_create(session_.device, args, &cache));
    api().cache_destroy(cache);
    return outcome;
  };
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer_;
  args.capacity_tokens = 64;
  args.page_tokens = 32;
  args.flags = KVANT_CACHE_PREFIXES;
  args.model_id = args.rope = "a model";
  args.policy = &policy_;
  args.slab_bytes = 1u << 20;
  args.protect_sides = KVANT_PROTECT_K | KVANT_PROTECT_V;
  args.protect_first = 4;
  args.protect_newest = 32;
  args.protect_tokens = 64;
  add<kvant_cache_args>(args, create);
  auto layer = layer_;
  layer.format_k = layer.format_v = 1;
  layer.window = 32;
  layer.window_sinks = 4;
  layer.transform_k = layer.transform_v = KVANT_TRANSFORM_ROTATE | KVANT_TRANSFORM_CENTRE;
  add<kvant_layer_args>(layer, [args, create](kvant_layer_args* given) mutable {
    args.layers = given;
    return create(&args);
  });
  auto policy = make<kvant_policy_args>();
  policy.kind = KVANT_POLICY_WINDOW;
  policy.sink_pages = 2;
  policy.ttl_ms = 1000;
  add<kvant_policy_args>(policy, [args, create](kvant_policy_args* given) mutable {
    args.policy = given;
    return create(&args);
  });
  kvant_cache* cache = caches_.emplace_back(prefix_cache());
  add_output<kvant_cache_stats>([cache](kvant_cache_stats* stats) { return take(api().cache_stats(cache, stats)); });
  add_output<kvant_prefix_stats>([cache](kvant_prefix_stats* stats) { return take(api().prefix_stats(cache, stats)); });
  auto open = make<kvant_sequence_args>();
  open.tokens = tokens_.data();
  open.token_count = tokens_.size();
  open.salt = "salt";
  open.salt_size = 4;
  open.leave_tokens = 1;
  open.ttl_ms = 5000;
  open.priority = 7;
  open.flags = KVANT_SEQUENCE_NEAR_TIERS;
  add<kvant_sequence_args>(open, [cache](kvant_sequence_args* given) {
    kvant_sequence sequence = 0;
    const Outcome outcome = take(api().sequence_open(cache, given, &sequence, nullptr));
    if (outcome.code == 0) require_ok(api().sequence_destroy(cache, sequence));
    return outcome;
  });
}

void StructCases::add_steps() {
  kvant_cache* planned = caches_.emplace_back(prefix_cache());
  require_ok(api().sequence_create(planned, &entry_.sequence));
  entry_.append = 2;
  entry_.queries = 1;
  entry_.tokens = tokens_.data();
  const auto plan = [planned](const kvant_step_args* args) {
    kvant_step* step = nullptr;
    const Outcome outcome = take(api().step_plan(planned, args, &step));
    api().step_abort(step);
    return outcome;
  };
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry_;
  args.entry_stride = sizeof entry_;
  add<kvant_step_args>(args, plan);
  add<kvant_step_entry>(entry_, [plan](kvant_step_entry* entry) {
    auto given = make<kvant_step_args>();
    given.entry_count = 1;
    given.entries = entry;
    return plan(&given);
  });

  kvant_cache* ran = caches_.emplace_back(prefix_cache());
  auto entry = entry_;
  require_ok(api().sequence_create(ran, &entry.sequence));
  args.entries = &entry;
  kvant_step*& step = steps_.emplace_back();
  require_ok(api().step_plan(ran, &args, &step));
  run_ = run_args_of(data_, tensors_);
  add<kvant_run_args>(run_, [step](kvant_run_args* given) { return take(api().step_run(step, 0, given)); });
  auto tensor = tensors_[0];
  tensor.token_stride = tensor.head_stride = kDim;
  add<kvant_tensor>(tensor, [this, step](kvant_tensor* given) {
    kvant_run_args with = run_;
    with.k = given;
    return take(api().step_run(step, 0, &with));
  });

  auto profiling = make<kvant_device_args>();
  profiling.device_index = KVANT_DEVICE_BEST;
  profiling.enable_profiling = 1;
  add_output<kvant_profile_entry>([this, profiling](kvant_profile_entry* out) {
    // A device of its own each time: labels live as long as it does, and there is one after a copy was measured.
    kvant_device* device = nullptr;
    require_ok(api().device_open(session_.context, &profiling, &device));
    double rate = 0.0;
    std::uint32_t count = 0;
    require_ok(api().device_measure_copy(device, 4096, &rate));
    require_ok(api().device_profile(device, &count));
    REQUIRE(count != 0);
    const Outcome outcome = take(api().device_profile_entry(device, 0, out));
    api().device_close(device);
    return outcome;
  });
}

void StructCases::add_paged() {
  kvant_cache* cache = caches_.emplace_back(make_cache(session_, {.kv_heads = 1, .head_dim_k = kDim, .head_dim_v = kDim, .external = true}));
  paged_.token_count = 2;
  paged_.slot_mapping = slots_.data();
  add<kvant_paged_args>(paged_, [cache](kvant_paged_args* args) {
    kvant_step* step = nullptr;
    const Outcome outcome = take(api().paged_plan(cache, args, &step));
    api().step_abort(step);
    return outcome;
  });
}

void StructCases::add_manager() {
  kvant_cache* cache = caches_.emplace_back(prefix_cache());
  kvant_sequence sequence = 0;
  require_ok(api().sequence_create(cache, &sequence));
  auto fill = data_;
  fill.q.clear(), fill.out.clear();
  fill.q_heads = 0;
  run_step(cache, 1, sequence, 2, 0, fill);
  static const auto saves = [] {
    auto stream = make<kvant_state_stream>();
    stream.write = take_bytes;
    return stream;
  }();
  auto all = make<kvant_state_args>();
  all.flags = KVANT_STATE_ALL_SEQUENCES;
  add<kvant_state_args>(all, [this, cache](kvant_state_args* args) { return take(manager_->state_save(cache, args, &saves)); });
  add<kvant_state_stream>(saves, [this, cache, all](kvant_state_stream* stream) { return take(manager_->state_save(cache, &all, stream)); });
  add_output<kvant_event>([this, cache](kvant_event* event) {
    std::uint32_t count = 0;
    return take(manager_->events_poll(cache, 0, 1, event, &count, nullptr));
  });
  auto options = make<kvant_store_options>();
  options.policy = &policy_;
  options.promote_uses = 3;
  add<kvant_store_options>(options, [this](kvant_store_options* given) {
    kvant_cache* fresh = prefix_cache();
    const Outcome outcome = take(manager_->store_open(fresh, given));
    api().cache_destroy(fresh);
    return outcome;
  });
  kvant_cache* store = caches_.emplace_back(prefix_cache());
  const auto defaults = make<kvant_store_options>();
  require_ok(manager_->store_open(store, &defaults));
  auto find = make<kvant_store_args>();
  find.tokens = tokens_.data();
  find.token_count = 8;
  find.batch = 2;
  find.salt = "salt";
  find.salt_size = 4;
  add<kvant_store_args>(find, [this, store](kvant_store_args* args) {
    std::uint32_t layers[2] = {};
    return take(manager_->store_find(store, args, layers));
  });
  add_output<kvant_store_stats>([this, store](kvant_store_stats* stats) { return take(manager_->store_stats(store, stats)); });

  formats_ = {session_.format("f16"), session_.format("q8_0")};
  auto memory = make<kvant_memory_args>();
  memory.limit_bytes = 1u << 20;
  memory.formats = formats_.data();
  memory.format_count = 2;
  memory.flags = KVANT_MEMORY_PRUNE;
  memory.sinks = memory.recent = 8;
  add<kvant_memory_args>(memory, [this, cache](kvant_memory_args* args) {
    const char* text = nullptr;
    Outcome outcome = take(manager_->memory_plan(cache, args, &text));
    if (text != nullptr) outcome.message = text;
    return outcome;
  });
  auto prune = make<kvant_prune_args>();
  prune.keep_tokens = 100;
  prune.sinks = prune.recent = 20;
  add<kvant_prune_args>(prune, [this, cache, sequence](kvant_prune_args* args) {
    return take(manager_->sequence_prune(cache, sequence, args, nullptr, &number_));
  });
  auto cool = make<kvant_cool_args>();
  cool.target_bytes = std::uint64_t{1} << 40;
  cool.formats = formats_.data();
  cool.format_count = 2;
  cool.sinks = cool.recent = 8;
  add<kvant_cool_args>(cool, [this, cache](kvant_cool_args* args) { return take(manager_->cache_cool(cache, args, &number_)); });
  auto rotation = make<kvant_rotation>();
  rotation.frequencies = frequencies_.data();
  rotation.pair_count = 4;
  rotation.flags = KVANT_ROTATION_HALVES;
  add<kvant_rotation>(rotation, [this, cache, sequence](kvant_rotation* given) {
    return take(manager_->sequence_shift(cache, sequence, 0, 2, given, 1));
  });
}

void StructCases::add_tiers() {
  kvant_cache* cache = caches_.emplace_back(prefix_cache());
  functions_.name = "nothing";
  functions_.put = put_nothing;
  functions_.get = get_nothing;
  tier_.kind = KVANT_TIER_CUSTOM;
  tier_.functions = &functions_;
  auto tiers = make<kvant_tiers_args>();
  tiers.tier_count = 1;
  tiers.tier_stride = sizeof tier_;
  tiers.tiers = &tier_;
  tiers.format_k = tiers.format_v = "q8_0";
  tiers.store_after_uses = 2;
  tiers.flags = KVANT_TIERS_ALWAYS_LOAD;
  tiers.min_tokens = 16;
  tiers.queue_bytes = 1u << 22;
  const auto set = [this, cache](const kvant_tiers_args* args) { return take(manager_->tiers_set(cache, args)); };
  add<kvant_tiers_args>(tiers, set);
  tiers.tier_stride = 0;
  add<kvant_tier_args>(tier_, [tiers, set](kvant_tier_args* tier) mutable {
    tiers.tiers = tier;
    return set(&tiers);
  });
  add<kvant_tier_functions>(functions_, [this, cache, tiers, set](kvant_tier_functions* functions) mutable {
    kvant_tier_args tier = tier_;
    tier.functions = functions;
    tiers.tiers = &tier;
    const Outcome outcome = set(&tiers);
    const auto none = make<kvant_tiers_args>();
    require_ok(manager_->tiers_set(cache, &none));
    return outcome;
  });
}

void StructCases::add_borrowed() {
  for (VulkanEngine* engine : {&often_, &engine_}) {
    const std::string missing = engine->start(1u << 16);
    REQUIRE_MESSAGE(missing.empty(), missing);
  }
  borrowed_ = std::make_unique<Session>(Session::Options{.open_device = false});
  const auto* vulkan = static_cast<const kvant_ext_vulkan*>(api().get_extension(borrowed_->context, KVANT_EXT_VULKAN));
  REQUIRE(vulkan != nullptr);
  const kvant_vulkan_device_args import = engine_.import_args();
  add<kvant_vulkan_device_args>(often_.import_args(), [this, vulkan](kvant_vulkan_device_args* args) {
    kvant_device* device = nullptr;
    const Outcome outcome = take(vulkan->device_import(borrowed_->context, args, &device));
    api().device_close(device);
    return outcome;
  });
  require_ok(vulkan->device_import(borrowed_->context, &import, &borrowed_->device));
  kvant_cache* cache = caches_.emplace_back(make_cache(*borrowed_, {.kv_heads = 1, .head_dim_k = kDim, .head_dim_v = kDim}));
  auto entry = make<kvant_step_entry>();
  require_ok(api().sequence_create(cache, &entry.sequence));
  entry.append = 2;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step*& step = steps_.emplace_back();
  require_ok(api().step_plan(cache, &args, &step));
  auto record = make<kvant_vulkan_record>();
  record.type = KVANT_NEXT_VULKAN_RECORD;
  record.command_buffer = engine_.begin();  // each call takes a new one
  auto k = make<kvant_tensor>();
  k.buffer = engine_.buffer();
  k.size = 2 * kDim * sizeof(float);
  auto v = k;
  v.offset = 4096;
  add<kvant_vulkan_record>(record, [this, step, k, v, unused = record.command_buffer](kvant_vulkan_record* given) {
    auto run = make<kvant_run_args>();
    run.next = reinterpret_cast<const kvant_next*>(given);
    run.k = &k, run.v = &v;
    const VkCommandBuffer commands = engine_.begin();
    constexpr std::size_t kPlace = offsetof(kvant_vulkan_record, command_buffer);
    auto* bytes = reinterpret_cast<unsigned char*>(given);
    if (std::memcmp(bytes + kPlace, &unused, sizeof unused) == 0) std::memcpy(bytes + kPlace, &commands, sizeof commands);
    const Outcome outcome = take(api().step_run(step, 0, &run));
    if (outcome.code == 0) {
      CHECK(engine_.submit_and_wait(commands));
      // A submit of kvant's own, which signals beyond the recorded run's value: the layer does not know values that are skipped.
      float x[kDim] = {1.0F}, y[kDim];
      require_ok(api().quantize(borrowed_->device, 0, kDim, 1, x, sizeof x, y, sizeof y));
    }
    return outcome;
  });
  cases_.back().least = sizeof(kvant_next);  // of a chained struct
}

}  // namespace abi_test
