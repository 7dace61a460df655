# Programs of this repository (tests, examples, benchmarks): warnings on, never for users of the targets.
add_library(lazyllm_warnings INTERFACE)
target_compile_options(lazyllm_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                                                  $<$<BOOL:${LAZYLLM_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns falsely inside its own std::string operator+ (GCC bug 105651).
  target_compile_options(lazyllm_warnings INTERFACE -Wno-restrict)
endif()

# lazyllm_program(target source...): an executable with the library and the warnings. It shares the compiled kernels
# with the others, unless OWN_KERNELS stands before the sources.
function(lazyllm_program target)
  cmake_parse_arguments(PARSE_ARGV 1 argument OWN_KERNELS "" "")
  add_executable(${target} ${argument_UNPARSED_ARGUMENTS})
  target_link_libraries(${target} PRIVATE lazyllm_warnings lazyllm::lazyllm)
  if(NOT argument_OWN_KERNELS)
    target_link_libraries(${target} PRIVATE lazyllm::kernels)
  endif()
endfunction()

# lazyllm_test(name labels command...): a ctest test whose name carries the preset's prefix.
function(lazyllm_test name labels)
  add_test(NAME ${LAZYLLM_TEST_PREFIX}${name} COMMAND ${ARGN})
  set_tests_properties(${LAZYLLM_TEST_PREFIX}${name} PROPERTIES LABELS "${labels}"
                       ENVIRONMENT "${LAZYLLM_TEST_ENVIRONMENT}" TIMEOUT 1200)
endfunction()
