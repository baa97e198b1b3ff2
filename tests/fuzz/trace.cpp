// Trace files of `kvant replay`: Mooncake's JSON lines and libCacheSim's CSV; what is read is played by a policy, and
// its figures add up.
#include <string>

#include "fuzz_input.hpp"
#include "replay_read.hpp"
#include "replay_run.hpp"

namespace {

using namespace kvant::tools;
__extension__ using Wide = unsigned __int128;

void check_trace(const Trace& trace) {
  Wide distinct = 0, used = 0, tokens = 0;
  for (std::size_t i = 0; i < trace.pages.size(); ++i) {
    const TracePage& page = trace.pages[i];
    KVANT_FUZZ_CHECK(page.parent == kNoParent || page.parent < i);
    distinct += page.bytes;
  }
  for (const TraceRequest& request : trace.requests) {
    tokens += request.tokens;
    for (const std::uint32_t page : request.pages) {
      KVANT_FUZZ_CHECK(page < trace.pages.size());
      used += trace.pages[page].bytes;
    }
  }
  KVANT_FUZZ_CHECK(trace.distinct_bytes() == distinct);
  const ReplayFigures all = replay_infinite(trace);
  KVANT_FUZZ_CHECK(all.bytes == used && all.tokens == tokens && all.requests == trace.requests.size());
  KVANT_FUZZ_CHECK(all.hit_bytes <= all.bytes && all.hit_tokens <= all.tokens);
}

void play(const Trace& trace, std::uint64_t capacity, std::uint8_t choice, std::uint64_t ttl) {
  const auto& policies = replay_policies();
  const ReplayFigures figures = replay(trace, {policies[choice % policies.size()], capacity, ttl, choice});
  KVANT_FUZZ_CHECK(figures.most_bytes <= capacity && figures.hit_bytes <= figures.bytes);
  const ReplayFigures best = trace.page_bytes() != 0 ? replay_optimum(trace, capacity) : replay_bound(trace, capacity);
  KVANT_FUZZ_CHECK(best.hit_pages <= best.pages);
  if (trace.page_bytes() != 0) KVANT_FUZZ_CHECK(figures.hit_pages <= best.hit_pages);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kvant::fuzz::FuzzInput in(data, size);
  const std::uint8_t choice = in.u8();
  const std::uint64_t ttl = in.magnitude();
  ReadOptions options;
  options.page_bytes = in.magnitude() + 1;
  options.page_bytes += options.page_bytes == 0;
  const std::string capacities = in.text(in.below(24));
  const std::string text = in.text(in.left());
  const auto trace = (choice & 1) != 0 ? parse_csv("fuzz", text) : parse_mooncake("fuzz", text, options);
  if (!trace.ok()) {
    KVANT_FUZZ_CHECK(!trace.failure().message.empty());
    return 0;
  }
  check_trace(*trace);
  const auto chosen = parse_capacities(capacities.empty() ? "50%" : capacities, *trace);
  if (!chosen.ok()) return 0;
  for (std::size_t i = 0; i < chosen->size() && i < 3; ++i) play(*trace, (*chosen)[i], choice >> 1, ttl);
  return 0;
}
