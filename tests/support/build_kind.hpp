// Whether a sanitizer watches this build: tests that compute much do less of it then, and say so.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define LAZYLLM_TEST_THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LAZYLLM_TEST_THREAD_SANITIZED 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LAZYLLM_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LAZYLLM_TEST_SANITIZED 1
#endif
#endif

namespace lazyllm::test {

#ifdef LAZYLLM_TEST_SANITIZED
inline constexpr bool sanitized_build = true;
#else
inline constexpr bool sanitized_build = false;
#endif

#ifdef LAZYLLM_TEST_THREAD_SANITIZED
inline constexpr bool thread_sanitized_build = true;
#else
inline constexpr bool thread_sanitized_build = false;
#endif

}  // namespace lazyllm::test
