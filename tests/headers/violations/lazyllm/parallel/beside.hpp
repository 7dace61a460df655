// violates: lazyllm/parallel/beside.hpp: parallel must not include simd (lazyllm/simd/forgotten.hpp)
#pragma once
#  include <lazyllm/simd/forgotten.hpp>
