// violates: lazyllm/lazy.hpp: reaches <xsimd/xsimd.hpp>, which is not of the standard library
#pragma once
#include <xsimd/xsimd.hpp>
