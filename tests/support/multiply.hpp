// matmul on one ISA: as the library chooses it, or in the program of tests/shims, on an ISA that this CPU lacks.
#pragma once

#include <lazyllm/quant/matmul.hpp>

#include <span>

namespace lazyllm::test {

/// Like matmul; precondition: for_every_isa gave `isa`.
template <class M, Executor E, MatmulEpilogue P = Store>
void multiply(Isa isa, Activations& x, const M& w, Rows out, E& executor, const P& epilogue = {}) {
#ifdef LAZYLLM_TEST_SHIMS
  const lazyllm::Product<M, P> product{w, out, epilogue};
  const detail::MatmulJob job = isa == Isa::amx ? detail::matmul_job_on<Isa::amx>(x, product, executor)
                                                : detail::matmul_job_on<Isa::avxvnni>(x, product, executor);
  detail::run_matmul_jobs(std::span(&job, 1), executor);
#else
  matmul(isa, x, w, out, executor, epilogue);
#endif
}

}  // namespace lazyllm::test
