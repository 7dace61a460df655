// A packed weight matrix whose format is known at run time: for files that mix types.
// One branch per call, none per row.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/quant/bf16.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/matmul.hpp>
#include <lazyllm/quant/packed_matrix.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q4_k.hpp>
#include <lazyllm/quant/q5_0.hpp>
#include <lazyllm/quant/q5_k.hpp>
#include <lazyllm/quant/q6_k.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace lazyllm::inline v0 {

/// PackedMatrix of any format, with the same members.
class AnyMatrix {
 public:
  using Variant =
      std::variant<PackedMatrix<F32>, PackedMatrix<F16>, PackedMatrix<BF16>, PackedMatrix<Q4_0>, PackedMatrix<Q4_1>,
                   PackedMatrix<Q5_0>, PackedMatrix<Q8_0>, PackedMatrix<Q4_K>, PackedMatrix<Q5_K>, PackedMatrix<Q6_K>>;

  AnyMatrix() = default;
  template <PackableFormat F>
  AnyMatrix(PackedMatrix<F> matrix) : matrix_(std::move(matrix)) {}

  /// f(F{}) for the format F of this name, "Q4_1"; false where there is none.
  template <class Function>
  static bool with_format(std::string_view format, Function&& f) {
    return any_format([&]<PackableFormat F>(F) {
      if (format != F::name) return false;
      f(F{});
      return true;
    });
  }
  /// Whether there is a format of this name.
  [[nodiscard]] static bool supports(std::string_view format) {
    return with_format(format, [](auto) {});
  }
  /// The names of all formats, for messages: "F32, F16, ...".
  [[nodiscard]] static std::string format_names() {
    std::string names;
    any_format([&]<PackableFormat F>(F) {
      names += (names.empty() ? "" : ", ") + std::string(F::name);
      return false;
    });
    return names;
  }

  /// `format`: the name of one of the formats above. Throws Error for any other, and as PackedMatrix::pack.
  template <Executor E>
  [[nodiscard]] static AnyMatrix pack(std::string_view format, std::span<const std::byte> stored,
                                      std::size_t out_features, std::size_t in_features, E& executor) {
    AnyMatrix result;
    const bool known = with_format(format, [&]<PackableFormat F>(F) {
      result = PackedMatrix<F>::pack(stored, out_features, in_features, executor);
    });
    if (known) return result;
    throw Error(ErrorCode::unsupported, "weight format " + std::string(format) + ": supported are " + format_names());
  }

  /// f(const PackedMatrix<F>&) for the format F that is there.
  template <class Function>
  decltype(auto) visit(Function&& f) const {
    return std::visit(std::forward<Function>(f), matrix_);
  }

  [[nodiscard]] std::string_view format_name() const {
    return visit([](const auto& m) { return std::remove_cvref_t<decltype(m)>::Format::name; });
  }
  [[nodiscard]] std::size_t out_features() const {
    return visit([](const auto& m) { return m.out_features(); });
  }
  [[nodiscard]] std::size_t in_features() const {
    return visit([](const auto& m) { return m.in_features(); });
  }
  [[nodiscard]] std::size_t size_bytes() const {
    return visit([](const auto& m) { return m.size_bytes(); });
  }
  void dequantize_row(std::size_t n, std::span<float> out) const {
    visit([&](const auto& m) { m.dequantize_row(n, out); });
  }

 private:
  /// f(F{}) for each format until it returns true; whether it did.
  template <class Function>
  static bool any_format(Function&& f) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return (f(typename std::variant_alternative_t<I, Variant>::Format{}) || ...);
    }
    (std::make_index_sequence<std::variant_size_v<Variant>>{});
  }

  Variant matrix_;
};

namespace detail {
template <Executor E, MatmulEpilogue P>
MatmulJob matmul_job(Isa isa, Activations& x, const Product<AnyMatrix, P>& product, E& executor) {
  return product.weight.visit([&]<PackableFormat F>(const PackedMatrix<F>& m) {
    const Product<PackedMatrix<F>, P>& same = {m, product.out, product.epilogue};
    MatmulJob job = matmul_job(isa, x, same, executor);
    job.epilogue = AnyEpilogue(product.epilogue);  // which outlives the job
    return job;
  });
}
}  // namespace detail

}  // namespace lazyllm::inline v0

// The kernels of all formats and ISAs can be compiled once for a program of several sources: define
// LAZYLLM_EXTERN_KERNELS for all of them, and let one say LAZYLLM_MATMUL_KERNELS(template). In CMake, lazyllm::kernels
// does both. Without it every source that multiplies compiles its own copy.
#define LAZYLLM_MATMUL_KERNEL(how, isa, Format)                                                    \
  how void lazyllm::detail::run_matmul_items<                                                      \
      lazyllm::detail::TileKernel<lazyllm::Isa::isa, lazyllm::Format::Panel>,                      \
      lazyllm::detail::MatmulOperand<lazyllm::Isa::isa, lazyllm::Format::Panel>, lazyllm::Format>( \
      const lazyllm::detail::MatmulJob&, std::size_t, std::size_t);
#if defined(__x86_64__)
#define LAZYLLM_MATMUL_KERNELS_OF(how, Format)   \
  LAZYLLM_MATMUL_KERNEL(how, portable, Format)   \
  LAZYLLM_MATMUL_KERNEL(how, avx2, Format)       \
  LAZYLLM_MATMUL_KERNEL(how, avxvnni, Format)    \
  LAZYLLM_MATMUL_KERNEL(how, avx512vnni, Format) \
  LAZYLLM_MATMUL_KERNEL(how, amx, Format)
#elif defined(__aarch64__)
#define LAZYLLM_MATMUL_KERNELS_OF(how, Format) \
  LAZYLLM_MATMUL_KERNEL(how, portable, Format) \
  LAZYLLM_MATMUL_KERNEL(how, neon, Format)
#else
#define LAZYLLM_MATMUL_KERNELS_OF(how, Format) LAZYLLM_MATMUL_KERNEL(how, portable, Format)
#endif
#define LAZYLLM_MATMUL_KERNELS(how)    \
  LAZYLLM_MATMUL_KERNELS_OF(how, F32)  \
  LAZYLLM_MATMUL_KERNELS_OF(how, F16)  \
  LAZYLLM_MATMUL_KERNELS_OF(how, BF16) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q4_0) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q4_1) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q5_0) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q8_0) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q4_K) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q5_K) \
  LAZYLLM_MATMUL_KERNELS_OF(how, Q6_K)
#if defined(LAZYLLM_EXTERN_KERNELS)
LAZYLLM_MATMUL_KERNELS(extern template)
#endif
