// violates: lazyllm/text/judges_itself.hpp: text must not include eval (lazyllm/eval/score.hpp)
#pragma once
#include <lazyllm/eval/score.hpp>
