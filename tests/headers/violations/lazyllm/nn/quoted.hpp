// violates: lazyllm/nn/quoted.hpp: include without <>: #include "softmax.hpp"
#pragma once
#include "softmax.hpp"
