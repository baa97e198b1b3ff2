# Install, consume, run. See CMakeLists.txt beside it for the variables.
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work}/elsewhere)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "'${command}' ended with ${result}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${build} --prefix ${prefix})
foreach(file bin/kvant lib/libkvant.so include/kvant/kvant.h lib/cmake/kvant/kvantConfig.cmake lib/pkgconfig/kvant.pc
        share/kvant/models/tiny.gguf share/kvant/python/kvant/__init__.py ${docs}/LICENSE ${docs}/README.md ${docs}/CHANGELOG.md
        ${docs}/CONTRIBUTING.md ${docs}/docs/architecture.md ${docs}/docs/abi.md ${docs}/docs/formats/q4_0.md
        ${docs}/docs/decisions/README.md ${docs}/examples/host.c)
  if(NOT EXISTS ${prefix}/${file})
    message(FATAL_ERROR "the installed tree lacks ${file}")
  endif()
endforeach()

# The tree must work wherever it is moved to.
file(RENAME ${prefix} ${work}/moved)
set(prefix ${work}/moved)
run(${python} -B ${check_links} ${prefix}/${docs})
file(GLOB examples ${prefix}/${docs}/examples/*.c)

# Copies, so that nothing of the source tree can be found by a relative include.
foreach(example IN LISTS examples)
  file(COPY ${example} DESTINATION ${work}/elsewhere)
endforeach()
run(${python} -B ${readme_snippets} ${readme} ${work}/elsewhere)
file(GLOB copies ${work}/elsewhere/*.c)
file(GLOB scripts ${work}/elsewhere/*.py)

run(${CMAKE_COMMAND} -S ${consumer} -B ${work}/by_package -G Ninja -D CMAKE_PREFIX_PATH=${prefix}
    -D CMAKE_C_COMPILER=${compiler} -D examples_folder=${work}/elsewhere)
run(${CMAKE_COMMAND} --build ${work}/by_package)
file(READ ${work}/by_package/library.txt library)

set(ENV{PKG_CONFIG_PATH} ${prefix}/lib/pkgconfig)
run(${pkg_config} --cflags --libs kvant)
separate_arguments(flags UNIX_COMMAND "${output}")
run(${pkg_config} --variable=library kvant)
string(STRIP "${output}" library_by_pkg_config)

# A sanitized library needs its sanitizer in the program, which a plain host does not have: then only the builds are tested.
foreach(copy IN LISTS copies)
  get_filename_component(name ${copy} NAME_WE)
  run(${compiler} -std=c99 -Wall -Wextra -Wpedantic -Werror -o ${work}/elsewhere/${name} ${copy} ${flags} -lm)
  if(NOT sanitize)
    run(${work}/by_package/${name} ${library})
    run(${work}/elsewhere/${name} ${library_by_pkg_config})
  endif()
endforeach()
if(NOT sanitize)
  foreach(script IN LISTS scripts)
    run(${python} -B ${script} ${library})
  endforeach()
endif()
# Without being told, the command finds the library beside itself.
run(${prefix}/bin/kvant info)
string(FIND "${output}" "${prefix}/lib/libkvant.so" position)
if(position EQUAL -1)
  message(FATAL_ERROR "bin/kvant opened another library than ${prefix}/lib/libkvant.so:\n${output}")
endif()

# The model and the texts are found in the installed tree from any folder; who has no GPU is told so.
run(${CMAKE_COMMAND} -E chdir ${work}/elsewhere ${prefix}/bin/kvant generate --tokens 2)
if(NOT output MATCHES "CPU driver")
  message(FATAL_ERROR "kvant generate does not say that the device is a CPU driver:\n${output}")
endif()

# Refusals name the value and end with the documented code.
function(refused code words)
  execute_process(COMMAND ${prefix}/bin/kvant ${ARGN} WORKING_DIRECTORY ${work}/elsewhere RESULT_VARIABLE result
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(FIND "${output}" "${words}" position)
  if(NOT result EQUAL code OR position EQUAL -1)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "'kvant ${command}' ended with ${result} instead of ${code}, or without '${words}':\n${output}")
  endif()
endfunction()
refused(5 "none.gguf: cannot be opened" generate --model none.gguf)
refused(5 "none.txt: cannot be opened" eval --text none.txt)
refused(2 "the format (q9) is none of" eval --formats all/q9)
refused(2 "(0) is not a whole number from 1" eval --chunks 0)
refused(2 "its folder (none) does not exist" eval --json none/out.json)
refused(3 "none.so" info --library none.so)
refused(4 "(99)" info --device 99)
