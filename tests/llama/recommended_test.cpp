#include <lazyllm/llama/recommended.hpp>

#include <doctest/doctest.h>

#include <cstddef>

using namespace lazyllm;

TEST_CASE("The recommended schedule of 30 layers is the measured one") {
  LlamaConfig config;
  config.layers = 30;
  CHECK(recommended_schedule(config) == parse_schedule("18:1024,21:256"));
}

TEST_CASE("The recommended schedule fits models of any depth") {
  for (std::size_t layers = 1; layers <= 130; ++layers) {
    LlamaConfig config;
    config.layers = layers;
    CHECK_NOTHROW(recommended_schedule(config).check(layers, 1));
    CHECK(recommended_schedule(config).entries().size() >= 1);
  }
}
