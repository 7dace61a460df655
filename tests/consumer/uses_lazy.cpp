// A consumer of lazyllm::lazy.
#include <lazyllm/lazy.hpp>

#include <iostream>

int main() {
  std::cout << "lazyllm::lazy " << lazyllm::version << '\n';
  return lazyllm::version.empty() ? 1 : 0;
}
