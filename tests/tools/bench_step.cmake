# kvant bench step with small sizes: every number of sequences, and parts of the thread's time that are there.
set(model_arguments "")
include(${CMAKE_CURRENT_LIST_DIR}/run_command.cmake)

run_command(step bench step --formats f16,q4_0 --batch 1,3 --layers 4 --tokens 20 --rounds 2 --steps 3)
string(JSON rounds GET "${json}" rounds)
string(JSON layers GET "${json}" layers)
string(JSON count LENGTH "${json}" results)
expect(rounds EQUAL 2 AND layers EQUAL 4 AND count EQUAL 4)
foreach(index RANGE 3)
  foreach(name format sequences plan_seconds run_seconds commit_seconds wall_seconds)
    string(JSON ${name} GET "${json}" results ${index} ${name})
  endforeach()
  string(APPEND seen "${format} ${sequences}. ")
  # How much it takes is not looked at, but every part is there, and no call of four layers is done in no time.
  expect(plan_seconds GREATER 0 AND run_seconds GREATER 0 AND commit_seconds GREATER 0 AND wall_seconds GREATER 0)
endforeach()
expect(seen STREQUAL "f16 1. f16 3. q4_0 1. q4_0 3. ")
expect(output MATCHES "run µs a layer")
