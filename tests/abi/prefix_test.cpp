// The prefix cache through the ABI: a second prompt finds the first one's pages, salts keep apart, refusals change nothing.
#include "cache_state.hpp"

using namespace abi_test;

namespace {

constexpr std::uint32_t kHeads = 2, kDim = 64;

kvant_cache* prefix_cache(const Session& session, std::uint64_t capacity = 256) {
  auto layer = make<kvant_layer_args>();
  layer.kv_heads = kHeads;
  layer.head_dim_k = kDim;
  layer.format_k = session.format("q8_0");
  layer.format_v = session.format("q4_0");
  auto policy = make<kvant_policy_args>();
  policy.kind = KVANT_POLICY_ADAPTIVE;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = capacity;
  args.flags = KVANT_CACHE_PREFIXES;
  args.model_id = "model";
  args.rope = "theta 10000";
  args.policy = &policy;
  kvant_cache* cache = nullptr;
  require_ok(api().cache_create(session.device, &args, &cache));
  return cache;
}

kvant_sequence_args sequence_args(const std::vector<std::int32_t>& tokens, const std::string& salt = {}) {
  auto args = make<kvant_sequence_args>();
  args.tokens = tokens.data();
  args.token_count = tokens.size();
  args.salt = salt.data();
  args.salt_size = salt.size();
  return args;
}

std::vector<std::int32_t> ids(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(i * 7);
  return tokens;
}

void append(kvant_cache* cache, kvant_sequence sequence, std::uint32_t count, const std::int32_t* tokens) {
  auto entry = make<kvant_step_entry>();
  entry.sequence = sequence;
  entry.append = count;
  entry.tokens = tokens;
  auto args = make<kvant_step_args>();
  args.entry_count = 1;
  args.entries = &entry;
  kvant_step* step = nullptr;
  require_ok(api().step_plan(cache, &args, &step));
  std::vector<float> k = random_floats(std::size_t{count} * kHeads * kDim, 1), v = random_floats(k.size(), 2);
  kvant_tensor k_tensor = tensor_of(k), v_tensor = tensor_of(v);
  auto run = make<kvant_run_args>();
  run.k = &k_tensor;
  run.v = &v_tensor;
  require_ok(api().step_run(step, 0, &run));
  require_ok(api().step_commit(step));
}

kvant_prefix_stats prefix_stats(kvant_cache* cache) {
  auto stats = make<kvant_prefix_stats>();
  require_ok(api().prefix_stats(cache, &stats));
  return stats;
}

}  // namespace

TEST_CASE("prefix: a second prompt finds the first one's pages") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = prefix_cache(session);
  const std::vector<std::int32_t> prompt = ids(50);
  kvant_sequence first = 0, second = 0, salted = 0;
  std::uint64_t reused = 99;
  auto args = sequence_args(prompt);
  require_ok(api().sequence_open(cache, &args, &first, &reused));
  CHECK(reused == 0);
  append(cache, first, 40, nullptr);  // the ids are those of sequence_open
  append(cache, first, 10, prompt.data() + 40);
  require_ok(api().sequence_open(cache, &args, &second, &reused));
  CHECK(reused == 48);
  std::uint64_t length = 0;
  require_ok(api().sequence_length(cache, second, &length));
  CHECK(length == 48);
  const CacheState state = state_of(cache, {first, second}, kHeads, kDim);
  CHECK(std::equal(state.keys[1].begin(), state.keys[1].end(), state.keys[0].begin()));
  CHECK(stats_of(cache).used_pages == 4);

  const std::string salt("tenant\0b", 8);
  auto other = sequence_args(prompt, salt);
  require_ok(api().sequence_open(cache, &other, &salted, nullptr));
  require_ok(api().sequence_length(cache, salted, &length));
  CHECK(length == 0);
  args.leave_tokens = 1;
  std::uint64_t found = 0;
  require_ok(api().prefix_find(cache, &args, &found));
  CHECK(found == 48);
  args.leave_tokens = 5;
  require_ok(api().prefix_find(cache, &args, &found));
  CHECK(found == 45);
  const kvant_prefix_stats stats = prefix_stats(cache);
  CHECK(stats.lookups == 3);
  CHECK(stats.lookup_tokens == 150);
  CHECK(stats.hits == 1);
  CHECK(stats.hit_tokens == 48);
  CHECK(stats.published_pages == 3);
  CHECK(stats.pages == 3);
  CHECK(stats.unshared_pages == 0);

  for (const kvant_sequence sequence : {first, second, salted}) require_ok(api().sequence_destroy(cache, sequence));
  CHECK(prefix_stats(cache).unshared_pages == 3);
  std::uint64_t pages = 0;
  require_ok(api().prefix_clear(cache, &pages));
  CHECK(pages == 3);
  CHECK(stats_of(cache).used_pages == 0);
  api().cache_destroy(cache);
}

