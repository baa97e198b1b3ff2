// Several threads on different sequences of two caches and a store of one device, and one that watches. After every round, when all
// threads have ended, the books must balance; when all is destroyed and cleared, no page is left. KVANT_STRESS_SECONDS sets how long.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <set>

#include <nlohmann/json.hpp>

#include "stress_worker.hpp"

using namespace abi_test;

namespace {

using Json = nlohmann::json;

std::chrono::seconds duration() {
  const char* text = std::getenv("KVANT_STRESS_SECONDS");
  const long seconds = text != nullptr ? std::strtol(text, nullptr, 10) : 0;
  return std::chrono::seconds(seconds > 0 ? seconds : 5);
}

// Reads all statistics and follows the events of every cache, whose numbers have no gap.
class Watcher {
 public:
  explicit Watcher(StressCaches& shared) : shared_(shared), all_(shared.caches), last_(all_.size() + 1, 0), waiting_(last_) {
    all_.push_back(shared.store);
  }
  std::string failure;

  void look() {
    for (std::size_t c = 0; c < all_.size() && failure.empty(); ++c) {
      follow(c, 64);
      texts(all_[c]);
    }
  }
  // The rest of what has happened.
  void catch_up() {
    for (std::size_t c = 0; c < all_.size(); ++c)
      while (failure.empty() && follow(c, 256)) {
      }
  }

 private:
  bool ok(kvant_error* error) {
    if (error == nullptr) return true;
    const Outcome outcome = take(error);
    failure = outcome.source + ": " + outcome.message;
    return false;
  }
  bool follow(std::size_t c, std::uint32_t most) {
    std::vector<kvant_event> events(most, make<kvant_event>());
    std::uint32_t count = 0;
    std::uint64_t lost = 0;
    if (!ok(shared_.manager->events_poll(all_[c], last_[c], most, events.data(), &count, &lost))) return false;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (events[i].number != last_[c] + lost + 1)
        failure = "event " + std::to_string(events[i].number) + " follows " + std::to_string(last_[c]) + " and " +
                  std::to_string(lost) + " lost ones";
      if (events[i].time_ms < waiting_[c]) failure = "time of an event runs back";
      if (events[i].kind > KVANT_EVENT_COOLED) failure = "event of kind " + std::to_string(events[i].kind);
      waiting_[c] = events[i].time_ms;
      last_[c] = events[i].number;
      lost = 0;
    }
    return count == most;
  }
  void texts(kvant_cache* cache) {
    const char* text = nullptr;
    std::uint64_t size = 0;
    for (const std::uint32_t kind : {KVANT_STATS_JSON, KVANT_STATS_PROMETHEUS, KVANT_STATS_MONITOR}) {
      if (!ok(shared_.manager->stats_text(cache, kind, nullptr, &text, &size))) return;
      if (size == 0 || text[size] != '\0') failure = "a text of " + std::to_string(size) + " bytes does not end there";
      if (kind != KVANT_STATS_PROMETHEUS && !Json::accept(text, text + size)) failure = "a text is not JSON";
    }
    ok(shared_.manager->stats_observe(cache));
    auto prefix = make<kvant_prefix_stats>();
    if (ok(api().prefix_stats(cache, &prefix)) && prefix.hit_tokens > prefix.lookup_tokens) failure = "more hits than lookups";
    auto stats = make<kvant_cache_stats>();
    if (ok(api().cache_stats(cache, &stats)) && stats.used_pages > stats.total_pages) failure = "more pages are used than there are";
  }

  StressCaches& shared_;
  std::vector<kvant_cache*> all_;
  std::vector<std::uint64_t> last_, waiting_;
};

std::uint64_t saved_pages(const StressCaches& shared, kvant_cache* cache, std::uint32_t flags) {
  auto args = make<kvant_state_args>();
  args.flags = flags;
  StateBytes state;
  const kvant_state_stream stream = state.stream();
  require_ok(shared.manager->state_save(cache, &args, &stream));
  return state.pages();
}

