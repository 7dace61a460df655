// violates: lazyllm/prune/sibling.hpp: prune must not include cache (lazyllm/cache/aux_cache.hpp)
#pragma once
#include <lazyllm/cache/aux_cache.hpp>