TEST_CASE("prefix: full pools evict, policy none does not") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = prefix_cache(session, 64);
  const std::vector<std::int32_t> prompt = ids(64);
  auto args = sequence_args(prompt);
  kvant_sequence sequence = 0;
  require_ok(api().sequence_open(cache, &args, &sequence, nullptr));
  append(cache, sequence, 64, nullptr);
  require_ok(api().sequence_destroy(cache, sequence));
  auto policy = make<kvant_policy_args>();
  policy.kind = KVANT_POLICY_NONE;
  require_ok(api().prefix_policy(cache, &policy));
  auto entry = make<kvant_step_entry>();
  require_ok(api().sequence_create(cache, &sequence));
  entry.sequence = sequence;
  entry.append = 20;
  auto step_args = make<kvant_step_args>();
  step_args.entry_count = 1;
  step_args.entries = &entry;
  kvant_step* step = nullptr;
  check_error(api().step_plan(cache, &step_args, &step), KVANT_ERROR_RESOURCE_EXHAUSTED, "step_plan", "2 pages");
  policy.kind = KVANT_POLICY_LRU;
  require_ok(api().prefix_policy(cache, &policy));
  require_ok(api().step_plan(cache, &step_args, &step));
  api().step_abort(step);
  CHECK(prefix_stats(cache).evicted_capacity == 2);
  api().cache_destroy(cache);
}

TEST_CASE("prefix: refusals") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  kvant_cache* cache = prefix_cache(session);
  kvant_cache* plain = make_cache(session, {});
  const std::vector<std::int32_t> prompt = ids(20);
  kvant_sequence sequence = 0;
  std::uint64_t number = 0;
  const auto open = [&](const kvant_sequence_args& args, std::uint32_t code, const std::string& part) {
    check_error(api().sequence_open(cache, &args, &sequence, &number), code, "sequence_open", part);
    CHECK(sequence == 0);
  };
  const auto changed = [&](auto change, const std::string& part) {
    auto args = sequence_args(prompt);
    change(args);
    open(args, KVANT_ERROR_INVALID_ARGUMENT, part);
  };
  changed([](auto& a) { a.tokens = nullptr; }, "args.tokens is NULL");
  changed([](auto& a) { a.token_count = 1ull << 31; }, "token_count (2147483648)");
  changed([](auto& a) { a.salt = nullptr, a.salt_size = 1; }, "args.salt is NULL");
  changed([](auto& a) { a.salt_size = 4097; }, "salt_size (4097)");
  changed([](auto& a) { a.priority = 101; }, "priority (101)");
  changed([](auto& a) { a.flags = 2; }, "flags (0x2)");
  changed([](auto& a) { a.struct_size = 8; }, "struct_size (8)");
  check_error(api().sequence_open(cache, nullptr, &sequence, &number), KVANT_ERROR_INVALID_ARGUMENT, "sequence_open", "args is NULL");
  const auto good = sequence_args(prompt);
  check_error(api().sequence_open(cache, &good, nullptr, &number), KVANT_ERROR_INVALID_ARGUMENT, "sequence_open", "out_sequence is NULL");
  check_error(api().prefix_find(cache, &good, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "prefix_find", "out_tokens is NULL");
  check_error(api().prefix_find(cache, nullptr, &number), KVANT_ERROR_INVALID_ARGUMENT, "prefix_find", "args is NULL");
  check_error(api().prefix_clear(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "prefix_clear", "out_pages is NULL");
  check_error(api().prefix_stats(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "prefix_stats", "stats is NULL");
  check_error(api().prefix_policy(cache, nullptr), KVANT_ERROR_INVALID_ARGUMENT, "prefix_policy", "policy is NULL");
  auto policy = make<kvant_policy_args>();
  policy.kind = 4;
  check_error(api().prefix_policy(cache, &policy), KVANT_ERROR_INVALID_ARGUMENT, "prefix_policy", "kind (4)");
  policy.kind = KVANT_POLICY_LRU;
  policy.sink_pages = 2;
  check_error(api().prefix_policy(cache, &policy), KVANT_ERROR_INVALID_ARGUMENT, "prefix_policy", "sink_pages (2)");
  // A cache without a prefix cache: sequence_open is sequence_create, the others say what is missing.
  policy.sink_pages = 0;
  check_error(api().prefix_policy(plain, &policy), KVANT_ERROR_FAILED_PRECONDITION, "prefix_policy", "KVANT_CACHE_PREFIXES");
  check_error(api().prefix_find(plain, &good, &number), KVANT_ERROR_FAILED_PRECONDITION, "prefix_find", "KVANT_CACHE_PREFIXES");
  check_error(api().prefix_clear(plain, &number), KVANT_ERROR_FAILED_PRECONDITION, "prefix_clear", "KVANT_CACHE_PREFIXES");
  auto stats = make<kvant_prefix_stats>();
  check_error(api().prefix_stats(plain, &stats), KVANT_ERROR_FAILED_PRECONDITION, "prefix_stats", "KVANT_CACHE_PREFIXES");
  require_ok(api().sequence_open(plain, &good, &sequence, &number));
  CHECK(number == 0);

  auto layer = make<kvant_layer_args>();
  layer.kv_heads = 1;
  layer.head_dim_k = 64;
  auto args = make<kvant_cache_args>();
  args.layer_count = 1;
  args.layers = &layer;
  args.capacity_tokens = 64;
  kvant_cache* none = nullptr;
  args.model_id = "m";
  check_error(api().cache_create(session.device, &args, &none), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "args.model_id is not NULL");
  args.flags = KVANT_CACHE_PREFIXES | KVANT_CACHE_EXTERNAL_PAGES;
  check_error(api().cache_create(session.device, &args, &none), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "one of the two");
  args.flags = KVANT_CACHE_PREFIXES;
  policy.kind = 77;
  args.policy = &policy;
  check_error(api().cache_create(session.device, &args, &none), KVANT_ERROR_INVALID_ARGUMENT, "cache_create", "args.policy.kind (77)");
  api().cache_destroy(plain);
  api().cache_destroy(cache);
}
