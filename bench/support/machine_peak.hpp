// What this machine can do at most, measured in the run that reports shares of it: dots of codes, float FMA, memory
// read. Products: the best of several short runs on all threads of the executor.
#pragma once

#include <lazyllm/core/large_pages.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/simd/amx_tiles.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace lazyllm::bench {

/// In units of 1e9 a second, over all threads. 0: not known for this ISA.
struct MachinePeak {
  double dot_gmacs = 0;  // of the products that matmul is made of: int8, with AMX bfloat16
  double float_gmacs = 0;
  double read_gb_per_s = 0;
};

// Every loop below keeps 12 independent chains of accumulators, enough to cover the latency of two pipes. The empty asm
// statements keep the compiler from merging the passes.
inline constexpr std::size_t peak_chains = 12;
inline constexpr std::size_t peak_passes = 20000;

inline double dot_macs(IsaTag<Isa::portable>, std::size_t) { return 0; }
inline double fma_macs(IsaTag<Isa::portable>, std::size_t) { return 0; }
inline double dot_macs(IsaTag<Isa::neon>, std::size_t) { return 0; }
inline double fma_macs(IsaTag<Isa::neon>, std::size_t) { return 0; }

/// Reads `bytes` (a multiple of 256 * Streams) of memory: Streams parts of it in turns, each line asked for
/// `prefetch_bytes` ahead.
template <std::size_t Streams, class AnyTag>
void read_memory(AnyTag, const std::byte* memory, std::size_t bytes, std::size_t) {
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i < bytes; i += sizeof sums) {
    std::uint64_t words[8];
    std::memcpy(words, memory + i, sizeof words);
    for (std::size_t j = 0; j < 8; ++j) sums[j] += words[j];
  }
  for (std::uint64_t& sum : sums) __asm__ volatile("" : "+r"(sum));
}

}  // namespace lazyllm::bench

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX2_BEGIN
namespace lazyllm::bench {

/// Multiply-adds done: a maddubs + madd + add sequence.
inline double dot_macs(IsaTag<Isa::avx2>, std::size_t passes) {
  __m256i sums[peak_chains];
  __m256i codes = _mm256_set1_epi8(3);
  const __m256i ones = _mm256_set1_epi16(1);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < peak_chains; ++i) sums[i] = _mm256_setzero_si256();
  for (std::size_t p = 0; p < passes; ++p) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < peak_chains; ++i) {
      __asm__ volatile("" : "+x"(codes));
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, codes), ones));
      __asm__ volatile("" : "+x"(sums[i]));
    }
  }
  return static_cast<double>(passes * peak_chains * 32);
}

inline double fma_macs(IsaTag<Isa::avx2>, std::size_t passes) {
  __m256 sums[peak_chains];
  const __m256 factor = _mm256_set1_ps(0.5f);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < peak_chains; ++i) sums[i] = factor;
  for (std::size_t p = 0; p < passes; ++p) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < peak_chains; ++i) {
      sums[i] = _mm256_fmadd_ps(factor, factor, sums[i]);
      __asm__ volatile("" : "+x"(sums[i]));
    }
  }
  return static_cast<double>(passes * peak_chains * 8);
}

