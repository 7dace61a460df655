// Softmax of one row, in place.
// The maximum is subtracted first; the exponential is nn/kernels/vector_exp.hpp's (relative error at most 2e-7).
#pragma once

#include <lazyllm/nn/kernels/elementwise.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <span>

namespace lazyllm::inline v0 {

/// x[i] = e^(x[i] - max x) / sum over j of e^(x[j] - max x). At least one element must be finite, none +infinity or NaN
/// (else the result is NaN); -infinity gives exactly 0, and so does anything 87.33 below the maximum. No allocation.
inline void softmax(std::span<float> x, Isa isa = active_isa()) {
  if (x.empty()) return;
  dispatch_float(isa,
                 [&](auto tag) { detail::softmax_row(detail::Floats<decltype(tag)::value>{}, x.data(), x.size()); });
}

}  // namespace lazyllm::inline v0
