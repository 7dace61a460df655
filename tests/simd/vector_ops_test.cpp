#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <lazyllm/simd/vector_ops.hpp>
#include <type_traits>

using namespace lazyllm;

// The per-ISA types are tested through the kernels of tests/nn; the portable one, which wraps xsimd, here.
using V = detail::PortableFloats<xsimd::default_arch>;
static_assert(std::is_same_v<V, detail::Floats<Isa::portable>>);

namespace {

using Lanes = std::array<float, V::width>;

Lanes lanes(V::Vec v) {
  Lanes values;
  V::store(values.data(), v);
  return values;
}

Lanes iota(float first, float step) {
  Lanes values;
  for (std::size_t i = 0; i < V::width; ++i) values[i] = first + step * static_cast<float>(i);
  return values;
}

}  // namespace

TEST_CASE("PortableFloats: every operation equals the plain one, lane by lane") {
  const Lanes a = iota(-1.75f, 1.125f);
  const Lanes b = iota(3.0f, -0.5f);
  const V::Vec x = V::load(a.data());
  const V::Vec y = V::load(b.data());
  for (std::size_t i = 0; i < V::width; ++i) {
    CAPTURE(i);
    CHECK(lanes(V::add(x, y))[i] == a[i] + b[i]);
    CHECK(lanes(V::sub(x, y))[i] == a[i] - b[i]);
    CHECK(lanes(V::mul(x, y))[i] == a[i] * b[i]);
    CHECK(lanes(V::div(x, y))[i] == a[i] / b[i]);
    CHECK(lanes(V::max(x, y))[i] == std::fmax(a[i], b[i]));
    CHECK(lanes(V::fma(x, y, x))[i] == a[i] * b[i] + a[i]);  // eighths: exact
    CHECK(lanes(V::fnma(x, y, x))[i] == a[i] - a[i] * b[i]);
    CHECK(lanes(V::round(x))[i] == std::nearbyint(a[i]));
    CHECK(lanes(V::zero_below(x, 0.5f, y))[i] == (a[i] < 0.5f ? 0.0f : b[i]));
    CHECK(lanes(V::infinite_above(x, 0.5f, y))[i] == (a[i] > 0.5f ? HUGE_VALF : b[i]));
    CHECK(lanes(V::swap_lanes<1>(x))[i] == a[i ^ 1u]);
    CHECK(lanes(V::swap_lanes<V::width / 2>(x))[i] == a[i ^ (V::width / 2)]);
    CHECK(lanes(V::set1(2.5f))[i] == 2.5f);
  }
}

TEST_CASE("PortableFloats rounds ties to even") {
  CHECK(lanes(V::round(V::set1(0.5f)))[0] == 0.0f);
  CHECK(lanes(V::round(V::set1(1.5f)))[0] == 2.0f);
  CHECK(lanes(V::round(V::set1(-2.5f)))[0] == -2.0f);
}

TEST_CASE("PortableFloats scales by every power of two that a float result allows") {
  for (int n = -126; n <= 127; ++n) {
    CHECK(lanes(V::scale_by_power_of_two(V::set1(1.25f), V::set1(static_cast<float>(n))))[0] == std::ldexp(1.25f, n));
  }
  CHECK(lanes(V::scale_by_power_of_two(V::set1(0.75f), V::set1(128.0f)))[0] == std::ldexp(0.75f, 128));
}

TEST_CASE("PortableFloats reduces all lanes") {
  const Lanes a = iota(2.0f, 1.0f);
  float sum = 0.0f;
  for (const float value : a) sum += value;
  CHECK(V::reduce_add(V::load(a.data())) == sum);
  CHECK(V::reduce_max(V::load(a.data())) == a.back());
}

TEST_CASE("PortableFloats loads and stores the first lanes only") {
  for (std::size_t n = 0; n <= V::width; ++n) {
    const Lanes a = iota(1.0f, 1.0f);
    const Lanes loaded = lanes(V::load_first(a.data(), n));
    Lanes stored = iota(-1.0f, -1.0f);
    V::store_first(stored.data(), V::load(a.data()), n);
    for (std::size_t i = 0; i < V::width; ++i) {
      CHECK(loaded[i] == (i < n ? a[i] : 0.0f));
      CHECK(stored[i] == (i < n ? a[i] : -a[i]));
    }
  }
}

TEST_CASE("PortableFloats transposes a square") {
  constexpr std::size_t w = V::width;
  std::array<Lanes, w> rows;
  std::array<const float*, w> pointers;
  for (std::size_t j = 0; j < w; ++j) {
    rows[j] = iota(static_cast<float>(100 * j), 1.0f);
    pointers[j] = rows[j].data();
  }
  std::array<float, w*(w + 3)> out{};
  V::transpose(pointers.data(), 0, out.data(), w + 3);
  for (std::size_t i = 0; i < w; ++i) {
    for (std::size_t j = 0; j < w; ++j) CHECK(out[i * (w + 3) + j] == rows[j][i]);
  }
}
