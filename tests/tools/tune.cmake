# kvant tune with small sizes: every kind of call, files that the library takes, and calls of before that stay.
set(model_arguments "")
include(${CMAKE_CURRENT_LIST_DIR}/run_command.cmake)
set(small --tokens 64 --kv-heads 1 --gqa 2 --head-dim 32 --rounds 1)
set(written ${work}/tuned.json)
file(REMOVE ${written})

run_command(first tune ${small} --formats q4_0 --queries 1,3,9 --out ${written})
string(JSON count LENGTH "${json}" calls)
expect(count EQUAL 3)
foreach(index RANGE 2)
  string(JSON call GET "${json}" calls ${index} call)
  string(JSON candidates GET "${json}" calls ${index} candidates)
  string(JSON chosen_seconds GET "${json}" calls ${index} chosen_seconds)
  string(JSON best_seconds GET "${json}" calls ${index} best_seconds)
  string(APPEND seen "${call}. ")
  # Which is the quickest is not looked at, but there is a choice, and nothing slower is taken.
  expect(candidates GREATER 3 AND chosen_seconds GREATER 0 AND best_seconds GREATER 0 AND NOT best_seconds GREATER chosen_seconds)
endforeach()
expect(seen STREQUAL "q4_0, d 32, GQA 2, 1 query. q4_0, d 32, GQA 2, 3 queries. q4_0, d 32, GQA 2, 9 queries. ")
expect(output MATCHES "quickest us")
file(READ ${written} table)
string(JSON kept LENGTH "${table}" configs)
expect(kept EQUAL 3)

# Time that is up before it begins: what tuning chooses alone is measured, and the other calls of the file stay.
run_command(second tune ${small} --formats t4 --queries 1 --minutes 0.000001 --out ${written})
string(JSON candidates GET "${json}" calls 0 candidates)
string(JSON complete GET "${json}" calls 0 complete)
expect(candidates EQUAL 1 AND NOT complete)
file(READ ${written} table)
string(JSON kept LENGTH "${table}" configs)
expect(kept EQUAL 4)

# The library says that it takes the file, and that it does not take another.
file(WRITE ${work}/other.json "{}")
foreach(file tuned.json other.json)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env KVANT_TUNED=${work}/${file} ${kvant} bench decode --library ${library} ${arguments} --verbose --tokens 16
                          --formats f16 --rounds 1 RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE error)
  expect(result EQUAL 0)
  string(REGEX MATCH "tuned configs [^\n]*" said "${error}")
  string(APPEND told "${said}. ")
endforeach()
expect(told MATCHES "tuned.json: hit.*other.json: corrupt")

execute_process(COMMAND ${kvant} tune --library ${library} RESULT_VARIABLE result ERROR_VARIABLE error OUTPUT_QUIET)
expect(result EQUAL 2)
expect(error MATCHES "--out FILE or --pipeline-cache FOLDER")
