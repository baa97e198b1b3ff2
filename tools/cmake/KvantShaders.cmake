# kvant_add_shader_library(): turns kernels.def and formats.def into a library of embedded SPIR-V with its tables.
include_guard(GLOBAL)
set(KVANT_CMAKE_DIR ${CMAKE_CURRENT_LIST_DIR})

# Splits a row `MACRO(a, b, c)` into a list of its fields, blanks removed.
function(kvant_row_fields out row)
  string(REGEX REPLACE "^[A-Z_]+\\(" "" row "${row}")
  string(REGEX REPLACE "\\).*$" "" row "${row}")
  string(REGEX REPLACE "[ \t]" "" row "${row}")
  string(REPLACE "," ";" row "${row}")
  set(${out} "${row}" PARENT_SCOPE)
endfunction()

# The dispatch over formats, as if-chains on a value that the driver knows to be constant. shaders/README.md describes it.
# Facts are straight selections with one return: some drivers inline every call before they fold the constant, and eleven early
# returns a call made them ten times slower.
function(kvant_generate_format_dispatch definitions output)
  set(ids "")
  set(includes "")
  foreach(name decode encode int8 has_int8 block code_bits high_bits scale_bytes row_pad)
    set(${name} "")
  endforeach()
  file(STRINGS ${definitions} rows REGEX "^KVANT_FORMAT\\(")
  foreach(row IN LISTS rows)
    kvant_row_fields(fields "${row}")
    list(GET fields 0 symbol)
    list(GET fields 1 id)
    string(APPEND ids "#define FORMAT_${symbol} ${id}u\n")
    string(APPEND includes "#include \"format_${symbol}.glsl\"\n")
    string(APPEND decode "  if (format == ${id}u) { ${symbol}_decode_span(codes, high, scale, x); } else\n")
    string(APPEND encode "  if (format == ${id}u) { ${symbol}_encode_block(x, codes, high, scale); } else\n")
    set(index 1)
    foreach(fact block code_bits high_bits scale_bytes row_pad)
      math(EXPR index "${index} + 1")
      list(GET fields ${index} value)
      string(APPEND ${fact} "  value = mix(value, ${value}u, format == ${id}u);\n")
    endforeach()
    list(GET fields 7 int_dot)
    if(int_dot)
      string(APPEND int8 "  if (format == ${id}u) { ${symbol}_int8_span(codes, high, scale, q, scale_f, min_f); } else\n")
      string(APPEND has_int8 "  value = mix(value, true, format == ${id}u);\n")
    endif()
  endforeach()

  set(text "// Generated from formats.def: every format's functions behind one name each.\n")
  string(APPEND text "#ifndef KVANT_FORMAT_DISPATCH_GLSL\n#define KVANT_FORMAT_DISPATCH_GLSL\n${ids}\n")
  foreach(fact block code_bits high_bits scale_bytes row_pad)
    string(APPEND text "uint kv_${fact}(uint format) {\n  uint value = 0u;\n${${fact}}  return value;\n}\n\n")
  endforeach()
  string(APPEND text
    "bool kv_has_int8(uint format) {\n  bool value = false;\n${has_int8}  return value;\n}\n\n${includes}\n"
    "void kv_decode_span(uint format, uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {\n${decode}"
    "  {\n    for (int i = 0; i < 8; ++i) x[i] = vec4(0.0);\n  }\n}\n\n"
    "void kv_encode_block(uint format, vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {\n${encode}"
    "  {\n    for (int i = 0; i < 16; ++i) codes[i] = uvec4(0u);\n    high = uvec2(0u);\n    scale = 0u;\n  }\n}\n\n"
    "void kv_int8_span(uint format, uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, "
    "out float min_f) {\n${int8}"
    "  {\n    for (int i = 0; i < 8; ++i) q[i] = 0u;\n    scale_f = 0.0;\n    min_f = 0.0;\n  }\n}\n\n#endif\n")
  file(CONFIGURE OUTPUT ${output} CONTENT "${text}" @ONLY)
endfunction()

# One module: compile, validate, reflect and embed. The outputs are <id>.spv and <id>.inc.
function(kvant_add_module id source defines environment needs bindings)
  set(module ${generated}/${id}.spv)
  list(GET KVANT_GLSLANG -1 compiler)
  set(flags "")
  if(NOT defines STREQUAL "none")
    string(REPLACE "+" ";" names "${defines}")
    foreach(name IN LISTS names)
      list(APPEND flags -D${name})
    endforeach()
  endif()
  add_custom_command(
    OUTPUT ${module}
    COMMAND ${KVANT_GLSLANG} -V --quiet --target-env ${environment} ${flags}
            -I${CMAKE_CURRENT_SOURCE_DIR}/include -I${CMAKE_CURRENT_SOURCE_DIR} -I${generated}
            --depfile ${module}.d -o ${module} ${source}
    DEPENDS ${source} ${generated}/format_dispatch.glsl ${compiler}
    DEPFILE ${module}.d
    COMMENT "Shader ${id}"
    VERBATIM)
  add_custom_command(
    OUTPUT ${generated}/${id}.inc
    COMMAND ${KVANT_SPIRV_VAL} --target-env ${environment} ${module}
    COMMAND kvant_embed_spirv ${id} ${needs} ${bindings} ${module} ${generated}/${id}.inc
    DEPENDS kvant_embed_spirv ${module}
    COMMENT "Validating and embedding ${id}"
    VERBATIM)
