// A packed weight matrix whose format is known at run time: for files that mix types.
// One branch per call, none per row.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/matmul.hpp>
#include <lazyllm/quant/packed_matrix.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
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
      std::variant<PackedMatrix<F32>, PackedMatrix<F16>, PackedMatrix<Q4_0>, PackedMatrix<Q4_1>, PackedMatrix<Q8_0>>;

  AnyMatrix() = default;
  template <PackableFormat F>
  AnyMatrix(PackedMatrix<F> matrix) : matrix_(std::move(matrix)) {}

  /// Whether there is a format of this name, "Q4_1".
  [[nodiscard]] static bool supports(std::string_view format) {
    return each_name([&](std::string_view name) { return name == format; });
  }
  /// The names of all formats, for messages: "F32, F16, ...".
  [[nodiscard]] static std::string format_names() {
    std::string names;
    each_name([&](std::string_view name) {
      names += (names.empty() ? "" : ", ") + std::string(name);
      return false;
    });
    return names;
  }

  /// `format`: the name of one of the formats above. Throws Error for any other, and as PackedMatrix::pack.
  template <Executor E>
  [[nodiscard]] static AnyMatrix pack(std::string_view format, std::span<const std::byte> stored,
                                      std::size_t out_features, std::size_t in_features, E& executor) {
    return pack_as<0>(format, stored, out_features, in_features, executor);
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
  template <std::size_t I, class E>
  static AnyMatrix pack_as(std::string_view format, std::span<const std::byte> stored, std::size_t out_features,
                           std::size_t in_features, E& executor) {
    if constexpr (I < std::variant_size_v<Variant>) {
      using Matrix = std::variant_alternative_t<I, Variant>;
      if (format == Matrix::Format::name) return Matrix::pack(stored, out_features, in_features, executor);
      return pack_as<I + 1>(format, stored, out_features, in_features, executor);
    } else {
      throw Error(ErrorCode::unsupported, "weight format " + std::string(format) + ": supported are " + format_names());
    }
  }

  /// f(name) for each format until it returns true.
  template <class Function>
  static bool each_name(Function f) {
    return []<std::size_t... I>(Function & g, std::index_sequence<I...>) {
      return (g(std::variant_alternative_t<I, Variant>::Format::name) || ...);
    }
    (f, std::make_index_sequence<std::variant_size_v<Variant>>{});
  }

  Variant matrix_;
};

namespace detail {
template <Executor E, MatmulEpilogue P>
MatmulJob matmul_job(Isa isa, Activations& x, const Product<AnyMatrix, P>& product, E& executor) {
  return product.weight.visit([&]<PackableFormat F>(const PackedMatrix<F>& m) {
    const Product<PackedMatrix<F>, P>& same = {m, product.out, product.epilogue};
    MatmulJob job = matmul_job(isa, x, same, executor);
    job.epilogue = &product.epilogue;  // which outlives the job
    return job;
  });
}
}  // namespace detail

}  // namespace lazyllm::inline v0
