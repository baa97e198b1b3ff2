# kvant eval on one chunk with plain and with outlier keys: the reference does not see the difference, narrow formats do; attention over
# made-up keys and needles; the plot as a file of its own.
file(MAKE_DIRECTORY ${work})
set(plot ${work}/plot.svg)
file(REMOVE ${plot})
set(model_arguments --model ${models}/tiny.gguf --text ${models}/heldout.txt --recall-hard ${models}/recall_hard.txt
                    --recall-test ${models}/recall_test.txt --tensors ${models}/kv_dump)
include(${CMAKE_CURRENT_LIST_DIR}/run_command.cmake)

# thousandths(<variable> <number>...): a figure of the report, times 1000, in `variable`.
macro(thousandths variable)
  string(JSON value GET "${json}" ${ARGN})
  # Below a thousandth JSON may have an exponent.
  if(value MATCHES "e-")
    set(${variable} 0)
  else()
    string(REGEX MATCH "^([0-9]+)(\\.([0-9]*))?" all "${value}")
    set(whole ${CMAKE_MATCH_1})
    string(SUBSTRING "${CMAKE_MATCH_3}000" 0 3 part)
    math(EXPR ${variable} "${whole} * 1000 + 1${part} - 1000")
  endif()
endmacro()

run_command(both eval --quick --keys both --formats q4_0,q8_0/q4_0,q4_0+pc --chunks 1 --hard-lines 2 --test-lines 1 --plot ${plot})
string(JSON count LENGTH "${json}" pairs)
expect(count EQUAL 4)
string(JSON name GET "${json}" pairs 2 name)
expect(name STREQUAL "q8_0/q4_0")
string(JSON name GET "${json}" pairs 3 name)
expect(name STREQUAL "q4_0+cp")
# An f32 cache: outliers in its keys change nothing.
foreach(keys plain outlier)
  thousandths(f32_${keys} pairs 0 keys ${keys} kl_mean)
  thousandths(q4_${keys} pairs 1 keys ${keys} kl_mean)
  thousandths(mixed_${keys} pairs 2 keys ${keys} kl_mean)
  string(JSON lines GET "${json}" pairs 1 keys ${keys} recall_hard lines)
  expect(lines EQUAL 2)
endforeach()
expect(f32_plain EQUAL 0 AND f32_outlier EQUAL 0)
thousandths(agreement pairs 0 keys outlier top1_agreement)
expect(agreement GREATER 990)
expect(q4_plain GREATER 0 AND q4_plain LESS 20)
expect(q4_outlier GREATER 50)
# Centred keys, and the newest tokens in f16.
thousandths(protected_outlier pairs 3 keys outlier kl_mean)
expect(protected_outlier LESS 5)
# Keys are what minds the outliers.
expect(mixed_outlier LESS q4_outlier)
expect(output MATCHES "Plain and outlier keys side by side")

# 5 sets of made-up keys at 2 deviations of the logits and one head size.
string(JSON count LENGTH "${json}" pairs 1 attention)
expect(count EQUAL 10)
foreach(index RANGE 9)
  string(JSON set GET "${json}" pairs 1 attention ${index} set)
  string(JSON deviation GET "${json}" pairs 1 attention ${index} logit_std)
  thousandths(f32_output pairs 0 attention ${index} output_error)
  thousandths(f32_same pairs 0 attention ${index} top1_agreement)
  expect(f32_output EQUAL 0 AND f32_same EQUAL 1000)
  foreach(figure output_error key_divergence key_error)
    thousandths(${figure} pairs 1 attention ${index} ${figure})
  endforeach()
  expect(output_error GREATER 50 AND key_divergence GREATER 0 AND key_error GREATER 0)
  if(deviation EQUAL 3 AND set STREQUAL "normal")
    set(normal_divergence ${key_divergence})
  elseif(deviation EQUAL 3 AND set MATCHES "^K-")
    # What formats without an offset of their own make of keys that have one.
    expect(key_divergence GREATER normal_divergence)
  endif()
endforeach()
foreach(index 0 1)
  foreach(name keys needles found kept)
    string(JSON ${name} GET "${json}" pairs ${index} needles 0 ${name})
  endforeach()
  thousandths(mass pairs ${index} needles 0 exact_mass)
  expect(keys EQUAL 4096 AND needles EQUAL 16 AND found EQUAL 16 AND kept)
  expect(mass GREATER 970 AND mass LESS 1000)
endforeach()

# The stand-alone conversion: q4_0 (the second of the formats, behind f32) on heavy tails and on keys with an offset.
string(JSON format GET "${json}" formats 1 format)
expect(format STREQUAL "q4_0")
thousandths(normal formats 1 sets normal relative_mse)
thousandths(heavy formats 1 sets "heavy-tailed (t3)" relative_mse)
thousandths(biased formats 1 sets "K-bias (+60)" relative_mse)
thousandths(centred formats 1 sets "K-bias (+60)" centred)
expect(heavy GREATER normal AND centred GREATER 100 AND biased LESS 20)

# The plot: a mark and a name for each configuration but the reference, in a series for each kind of keys and each ending.
file(READ ${plot} svg)
string(REGEX MATCHALL "<circle" marks "${svg}")
list(LENGTH marks count)
set(json "${svg}")
expect(count EQUAL 6)
expect(svg MATCHES "^<svg xmlns" AND svg MATCHES ">plain keys<" AND svg MATCHES ">outlier keys<" AND svg MATCHES ">outlier keys, .cp<"
       AND svg MATCHES ">q8_0/q4_0</text>")

# Outlier keys alone: the reference is still measured with plain ones.
run_command(outlier eval --keys outlier --formats q8_0 --chunks 1 --hard-lines 0 --test-lines 0 --no-tensors)
string(JSON reference LENGTH "${json}" pairs 0 keys)
string(JSON others LENGTH "${json}" pairs 1 keys)
expect(reference EQUAL 2 AND others EQUAL 1)
string(JSON tokens GET "${json}" pairs 1 keys outlier tokens)
expect(tokens EQUAL 511)

execute_process(COMMAND ${kvant} eval --library ${library} --keys bent RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
expect(NOT code EQUAL 0 AND output MATCHES "bent" AND output MATCHES "outlier")
execute_process(COMMAND ${kvant} eval --library ${library} --formats f32 --plot ${plot}
  RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
expect(code EQUAL 2 AND output MATCHES "--plot")
