// A module without the code of formats that a pipeline does not use. Modules hold the encoders and decoders of all formats behind branches on
// specialization constants; drivers that inline every call before they fold constants take several times as long for all of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvant {

// `words`: a module of kernels.def, with the names of its functions. Bodies of functions <symbol>_encode_block, _decode_span and _int8_span
// become empty unless their format is among `formats` (ids), or a function of one of these calls them; functions that nobody calls any more go.
std::vector<std::uint32_t> trim_module(std::span<const std::uint32_t> words, std::span<const std::uint32_t> formats);

}  // namespace kvant
