#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/activations.hpp>

#include <doctest/doctest.h>

#include <vector>

using namespace lazyllm;

TEST_CASE("Activations quantise once until the next assign") {
  std::vector<float> values(2 * 32, 1.0f);
  SerialExecutor executor;
  Activations x(ConstRows(values.data(), 2, 32));
  CHECK(x.as<QuantizedRows>(executor).codes(1, 0)[5] == 127);
  values[32 + 5] = 0.0f;
  CHECK(x.as<QuantizedRows>(executor).codes(1, 0)[5] == 127);
  x.assign(ConstRows(values.data(), 2, 32));
  CHECK(x.as<QuantizedRows>(executor).codes(1, 0)[5] == 0);
}

TEST_CASE("Activations keep their storage for inputs that are not larger") {
  std::vector<float> values(8 * 64, 1.0f);
  SerialExecutor executor;
  Activations x(ConstRows(values.data(), 8, 64));
  const std::int8_t* const storage = x.as<QuantizedRows>(executor).codes(0, 0);
  x.assign(ConstRows(values.data(), 3, 32));
  CHECK(x.as<QuantizedRows>(executor).codes(0, 0) == storage);
  CHECK(x.as<QuantizedRows>(executor).rows() == 3);
  x.assign(ConstRows(values.data(), 8, 64));
  CHECK(x.as<QuantizedRows>(executor).codes(0, 0) == storage);
}
