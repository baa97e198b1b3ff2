// Checks of what the prefix cache is given: policies and how sequences begin.
#pragma once

#include <string_view>

#include <kvant/kvant.h>

#include "cache.hpp"

namespace kvant::abi {

Result<PolicySpec> read_policy(const kvant_policy_args* args, std::string_view name);
std::uint32_t policy_number(PolicyKind kind);  // KVANT_POLICY_*
Result<std::string_view> read_salt(const void* salt, std::uint64_t size);
// The spans point at the caller's arrays.
Result<SequenceSpec> read_sequence_args(const kvant_sequence_args* args);

}  // namespace kvant::abi
