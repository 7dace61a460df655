# README.md shows examples/generate.cpp as it is: the example is compiled and run by the tests, so the README is too.
file(READ ${ROOT}/README.md readme)
file(READ ${ROOT}/examples/generate.cpp example)
string(FIND "${readme}" "```cpp\n${example}```\n" place)
if(place EQUAL -1)
  message(FATAL_ERROR "README.md: the C++ snippet differs from examples/generate.cpp; copy the file into it")
endif()