template <std::size_t Streams>
inline void read_memory(IsaTag<Isa::avx2>, const std::byte* memory, std::size_t bytes, std::size_t prefetch_bytes) {
  __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (std::size_t i = 0; i < bytes / Streams; i += 256) {
    LAZYLLM_UNROLL
    for (std::size_t stream = 0; stream < Streams; ++stream) {
      const std::byte* p = memory + stream * (bytes / Streams) + i;
      LAZYLLM_UNROLL
      for (std::size_t line = 0; line < 4; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(p) + line * 64 + prefetch_bytes, _MM_HINT_T0);
      }
      LAZYLLM_UNROLL
      for (std::size_t j = 0; j < 8; ++j)
        sums[j % 4] = _mm256_or_si256(sums[j % 4], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + j * 32)));
    }
  }
  for (__m256i& sum : sums) __asm__ volatile("" : "+x"(sum));
}

}  // namespace lazyllm::bench
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVXVNNI_BEGIN
namespace lazyllm::bench {

inline double dot_macs(IsaTag<Isa::avxvnni>, std::size_t passes) {
  __m256i sums[peak_chains];
  const __m256i codes = _mm256_set1_epi8(3);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < peak_chains; ++i) sums[i] = _mm256_setzero_si256();
  for (std::size_t p = 0; p < passes; ++p) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < peak_chains; ++i) {
      sums[i] = _mm256_dpbusd_avx_epi32(sums[i], codes, codes);
      __asm__ volatile("" : "+x"(sums[i]));
    }
  }
  return static_cast<double>(passes * peak_chains * 32);
}

}  // namespace lazyllm::bench
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::bench {

inline double dot_macs(IsaTag<Isa::avx512vnni>, std::size_t passes) {
  __m512i sums[peak_chains];
  const __m512i codes = _mm512_set1_epi8(3);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < peak_chains; ++i) sums[i] = _mm512_setzero_si512();
  for (std::size_t p = 0; p < passes; ++p) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < peak_chains; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], codes, codes);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
  return static_cast<double>(passes * peak_chains * 64);
}

inline double fma_macs(IsaTag<Isa::avx512vnni>, std::size_t passes) {
  __m512 sums[peak_chains];
  const __m512 factor = _mm512_set1_ps(0.5f);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < peak_chains; ++i) sums[i] = factor;
  for (std::size_t p = 0; p < passes; ++p) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < peak_chains; ++i) {
      sums[i] = _mm512_fmadd_ps(factor, factor, sums[i]);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
  return static_cast<double>(passes * peak_chains * 16);
}

template <std::size_t Streams>
inline void read_memory(IsaTag<Isa::avx512vnni>, const std::byte* memory, std::size_t bytes,
                        std::size_t prefetch_bytes) {
  __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (std::size_t i = 0; i < bytes / Streams; i += 256) {
    LAZYLLM_UNROLL
    for (std::size_t stream = 0; stream < Streams; ++stream) {
      const std::byte* p = memory + stream * (bytes / Streams) + i;
      LAZYLLM_UNROLL
      for (std::size_t line = 0; line < 4; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(p) + line * 64 + prefetch_bytes, _MM_HINT_T0);
      }
      LAZYLLM_UNROLL
      for (std::size_t j = 0; j < 4; ++j) sums[j % 4] = _mm512_or_si512(sums[j % 4], _mm512_loadu_si512(p + j * 64));
    }
  }
  for (__m512i& sum : sums) __asm__ volatile("" : "+v"(sum));
}

}  // namespace lazyllm::bench
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AMX_BEGIN
namespace lazyllm::bench {

/// bfloat16 products of whole tiles; the four accumulators of the matmul.
inline double dot_macs(IsaTag<Isa::amx>, std::size_t passes) {
  using Tiles = lazyllm::detail::AmxTiles;
  const Tiles tiles(16);
  alignas(64) static constexpr std::uint16_t zeros[512] = {};
  Tiles::load<4>(zeros, 64);
  Tiles::load<5>(zeros, 64);
  Tiles::load<6>(zeros, 64);
  Tiles::load<7>(zeros, 64);
  for (std::size_t p = 0; p < passes; ++p) {
    Tiles::multiply<0, 4, 6>();
    Tiles::multiply<1, 4, 7>();
    Tiles::multiply<2, 5, 6>();
    Tiles::multiply<3, 5, 7>();
  }
  return static_cast<double>(passes) * 4 * 16 * 16 * 32;
}

}  // namespace lazyllm::bench
LAZYLLM_TARGET_END

#endif

