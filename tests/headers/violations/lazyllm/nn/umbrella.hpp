// violates: lazyllm/nn/umbrella.hpp: includes the umbrella lazyllm/lazy.hpp
#pragma once
#include <lazyllm/lazy.hpp>
