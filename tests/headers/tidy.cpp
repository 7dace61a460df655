// The translation unit that clang-tidy reads: every header.
#include <lazyllm/lazyllm.hpp>