namespace lazyllm::bench {

/// The rates of `work`, which returns how much it did, in 1e9 a second, ascending.
template <class Work>
std::vector<double> sorted_rates(std::size_t repeats, Work&& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> rates(repeats);
  for (double& rate : rates) {
    const auto start = Clock::now();
    const double done = work();
    rate = done / std::chrono::duration<double>(Clock::now() - start).count() * 1e-9;
  }
  std::sort(rates.begin(), rates.end());
  return rates;
}

template <class Work>
double best_rate(std::size_t repeats, Work&& work) {
  return sorted_rates(repeats, work).back();
}

/// Runs `share(index)` on all threads, several times more often than there are threads, and sums what they return.
template <Executor E, class Share>
double on_all_threads(E& executor, Share&& share) {
  std::atomic<std::uint64_t> total{0};
  executor.parallel_for(8 * executor.concurrency(), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) total += static_cast<std::uint64_t>(share(i));
  });
  return static_cast<double>(total.load());
}

/// Float multiply-adds of `executor`, in 1e9 a second. 0: not known for this ISA.
template <Executor E>
[[nodiscard]] double measure_float_peak(Isa isa, E& executor) {
  return dispatch_float(isa, [&](auto tag) {
    return best_rate(20,
                     [&] { return on_all_threads(executor, [&](std::size_t) { return fma_macs(tag, peak_passes); }); });
  });
}

/// The same on `threads` threads, with the ISA of this process.
[[nodiscard]] inline double fma_peak_gmacs(std::size_t threads) {
  ThreadPool executor(threads);
  return measure_float_peak(active_isa(), executor);
}

/// GB/s of reading memory: the median of the best of several patterns (a machine that others share has moments of far
/// more bandwidth), with the widest loads that `isa` has. Takes 0.5 GB per thread
/// while it lasts: more than caches hold.
template <Executor E>
[[nodiscard]] double measure_read_bandwidth(Isa isa, E& executor) {
  constexpr std::size_t part_bytes = std::size_t{64} << 20;
  const std::size_t parts = 8 * executor.concurrency();
  LargePageBuffer memory(part_bytes * parts);  // as weights are
  executor.parallel_for(parts, [&](std::size_t begin, std::size_t end) {
    std::memset(memory.data() + begin * part_bytes, 1, (end - begin) * part_bytes);
  });
  return dispatch_float(isa, [&](auto tag) {
    const auto rate = [&]<std::size_t Streams>(std::integral_constant<std::size_t, Streams>, std::size_t prefetch) {
      const std::vector<double> rates = sorted_rates(5, [&] {
        return on_all_threads(executor, [&](std::size_t part) {
          read_memory<Streams>(tag, memory.data() + part * part_bytes, part_bytes, prefetch);
          return static_cast<double>(part_bytes);
        });
      });
      return rates[rates.size() / 2];
    };
    double best = 0;
    for (const std::size_t prefetch : {std::size_t{0}, std::size_t{1024}, std::size_t{4096}}) {
      best = std::max(best, rate(std::integral_constant<std::size_t, 1>(), prefetch));
      best = std::max(best, rate(std::integral_constant<std::size_t, 4>(), prefetch));
    }
    return best;
  });
}

/// The same on `threads` threads.
[[nodiscard]] inline double read_bandwidth_gbs(std::size_t threads) {
  ThreadPool executor(threads);
  return measure_read_bandwidth(active_isa(), executor);
}

/// Products of `executor` with what matmul is made of, in 1e9 a second. 0: not known for this ISA.
template <Executor E>
[[nodiscard]] double measure_dot_peak(Isa isa, E& executor) {
  return dispatch(isa, [&](auto tag) {
    return best_rate(20,
                     [&] { return on_all_threads(executor, [&](std::size_t) { return dot_macs(tag, peak_passes); }); });
  });
}

/// All three. Takes about a second.
template <Executor E>
[[nodiscard]] MachinePeak measure_machine_peak(Isa isa, E& executor) {
  return {.dot_gmacs = measure_dot_peak(isa, executor),
          .float_gmacs = measure_float_peak(isa, executor),
          .read_gb_per_s = measure_read_bandwidth(isa, executor)};
}

}  // namespace lazyllm::bench
