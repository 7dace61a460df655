// From the ISA as a value to the ISA as a type: one branch per call of a kernel, never per row.
#pragma once

#include <lazyllm/simd/isa.hpp>

#include <utility>

namespace lazyllm::inline v0 {

/// Calls f(IsaTag<isa>{}) and returns its result. Precondition: supports(isa).
template <class F>
decltype(auto) dispatch(Isa isa, F&& f) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::amx: return std::forward<F>(f)(IsaTag<Isa::amx>{});
    case Isa::avx512vnni: return std::forward<F>(f)(IsaTag<Isa::avx512vnni>{});
    case Isa::avx2: return std::forward<F>(f)(IsaTag<Isa::avx2>{});
    case Isa::portable: break;
  }
#else
  static_cast<void>(isa);
#endif
  return std::forward<F>(f)(IsaTag<Isa::portable>{});
}

/// The ISA whose float kernels `isa` uses: AMX adds only a matmul to AVX-512.
[[nodiscard]] constexpr Isa float_isa(Isa isa) { return isa == Isa::amx ? Isa::avx512vnni : isa; }

/// As dispatch, with the tag of float_isa(isa).
template <class F>
decltype(auto) dispatch_floats(Isa isa, F&& f) {
#if defined(__x86_64__)
  switch (float_isa(isa)) {
    case Isa::avx512vnni: return std::forward<F>(f)(IsaTag<Isa::avx512vnni>{});
    case Isa::avx2: return std::forward<F>(f)(IsaTag<Isa::avx2>{});
    default: break;
  }
#else
  static_cast<void>(isa);
#endif
  return std::forward<F>(f)(IsaTag<Isa::portable>{});
}

}  // namespace lazyllm::inline v0
