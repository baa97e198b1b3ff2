# What the checks share: running the command into a JSON and an HTML report, and asking the JSON.

# run_command(<name> <argument>...): sets `json` to the report's text. `model_arguments`: empty for commands without a model.
if(NOT DEFINED model_arguments)
  set(model_arguments --model ${models}/tiny.gguf --text ${models}/heldout.txt)
endif()
function(run_command name)
  # Tests of several devices may run at once: each has a folder of its own.
  string(SHA256 device "$ENV{VK_ICD_FILENAMES}")
  string(SUBSTRING ${device} 0 8 device)
  set(folder ${work}/${device})
  file(MAKE_DIRECTORY ${folder})
  file(REMOVE ${folder}/${name}.json ${folder}/${name}.html)
  execute_process(COMMAND ${kvant} ${ARGN} ${arguments} --library ${library} ${model_arguments}
                          --json ${folder}/${name}.json --html ${folder}/${name}.html
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT result EQUAL 0 OR error MATCHES "misbehaving")
    message(FATAL_ERROR "${name} ended with ${result}:\n${output}\n${error}")
  endif()
  file(READ ${folder}/${name}.html html)
  if(NOT html MATCHES "<svg" OR NOT html MATCHES "<table")
    message(FATAL_ERROR "${name}: the page lacks its plot or its table")
  endif()
  file(READ ${folder}/${name}.json text)
  set(json "${text}" PARENT_SCOPE)
  set(output "${output}" PARENT_SCOPE)
endfunction()

# expect(<condition>...): as if() takes it.
macro(expect)
  if(NOT (${ARGN}))
    message(FATAL_ERROR "expected ${ARGN}, in\n${json}")
  endif()
endmacro()
