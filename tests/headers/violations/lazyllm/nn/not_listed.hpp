// violates: lazyllm/lazyllm.hpp: does not include lazyllm/nn/not_listed.hpp
#pragma once
