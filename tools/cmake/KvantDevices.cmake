# The software devices that tests run on, and kvant_add_device_test(), which runs a test on each of them.
include_guard(GLOBAL)

option(KVANT_TEST_VALIDATION "Run every device test under the validation and synchronization layers" OFF)
option(KVANT_TEST_FULL "Run what tests leave out because a software device takes minutes for it" OFF)

# <name> -> the driver's manifest. A device that is absent is named in the configure log; its tests are left out.
file(GLOB KVANT_ICD_lavapipe /usr/share/vulkan/icd.d/lvp_icd*.json)
file(GLOB KVANT_ICD_swiftshader /usr/lib/chromium/vk_swiftshader_icd.json)
file(GLOB KVANT_ICD_radv /usr/share/vulkan/icd.d/radeon_icd*.json)
set(KVANT_TEST_DEVICES "")
if(NOT KVANT_TEST_FULL)
  message(STATUS "Device tests: the short form; SwiftShader leaves out its longest cases (KVANT_TEST_FULL=1 runs all)")
endif()
foreach(device lavapipe swiftshader)
  if(KVANT_ICD_${device})
    list(GET KVANT_ICD_${device} 0 KVANT_ICD_${device})
    list(APPEND KVANT_TEST_DEVICES ${device})
  else()
    message(STATUS "Device tests: no ${device} on this machine, its tests are left out (tools/setup installs it)")
  endif()
endforeach()
if(KVANT_ICD_radv)
  list(GET KVANT_ICD_radv 0 KVANT_ICD_radv)
endif()

# kvant_device_environment(<out> <device>): what a test's ENVIRONMENT holds to see that device and no other.
# XDG_CACHE_HOME keeps caches of drivers and of kvant itself inside the build folder.
function(kvant_device_environment out device)
  set(environment
    VK_ICD_FILENAMES=${KVANT_ICD_${device}} VK_DRIVER_FILES=${KVANT_ICD_${device}}
    XDG_CACHE_HOME=${PROJECT_BINARY_DIR}/cache KVANT_REQUIRE_DEVICE=1)
  if(KVANT_TEST_VALIDATION)
    list(APPEND environment KVANT_VALIDATION=1)
  endif()
  if(KVANT_TEST_FULL)
    list(APPEND environment KVANT_TEST_FULL=1)
  endif()
  if(KVANT_SANITIZE)
    file(READ ${KVANT_ICD_${device}} manifest)
    string(JSON library GET "${manifest}" ICD library_path)
    get_filename_component(folder ${KVANT_ICD_${device}} DIRECTORY)
    cmake_path(ABSOLUTE_PATH library BASE_DIRECTORY ${folder} NORMALIZE)
    list(APPEND environment KVANT_TEST_KEEP_LOADED=libvulkan.so.1:libVkLayer_khronos_validation.so:${library}
         LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0
         TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp:print_suppressions=0)
  endif()
  set(${out} "${environment}" PARENT_SCOPE)
endfunction()

# kvant_add_device_test(NAME <name> LABELS <label>... [DEVICES <device>...] [TIMEOUT <s>] [ENVIRONMENT <k=v>...]
#                       COMMAND <command>... [SHORT <argument>...])
# Adds <name>.<device> for each device, labelled with the device's name besides. SHORT: what SwiftShader, which compiles several
# times as long as lavapipe, gets besides unless KVANT_TEST_FULL is set.
function(kvant_add_device_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT" "LABELS;DEVICES;ENVIRONMENT;COMMAND;SHORT")
  if(NOT arg_DEVICES)
    set(arg_DEVICES ${KVANT_TEST_DEVICES})
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  foreach(device IN LISTS arg_DEVICES)
    if(NOT device IN_LIST KVANT_TEST_DEVICES)
      continue()
    endif()
    kvant_device_environment(environment ${device})
    set(short "")
    if(device STREQUAL "swiftshader" AND NOT KVANT_TEST_FULL)
      set(short ${arg_SHORT})
    endif()
    add_test(NAME ${arg_NAME}.${device} COMMAND ${arg_COMMAND} ${short})
    set_tests_properties(${arg_NAME}.${device} PROPERTIES
      ENVIRONMENT "${environment};${arg_ENVIRONMENT}" LABELS "${arg_LABELS};${device}" TIMEOUT ${arg_TIMEOUT})
  endforeach()
endfunction()
