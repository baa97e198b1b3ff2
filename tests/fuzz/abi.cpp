// Sequences of calls over the C ABI out of an input's bytes: arguments out of range, handles that are stale, foreign or
// nonsense, overlapping tensors, sizes that overflow. Nothing crashes, nothing is refused without its words, a refused
// call changes nothing, and at the end everything is given back. abi_session.hpp says what the caller keeps to.
#include "abi_session.hpp"

namespace {

constexpr int kMostCalls = 48;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kvant::fuzz;
  static const AbiLibrary library;
  AbiSession session(library, data, size);
  for (int i = 0; i < kMostCalls && !session.in.empty(); ++i) {
    const std::uint32_t group = session.in.below(16);
    if (session.caches.empty() || group < 5) {
      call_cache(session);
    } else if (group < 9) {
      call_step(session);
    } else if (group == 9) {
      call_state(session);
    } else if (group < 12) {
      call_store(session);
    } else if (group < 15) {
      call_tokens(session);
    } else {
      call_context(session);
    }
  }
  return 0;
}
