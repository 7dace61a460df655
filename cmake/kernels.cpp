// All that lazyllm::kernels consists of.
#include <lazyllm/quant/any_matrix.hpp>

LAZYLLM_MATMUL_KERNELS(template)
