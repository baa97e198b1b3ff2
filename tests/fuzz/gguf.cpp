// GGUF files: the parser, its getters over whatever was parsed, and the two that read a whole model out of it.
#include <vector>

#include "engine/gguf.hpp"
#include "engine/llama.hpp"
#include "engine/tokenizer.hpp"
#include "fuzz_input.hpp"

namespace {

using namespace kvant::engine;

// Whatever a getter says, it says it in words.
template <typename T>
bool fine(const kvant::tools::Outcome<T>& outcome) {
  if (!outcome.ok()) KVANT_FUZZ_CHECK(!outcome.failure().message.empty());
  return outcome.ok();
}

void read_everything(const GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    const int kinds = fine(file.get_string(key)) + fine(file.get_strings(key)) + fine(file.get_numbers(key)) +
                      fine(file.get_float(key));
    KVANT_FUZZ_CHECK(kinds <= 1);
    (void)fine(file.get_integer(key));
  }
  for (const auto& [name, tensor] : file.tensors()) {
    std::uint64_t elements = 1;
    for (const std::uint64_t dim : tensor.dims) elements *= dim;
    KVANT_FUZZ_CHECK(elements == tensor.elements);
    const auto values = file.get_tensor(name, tensor.dims);
    KVANT_FUZZ_CHECK(fine(values) && values->size() == elements);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = GgufFile::parse({bytes.begin(), bytes.end()}, "fuzz.gguf");
  if (!fine(file)) return 0;
  read_everything(*file);
  // A long context is tables of as many positions, all alike: once is enough.
  if (file->get_integer_or("llama.context_length", 0) > 4096) return 0;
  if (const auto model = Llama::load(*file); fine(model)) KVANT_FUZZ_CHECK(model->config().kv_heads > 0);
  if (const auto tokenizer = Tokenizer::from(*file); fine(tokenizer)) {
    for (const std::uint32_t token : tokenizer->encode("a b\xff"))
      KVANT_FUZZ_CHECK(tokenizer->decode(token).size() <= size);
  }
  return 0;
}