endfunction()

function(kvant_add_shader_library target)
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${generated})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
               ${CMAKE_CURRENT_SOURCE_DIR}/kernels.def ${CMAKE_CURRENT_SOURCE_DIR}/formats.def)
  kvant_generate_format_dispatch(${CMAKE_CURRENT_SOURCE_DIR}/formats.def ${generated}/format_dispatch.glsl)

  set(modules "")
  set(includes "")
  set(rows_text "")
  set(missing "")
  file(GLOB existing CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} *.comp)
  file(STRINGS kernels.def rows REGEX "^KVANT_KERNEL\\(")
  foreach(row IN LISTS rows)
    kvant_row_fields(fields "${row}")
    list(GET fields 0 id)
    list(GET fields 1 source)
    list(GET fields 2 defines)
    list(GET fields 3 environment)
    list(GET fields 4 needs)
    list(GET fields 5 bindings)
    list(GET fields 6 params)
    set(lacking "")
    if(NOT needs STREQUAL "none")
      string(REPLACE "|" ";" lacking "${needs}")
      list(REMOVE_ITEM lacking ${KVANT_GLSL_FEATURES})
    endif()
    string(REGEX REPLACE "([a-z0-9_]+)" "kernel_needs_\\1" needs_expression "${needs}")
    string(REPLACE "|" " | " needs_expression "${needs_expression}")
    if(NOT "${source}.comp" IN_LIST existing)
      message(FATAL_ERROR "shaders/${source}.comp of the row '${id}' in kernels.def does not exist")
    endif()
    if(lacking)
      list(APPEND missing ${id})
      set(embedded "{}, ${needs_expression}, ${bindings}, sizeof(params::${params}), 0")
    else()
      kvant_add_module(${id} ${CMAKE_CURRENT_SOURCE_DIR}/${source}.comp "${defines}" ${environment} "${needs}" ${bindings})
      list(APPEND modules ${id})
      string(APPEND includes "#include \"${id}.inc\"\n"
                             "static_assert(k_${id}_push_bytes <= sizeof(params::${params}), "
                             "\"${id} declares more push constants than ${params} holds\");\n")
      set(embedded "k_${id}_words, ${needs_expression}, ${bindings}, sizeof(params::${params}), k_${id}_spec_mask")
    endif()
    string(APPEND rows_text "    {\"${id}\", ${embedded}},\n")
  endforeach()

  list(JOIN missing ", " missing_text)
  if(missing)
    message(STATUS "Modules left out, the shader compiler cannot make them: ${missing_text}")
    if(KVANT_REQUIRE_ALL_MODULES)
      message(FATAL_ERROR "KVANT_REQUIRE_ALL_MODULES is set; tools/sysroot makes a newer shader compiler")
    endif()
  else()
    message(STATUS "Modules: all of kernels.def")
  endif()

  configure_file(${KVANT_CMAKE_DIR}/kernel_table.cpp.in ${generated}/kernel_table.cpp @ONLY)
  set(binaries ${modules})
  list(TRANSFORM binaries PREPEND ${generated}/)
  set(embeddings ${binaries})
  list(TRANSFORM binaries APPEND .spv)
  list(TRANSFORM embeddings APPEND .inc)
  add_custom_command(
    OUTPUT ${generated}/shader_set_hash.inc
    COMMAND ${CMAKE_COMMAND} -D "modules=${binaries}" -D output=${generated}/shader_set_hash.inc
            -P ${KVANT_CMAKE_DIR}/hash_shader_set.cmake
    DEPENDS ${binaries} ${KVANT_CMAKE_DIR}/hash_shader_set.cmake
    COMMENT "Hashing the shader set"
    VERBATIM)

  add_executable(kvant_embed_spirv ${KVANT_CMAKE_DIR}/embed_spirv.cpp ${KVANT_CMAKE_DIR}/spirv_module.cpp)
  target_include_directories(kvant_embed_spirv PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  set_target_properties(kvant_embed_spirv PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  add_library(${target} STATIC ${generated}/kernel_table.cpp ${embeddings} ${generated}/shader_set_hash.inc)
  target_include_directories(${target}
    PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}
    PRIVATE ${generated} ${PROJECT_SOURCE_DIR}/backend)
endfunction()
