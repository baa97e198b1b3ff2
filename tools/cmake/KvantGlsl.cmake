# Finds the shader compiler and the SPIR-V validator, and learns by trial which GLSL features they can do.
# Sets KVANT_GLSLANG and KVANT_SPIRV_VAL (command lists), KVANT_GLSLANG_VERSION, KVANT_GLSL_FEATURES (names of `needs`), KVANT_SYSROOT_RUN.
include_guard(GLOBAL)

# A program of the sysroot runs on the host through the sysroot's own loader and libraries; no chroot is needed. It must answer to
# the option that tells its version (--version unless another is given).
function(kvant_sysroot_program out name)
  set(${out} "" PARENT_SCOPE)
  file(GLOB loader ${KVANT_SYSROOT}/usr/lib64/ld-linux-*.so.* ${KVANT_SYSROOT}/usr/lib/ld-linux-*.so.*
       ${KVANT_SYSROOT}/usr/lib/*-linux-gnu/ld-linux-*.so.*)
  file(GLOB libraries LIST_DIRECTORIES true ${KVANT_SYSROOT}/usr/lib/*-linux-gnu)
  if(NOT loader OR NOT libraries OR NOT EXISTS ${KVANT_SYSROOT}/usr/bin/${name})
    return()
  endif()
  list(GET loader 0 loader)
  list(JOIN libraries ":" libraries)
  set(command ${loader} --library-path ${libraries} ${KVANT_SYSROOT}/usr/bin/${name})
  set(option --version)
  if(ARGC GREATER 2)
    set(option ${ARGV2})
  endif()
  execute_process(COMMAND ${command} ${option} RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  if(result EQUAL 0)
    set(${out} "${command}" PARENT_SCOPE)
  endif()
endfunction()

kvant_sysroot_program(KVANT_GLSLANG glslang)
kvant_sysroot_program(KVANT_SPIRV_VAL spirv-val)
set(origin "sysroot")
set(KVANT_SYSROOT_RUN "")  # runs a program of this machine on the sysroot's libraries
if(KVANT_GLSLANG)
  list(SUBLIST KVANT_GLSLANG 0 3 KVANT_SYSROOT_RUN)
endif()
if(NOT KVANT_GLSLANG OR NOT KVANT_SPIRV_VAL)
  set(origin "host")
  find_program(KVANT_HOST_GLSLANG NAMES glslang glslangValidator)
  find_program(KVANT_HOST_SPIRV_VAL spirv-val)
  if(NOT KVANT_HOST_GLSLANG OR NOT KVANT_HOST_SPIRV_VAL)
    message(FATAL_ERROR "glslang (${KVANT_HOST_GLSLANG}) or spirv-val (${KVANT_HOST_SPIRV_VAL}) is missing; "
                        "run tools/setup, or install glslang-tools and spirv-tools")
  endif()
  set(KVANT_GLSLANG ${KVANT_HOST_GLSLANG})
  set(KVANT_SPIRV_VAL ${KVANT_HOST_SPIRV_VAL})
endif()

execute_process(COMMAND ${KVANT_GLSLANG} --version OUTPUT_VARIABLE version ERROR_QUIET)
string(REGEX MATCH "Glslang Version: [0-9]*:?([0-9.]+)" ignored "${version}")
set(KVANT_GLSLANG_VERSION "glslang ${CMAKE_MATCH_1}, ${origin}")

# One probe a feature: it counts only if the compiler and the validator both accept it.
set(KVANT_GLSL_FEATURES "")
file(GLOB probes CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/probes/*.comp)
foreach(probe IN LISTS probes)
  get_filename_component(feature ${probe} NAME_WE)
  set(module ${CMAKE_BINARY_DIR}/CMakeFiles/probe_${feature}.spv)
  execute_process(COMMAND ${KVANT_GLSLANG} -V --target-env vulkan1.3 -o ${module} ${probe}
                  RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  if(result EQUAL 0)
    execute_process(COMMAND ${KVANT_SPIRV_VAL} --target-env vulkan1.3 ${module}
                    RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  endif()
  if(result EQUAL 0)
    list(APPEND KVANT_GLSL_FEATURES ${feature})
  endif()
endforeach()
list(JOIN KVANT_GLSL_FEATURES " " features)
message(STATUS "Shader compiler: ${KVANT_GLSLANG_VERSION}; can do: ${features}")
