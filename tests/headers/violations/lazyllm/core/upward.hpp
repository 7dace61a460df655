// violates: lazyllm/core/upward.hpp: core must not include graph (lazyllm/graph/needs_threads.hpp)
#pragma once
#include <lazyllm/graph/needs_threads.hpp>
