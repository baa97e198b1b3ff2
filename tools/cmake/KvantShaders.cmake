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

# The dispatch over formats. shaders/README.md describes it. Drivers inline every call before they fold constants, so that the length of
# a function counts at each of its calls: facts are looked up in masks, and formats that the module's constants rule out go before calls
# are inlined.
function(kvant_generate_format_dispatch definitions output)
  set(calls decode encode int8)
  set(facts block code_bits high_bits scale_bytes row_pad has_int8)
  set(decode_call "decode_span(codes, high, scale, x)")
  set(encode_call "encode_block(x, codes, high, scale)")
  set(int8_call "int8_span(codes, high, scale, q, scale_f, min_f)")
  set(ids "")
  set(includes "")
  file(STRINGS ${definitions} rows REGEX "^KVANT_FORMAT\\(")
  foreach(row IN LISTS rows)
    kvant_row_fields(fields "${row}")
    list(POP_FRONT fields symbol id)
    if(id GREATER 31)
      message(FATAL_ERROR "format ${symbol}: masks hold the ids 0 to 31, not ${id}")
    endif()
    string(APPEND ids "#define FORMAT_${symbol} ${id}u\n")
    string(APPEND includes "#include \"format_${symbol}.glsl\"\n")
    math(EXPR bit "1 << ${id}")
    foreach(fact value IN ZIP_LISTS facts fields)
      list(APPEND ${fact}_values ${value})
      math(EXPR ${fact}_${value} "0${${fact}_${value}} | ${bit}")
    endforeach()
    list(GET fields 5 int_dot)
    foreach(call IN LISTS calls)
      if(int_dot OR NOT call STREQUAL "int8")
        string(APPEND ${call} "  if (format_in_use(${id}u)) { if (format == ${id}u) ${symbol}_${${call}_call}; }\n")
      endif()
    endforeach()
  endforeach()

  set(text "// Generated from formats.def: every format's functions behind one name each.\n")
  string(APPEND text "#ifndef KVANT_FORMAT_DISPATCH_GLSL\n#define KVANT_FORMAT_DISPATCH_GLSL\n${ids}\n"
    "#ifndef FORMATS_IN_USE\n#define FORMATS_IN_USE 0xFFFFFFFFu\n#endif\n"
    "#define format_in_use(id) ((FORMATS_IN_USE >> id & 1u) != 0u)\n\n")
  foreach(fact IN LISTS facts)
    list(REMOVE_DUPLICATES ${fact}_values)
    list(POP_FRONT ${fact}_values first)
    set(body "  uint value = ${first}u;\n")
    foreach(value IN LISTS ${fact}_values)
      math(EXPR mask "${${fact}_${value}}" OUTPUT_FORMAT HEXADECIMAL)
      string(APPEND body "  value = mix(value, ${value}u, (${mask}u >> format & 1u) != 0u);\n")
    endforeach()
    string(APPEND text "uint kv_${fact}(uint format) {\n${body}  return value;\n}\n\n")
  endforeach()
  string(APPEND text
    "${includes}\n"
    "void kv_decode_span(uint format, uvec4 codes[8], uint high, uint scale, out vec4 x[8]) {\n"
    "  for (int i = 0; i < 8; ++i) x[i] = vec4(0.0);\n${decode}}\n\n"
    "void kv_encode_block(uint format, vec4 x[16], out uvec4 codes[16], out uvec2 high, out uint scale) {\n"
    "  for (int i = 0; i < 16; ++i) codes[i] = uvec4(0u);\n  high = uvec2(0u);\n  scale = 0u;\n${encode}}\n\n"
    "void kv_int8_span(uint format, uvec4 codes[8], uint high, uint scale, out uint q[8], out float scale_f, "
    "out float min_f) {\n"
    "  for (int i = 0; i < 8; ++i) q[i] = 0u;\n  scale_f = 0.0;\n  min_f = 0.0;\n${int8}}\n\n#endif\n")
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
