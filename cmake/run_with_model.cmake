# Runs PROGRAM with ARGUMENTS, where MODEL stands for the file that the environment variable LAZYLLM_MODEL names.
if("$ENV{LAZYLLM_MODEL}" STREQUAL "")
  execute_process(COMMAND ${CMAKE_COMMAND} -E echo "skipped: LAZYLLM_MODEL is not set")
  return()
endif()
list(TRANSFORM ARGUMENTS REPLACE "^MODEL$" "$ENV{LAZYLLM_MODEL}")
execute_process(COMMAND ${PROGRAM} ${ARGUMENTS} COMMAND_ERROR_IS_FATAL ANY)
