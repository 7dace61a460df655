// From the ISA as a value to the ISA as a type: one branch per call of a kernel, never per row.
#pragma once

#include <lazyllm/simd/isa.hpp>

#include <utility>

namespace lazyllm::inline v0 {

/// For integer kernels: calls f(IsaTag<integer_isa(isa)>{}) and returns its result. Precondition: supports(isa).
template <class F>
decltype(auto) dispatch(Isa isa, F&& f) {
  switch (integer_isa(isa)) {
#if defined(__x86_64__)
    case Isa::amx: return std::forward<F>(f)(IsaTag<Isa::amx>{});
    case Isa::avx512vnni: return std::forward<F>(f)(IsaTag<Isa::avx512vnni>{});
    case Isa::avxvnni: return std::forward<F>(f)(IsaTag<Isa::avxvnni>{});
    case Isa::avx2: return std::forward<F>(f)(IsaTag<Isa::avx2>{});
#elif defined(__aarch64__)
    case Isa::neon: return std::forward<F>(f)(IsaTag<Isa::neon>{});
#endif
    default: return std::forward<F>(f)(IsaTag<Isa::portable>{});
  }
}

/// For float kernels: calls f(IsaTag<float_isa(isa)>{}) and returns its result. Precondition: supports(isa).
template <class F>
decltype(auto) dispatch_float(Isa isa, F&& f) {
  switch (float_isa(isa)) {
#if defined(__x86_64__)
    case Isa::avx512vnni: return std::forward<F>(f)(IsaTag<Isa::avx512vnni>{});
    case Isa::avx2: return std::forward<F>(f)(IsaTag<Isa::avx2>{});
#elif defined(__aarch64__)
    case Isa::neon: return std::forward<F>(f)(IsaTag<Isa::neon>{});
#endif
    default: return std::forward<F>(f)(IsaTag<Isa::portable>{});
  }
}

}  // namespace lazyllm::inline v0
