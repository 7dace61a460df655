// violates: lazyllm/nn/softmax.hpp: no #pragma once
#include <vector>
