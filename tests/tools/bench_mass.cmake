# kvant bench mass with small sizes: every work in every format and length, both ways in every round.
set(model_arguments "")
include(${CMAKE_CURRENT_LIST_DIR}/run_command.cmake)

run_command(mass bench mass --formats f16,q4_0 --decode-tokens 64,96 --prefill-tokens 40 --head-dim 64 --kv-heads 2 --gqa 2
            --rounds 2)
string(JSON rounds GET "${json}" rounds)
string(JSON count LENGTH "${json}" results)
expect(rounds EQUAL 2 AND count EQUAL 6)
foreach(index RANGE 5)
  foreach(name work format tokens)
    string(JSON ${name} GET "${json}" results ${index} ${name})
  endforeach()
  string(APPEND seen "${work} ${format} ${tokens}. ")
  string(JSON least GET "${json}" results ${index} wall least_ratio)
  string(JSON ratio GET "${json}" results ${index} wall ratio)
  string(JSON most GET "${json}" results ${index} wall most_ratio)
  # How much it takes is not looked at, but the middle one of the rounds lies among them.
  expect(least GREATER 0 AND NOT ratio LESS least AND NOT ratio GREATER most)
endforeach()
expect(seen STREQUAL "decode f16 64. decode f16 96. decode q4_0 64. decode q4_0 96. prefill f16 40. prefill q4_0 40. ")
expect(output MATCHES "with mass")
