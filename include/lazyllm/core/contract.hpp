// LAZYLLM_EXPECTS(condition): a precondition that only a programmer can break.
// Checked in Debug builds (NDEBUG not defined), where a violation throws std::logic_error with the place; free
// otherwise.
#pragma once

#include <stdexcept>
#include <string>

#ifdef NDEBUG
#define LAZYLLM_EXPECTS(condition) static_cast<void>(0)
#else
#define LAZYLLM_EXPECTS(condition) \
  ((condition) ? static_cast<void>(0) : ::lazyllm::detail::contract_violation(#condition, __FILE__, __LINE__))
#endif

namespace lazyllm::inline v0::detail {

[[noreturn]] inline void contract_violation(const char* condition, const char* file, int line) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected " + condition);
}

}  // namespace lazyllm::inline v0::detail