// Pages in use are those of live sequences, each once, and those that the prefix cache alone holds; nothing else.
void check_books(const StressCaches& shared, std::size_t c, const std::vector<std::unique_ptr<StressWorker>>& workers) {
  kvant_cache* const cache = shared.caches[c];
  const char* text = nullptr;
  require_ok(shared.manager->stats_text(cache, KVANT_STATS_JSON, nullptr, &text, nullptr));
  const Json json = Json::parse(text);
  const Json& pool = json["pool"];
  const std::uint64_t used = pool["used_pages"], indexed = pool["index_pages"];
  CHECK(used == saved_pages(shared, cache, KVANT_STATE_ALL_SEQUENCES) + indexed);
  CHECK(used == saved_pages(shared, cache, KVANT_STATE_ALL_SEQUENCES | KVANT_STATE_PREFIXES));
  CHECK(used <= pool["total_pages"].get<std::uint64_t>());

  std::set<std::uint64_t> expected, told;
  std::uint64_t tokens = 0, waste = 0, layer_bytes = 0;
  for (const auto& worker : workers)
    for (const StressSequence& sequence : worker->held(c)) {
      CHECK(expected.insert(sequence.id).second);
      tokens += sequence.tokens.size();
      waste += kStressLayers * ((kStressPage - sequence.tokens.size() % kStressPage) % kStressPage);
    }
  for (const Json& sequence : json["sequences"]) {
    told.insert(sequence["id"].get<std::uint64_t>());
    const std::uint64_t length = sequence["tokens"], pages = sequence["pages"];
    CHECK(pages == kStressLayers * ((length + kStressPage - 1) / kStressPage));
    CHECK(sequence["shared_pages"].get<std::uint64_t>() <= pages);
  }
  CHECK(told == expected);
  CHECK(pool["tail_waste_tokens"].get<std::uint64_t>() == waste);
  for (const Json& layer : json["layers"]) layer_bytes += layer["used_bytes"].get<std::uint64_t>();
  CHECK(pool["used_bytes"].get<std::uint64_t>() == layer_bytes);

  const kvant_cache_stats stats = stats_of(cache);
  CHECK(stats.used_pages == used);
  CHECK(stats.used_bytes == layer_bytes);
  CHECK(stats.sequence_tokens == tokens);
  CHECK(stats.sequence_count == expected.size());
  auto prefix = make<kvant_prefix_stats>();
  require_ok(api().prefix_stats(cache, &prefix));
  CHECK(prefix.unshared_pages == indexed);
  CHECK(prefix.published_pages ==
        prefix.pages + prefix.evicted_capacity + prefix.evicted_expired + prefix.evicted_cleared + prefix.evicted_limit);
}

}  // namespace

TEST_CASE("threads: mixed operations on shared caches keep the books") {
  Session& session = shared_session();
  if (!session.has_device()) return;
  StressCaches shared;
  shared.manager = static_cast<const kvant_ext_manager*>(api().get_extension(session.context, KVANT_EXT_MANAGER));
  REQUIRE(shared.manager != nullptr);
  shared.f32 = session.format("f32");
  shared.f16 = session.format("f16");
  shared.caches = {stress_cache(session, 512), stress_cache(session, 2048)};  // one that is always full, one that is not
  shared.store = stress_cache(session, 256);
  const auto options = make<kvant_store_options>();
  require_ok(shared.manager->store_open(shared.store, &options));
  require_ok(shared.manager->stats_sample_errors(shared.caches[0], 7));

  constexpr std::uint32_t kWorkers = 5;
  constexpr int kOperations = 60;  // of a worker in a round
  std::vector<std::unique_ptr<StressWorker>> workers;
  for (std::uint32_t i = 0; i < kWorkers; ++i) workers.push_back(std::make_unique<StressWorker>(shared, 100 + i));
  Watcher watcher(shared);
  const auto end = std::chrono::steady_clock::now() + duration();
  bool failed = false;
  std::uint64_t rounds = 0;
  for (; !failed && (rounds < 2 || std::chrono::steady_clock::now() < end); ++rounds) {
    std::atomic<std::uint32_t> running{kWorkers};
    std::vector<std::thread> threads;
    for (const auto& worker : workers)
      threads.emplace_back([&] {
        worker->run(kOperations);
        --running;
      });
    threads.emplace_back([&] {
      for (int i = 0; i < 100000 && running != 0 && watcher.failure.empty(); ++i) {
        watcher.look();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    for (std::thread& thread : threads) thread.join();
    watcher.catch_up();
    // Now and then everything goes, and nothing must be left.
    const bool sweep = rounds % 4 == 3;
    for (const auto& worker : workers) {
      worker->check_all();
      if (sweep) worker->destroy_all();
      CHECK(worker->failure == "");
      failed = failed || !worker->failure.empty();
    }
    CHECK(watcher.failure == "");
    failed = failed || !watcher.failure.empty();
    for (std::size_t c = 0; c < shared.caches.size(); ++c) {
      check_books(shared, c, workers);
      if (!sweep) continue;
      std::uint64_t pages = 0;
      require_ok(api().prefix_clear(shared.caches[c], &pages));
      CHECK(stats_of(shared.caches[c]).used_pages == 0);
    }
  }
  std::uint64_t done = 0, refused = 0, sequences = 0;
  for (const auto& worker : workers) {
    done += worker->done;
    refused += worker->refused;
  }
  MESSAGE(rounds, " rounds, ", done, " operations, ", refused, " refused");
  CHECK(refused < done);
  require_ok(shared.manager->clear_all(shared.store, &sequences));
  for (kvant_cache* cache : shared.caches) require_ok(shared.manager->clear_all(cache, &sequences));
  shared.caches.push_back(shared.store);
  for (kvant_cache* cache : shared.caches) {
    const kvant_cache_stats stats = stats_of(cache);
    CHECK(stats.used_pages == 0);
    CHECK(stats.used_bytes == 0);
    CHECK(stats.sequence_tokens == 0);
    CHECK(stats.sequence_count == 0);
    api().cache_destroy(cache);
  }
  CHECK(session.take_blame().empty());
}
