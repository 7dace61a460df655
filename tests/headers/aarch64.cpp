// The translation unit that a compiler for AArch64 reads: every header, and a model with all that it calls.
#include <lazyllm/lazyllm.hpp>

template class lazyllm::Llama<>;
