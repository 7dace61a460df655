// The instruction sets that have kernels of their own, and which of them this process uses.
// Read once from CPUID and XGETBV, or from the kernel's HWCAP; LAZYLLM_ISA=<a name below> forces one.
// Every build lists all of them; those of another architecture are never supported.
#pragma once

#include <lazyllm/core/error.hpp>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lazyllm::inline v0 {

/// Ascending by preference. `portable` is what the build's own flags allow and runs everywhere.
enum class Isa { portable, avx2, avxvnni, avx512vnni, avx512bf16, amx, neon };

/// An ISA as a type, for kernels that are chosen at compile time: `IsaTag<Isa::avx2>`.
template <Isa I>
using IsaTag = std::integral_constant<Isa, I>;

inline constexpr std::array all_isas{Isa::portable,   Isa::avx2, Isa::avxvnni, Isa::avx512vnni,
                                     Isa::avx512bf16, Isa::amx,  Isa::neon};

/// The name that LAZYLLM_ISA takes and that reports show.
[[nodiscard]] constexpr std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::portable: return "portable";
    case Isa::avx2: return "avx2";
    case Isa::avxvnni: return "avxvnni";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
  }
  return "?";
}

/// The ISA whose integer kernels `isa` uses (matmul, quantisation): an ISA that only adds an attention has none of its
/// own.
[[nodiscard]] constexpr Isa integer_isa(Isa isa) { return isa == Isa::avx512bf16 ? Isa::avx512vnni : isa; }

/// The ISA whose float kernels `isa` uses: an ISA that only adds a matmul or an attention has none of its own.
[[nodiscard]] constexpr Isa float_isa(Isa isa) {
  switch (isa) {
    case Isa::avxvnni: return Isa::avx2;
    case Isa::avx512bf16:
    case Isa::amx: return Isa::avx512vnni;
    default: return isa;
  }
}

namespace detail {

/// Feature bits of this CPU that the operating system has also enabled.
struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA and F16C
  bool avxvnni = false;     // the same and AVX-VNNI
  bool avx512vnni = false;  // AVX-512 F, DQ, BW, VL and VNNI
  bool avx512bf16 = false;  // the same and BF16
  bool amx = false;         // the same and tile registers with bfloat16 products
  bool neon = false;        // AArch64 with the dot product extension
  bool amd = false;         // made by AMD: other execution ports than Intel's
};

#if defined(__x86_64__)
/// Linux gives a process the tile registers only when it asks for them.
[[nodiscard]] inline bool allow_tile_registers() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

[[nodiscard]] inline CpuFeatures detect_cpu_features() {
  CpuFeatures features;
#if defined(__x86_64__)
  const auto bit = [](unsigned int value, int index) { return ((value >> index) & 1u) != 0; };
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return features;
  features.amd = b == 0x68747541u && d == 0x69746e65u && c == 0x444d4163u;  // "AuthenticAMD"
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !bit(c, 27)) return features;  // no OSXSAVE
  const bool fma_f16c = bit(c, 12) && bit(c, 29);
  unsigned int low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const bool os_avx = (low & 0x6u) == 0x6u;
  const bool os_avx512 = (low & 0xe6u) == 0xe6u;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  features.avx2 = os_avx && fma_f16c && bit(b, 5);
  features.avx512vnni =
      features.avx2 && os_avx512 && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 11);
  const bool tiles = (low & 0x60000u) == 0x60000u && bit(d, 22) && bit(d, 24);
  if (!features.avx2 || a < 1 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return features;
  features.avxvnni = bit(a, 4);
  features.avx512bf16 = features.avx512vnni && bit(a, 5);
  features.amx = features.avx512bf16 && tiles && allow_tile_registers();
#elif defined(__aarch64__) && defined(__linux__)
  features.neon = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
  return features;
}

[[nodiscard]] inline const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect_cpu_features();
  return features;
}

}  // namespace detail

/// Whether this CPU and operating system run `isa`.
[[nodiscard]] inline bool supports(Isa isa) {
  const detail::CpuFeatures& features = detail::cpu_features();
  switch (isa) {
    case Isa::portable: return true;
    case Isa::avx2: return features.avx2;
    case Isa::avxvnni: return features.avxvnni;
    case Isa::avx512vnni: return features.avx512vnni;
    case Isa::avx512bf16: return features.avx512bf16;
    case Isa::amx: return features.amx;
    case Isa::neon: return features.neon;
  }
  return false;
}

/// The ISA that `requested` names (a value of LAZYLLM_ISA), or without one the best that this CPU has.
/// Throws Error for an unknown name and for an ISA that this CPU lacks.
[[nodiscard]] inline Isa choose_isa(std::optional<std::string_view> requested) {
  std::string known;
  for (const Isa isa : all_isas) {
    if (!supports(isa)) continue;
    if (requested == name(isa)) return isa;
    known += (known.empty() ? "" : ", ") + std::string(name(isa));
  }
  if (requested) {
    throw Error(ErrorCode::unsupported, "LAZYLLM_ISA=" + std::string(*requested) + ": this CPU supports " + known);
  }
  Isa best = Isa::portable;
  for (const Isa isa : all_isas) best = supports(isa) ? isa : best;
  return best;
}

/// The ISA of this process: chosen at the first call, never changed after it.
[[nodiscard]] inline Isa active_isa() {
  static const Isa isa = [] {
    const char* forced = std::getenv("LAZYLLM_ISA");
    return choose_isa(forced != nullptr && *forced != '\0' ? std::optional<std::string_view>(forced) : std::nullopt);
  }();
  return isa;
}

}  // namespace lazyllm::inline v0
