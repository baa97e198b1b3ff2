// A tier of the engine's whose functions are known while they run, so that a call from inside one is refused and does not wait for
// itself: functions run on the cache's own thread too, for which a call on an engine thread may be waiting with the lock held.
#pragma once

#include <memory>
#include <string>

#include "objects.hpp"
#include "tier.hpp"

namespace kvant::abi {

// `lock` is that of the cache's device and outlives the tier.
Result<std::unique_ptr<Tier>> watch_tier(Result<std::unique_ptr<Tier>> tier, const CallLock& lock);

// Empty, or why this thread may not take the lock: a function of such a tier below it runs here.
std::string tier_objection(const CallLock& lock);

}  // namespace kvant::abi
