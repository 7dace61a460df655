// violates: lazyllm/lazy.hpp: reaches lazyllm/parallel/beside.hpp
#pragma once
#include <lazyllm/parallel/beside.hpp>
