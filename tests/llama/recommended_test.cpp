#include <lazyllm/llama/recommended.hpp>

#include <doctest/doctest.h>

#include <cstddef>

using namespace lazyllm;

namespace {

LlamaConfig smollm2_135m() {
  LlamaConfig config;
  config.layers = 30;
  config.hidden_dim = 576;
  config.heads = 9;
  config.kv_heads = 3;
  return config;
}

}  // namespace

TEST_CASE("The recommended schedules of the measured model are the measured ones") {
  CHECK(recommended_schedule(smollm2_135m(), Preset::safe) ==
        parse_schedule("7:0.7min384/max^24max~15,17:0.4min320,21:0.25min256,first4,last32"));
  CHECK(recommended_schedule(smollm2_135m()) ==
        parse_schedule("7:0.3min256/max^24max~15,17:0.25min160,21:0.15min128,first4,last32"));
  CHECK(recommended_schedule(smollm2_135m(), Preset::fast) ==
        parse_schedule("7:0.2min192/max^24max~15,17:0.15min128,21:0.1min96,first4,last32"));
}

TEST_CASE("A model on which nothing was measured gets the safe rule, whatever was asked for") {
  LlamaConfig config = smollm2_135m();
  config.layers = 32;
  CHECK_FALSE(has_measured_presets(config));
  for (const Preset preset : {Preset::safe, Preset::balanced, Preset::fast}) {
    CHECK(recommended_schedule(config, preset) == parse_schedule("19:1024,22:256"));
  }
}

TEST_CASE("The recommended schedule fits models of any depth") {
  for (std::size_t layers = 1; layers <= 130; ++layers) {
    LlamaConfig config;
    config.layers = layers;
    CHECK_NOTHROW(recommended_schedule(config).check(layers, 1));
    CHECK(recommended_schedule(config).entries().size() >= 1);
  }
}
