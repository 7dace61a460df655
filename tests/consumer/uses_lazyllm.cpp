// A consumer of lazyllm::lazyllm: Eigen, xsimd and threads come with the target.
#include <lazyllm/lazyllm.hpp>

#include <Eigen/Core>
#include <xsimd/xsimd.hpp>

#include <atomic>
#include <iostream>

int main() {
  lazyllm::ThreadPool pool(2);
  std::atomic<std::size_t> sum = 0;
  pool.parallel_for(100, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) sum += i;
  });
  std::cout << "lazyllm::lazyllm " << lazyllm::version << " on " << lazyllm::name(lazyllm::active_isa()) << ", Eigen "
            << EIGEN_WORLD_VERSION << '.' << EIGEN_MAJOR_VERSION << ", xsimd " << XSIMD_VERSION_MAJOR << '.'
            << XSIMD_VERSION_MINOR << '\n';
  return sum == 4950 ? 0 : 1;
}
