// violates: lazyllm/simd/forgotten.hpp: includes lazyllm/simd/gone.hpp, which does not exist
#pragma once
#include <lazyllm/simd/gone.hpp>
