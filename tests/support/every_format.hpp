// The weight formats as argument lists of TEST_CASE_TEMPLATE.
#pragma once

#include <lazyllm/quant/bf16.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q4_k.hpp>
#include <lazyllm/quant/q5_0.hpp>
#include <lazyllm/quant/q5_k.hpp>
#include <lazyllm/quant/q6_k.hpp>
#include <lazyllm/quant/q8_0.hpp>

#define LAZYLLM_TEST_CODE_FORMATS Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K
#define LAZYLLM_TEST_FORMATS LAZYLLM_TEST_CODE_FORMATS, F16, BF16, F32
