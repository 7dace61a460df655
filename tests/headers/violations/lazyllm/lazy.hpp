#pragma once
#include <lazyllm/cache/aux_cache.hpp>
#include <lazyllm/graph/needs_threads.hpp>
