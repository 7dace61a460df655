// Functions between LAZYLLM_TARGET_<ISA>_BEGIN and LAZYLLM_TARGET_END are compiled for that ISA, whatever flags the
// build has. Include every other header before a region opens. g++ 12 warns falsely inside its own AVX-512 intrinsics:
// silenced inside.
#pragma once

// In front of a loop with at most 16 passes, a constant number: unrolled completely, so that arrays of vectors live in
// registers. Builds that are checked, not timed, may define it as nothing: they compile several times faster.
#if defined(LAZYLLM_UNROLL)
#elif defined(__clang__)
#define LAZYLLM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LAZYLLM_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

// One string literal per _Pragma, which clang-format would cut.
// clang-format off
#if defined(__clang__)
#define LAZYLLM_TARGET_BEGIN(pragma) _Pragma(pragma)
#define LAZYLLM_TARGET_AVX2_BEGIN LAZYLLM_TARGET_BEGIN("clang attribute push(__attribute__((target(\"avx2,fma,f16c\"))), apply_to = function)")
#define LAZYLLM_TARGET_AVXVNNI_BEGIN LAZYLLM_TARGET_BEGIN("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avxvnni\"))), apply_to = function)")
#define LAZYLLM_TARGET_AVX512VNNI_BEGIN LAZYLLM_TARGET_BEGIN("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni\"))), apply_to = function)")
#define LAZYLLM_TARGET_AVX512BF16_BEGIN LAZYLLM_TARGET_BEGIN("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16\"))), apply_to = function)")
#define LAZYLLM_TARGET_AMX_BEGIN LAZYLLM_TARGET_BEGIN("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16\"))), apply_to = function)")
#define LAZYLLM_TARGET_END _Pragma("clang attribute pop")
#else
#define LAZYLLM_TARGET_BEGIN(pragma) \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wuninitialized\"") \
  _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") _Pragma("GCC push_options") _Pragma(pragma)
#define LAZYLLM_TARGET_AVX2_BEGIN LAZYLLM_TARGET_BEGIN("GCC target(\"avx2,fma,f16c\")")
#define LAZYLLM_TARGET_AVXVNNI_BEGIN LAZYLLM_TARGET_BEGIN("GCC target(\"avx2,fma,f16c,avxvnni\")")
#define LAZYLLM_TARGET_AVX512VNNI_BEGIN LAZYLLM_TARGET_BEGIN("GCC target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni\")")
#define LAZYLLM_TARGET_AVX512BF16_BEGIN LAZYLLM_TARGET_BEGIN("GCC target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16\")")
#define LAZYLLM_TARGET_AMX_BEGIN LAZYLLM_TARGET_BEGIN("GCC target(\"avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16\")")
#define LAZYLLM_TARGET_END _Pragma("GCC pop_options") _Pragma("GCC diagnostic pop")
#endif
// clang-format on

#elif defined(__aarch64__)

#include <arm_neon.h>

#if defined(__clang__)
#define LAZYLLM_TARGET_NEON_BEGIN \
  _Pragma("clang attribute push(__attribute__((target(\"dotprod\"))), apply_to = function)")
#define LAZYLLM_TARGET_END _Pragma("clang attribute pop")
#else
#define LAZYLLM_TARGET_NEON_BEGIN _Pragma("GCC push_options") _Pragma("GCC target(\"arch=armv8.2-a+dotprod\")")
#define LAZYLLM_TARGET_END _Pragma("GCC pop_options")
#endif

#endif
