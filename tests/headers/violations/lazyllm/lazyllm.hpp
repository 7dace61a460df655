#pragma once
#include <lazyllm/lazy.hpp>
