#include <doctest/doctest.h>

#include <lazyllm/core/error.hpp>

#include <stdexcept>
#include <string>
#include <type_traits>

static_assert(std::is_base_of_v<std::runtime_error, lazyllm::Error>);

TEST_CASE("an Error carries its code and message and is caught as a runtime_error") {
  using lazyllm::ErrorCode;
  for (const ErrorCode code :
       {ErrorCode::io, ErrorCode::malformed, ErrorCode::unsupported, ErrorCode::invalid_argument, ErrorCode::limit}) {
    try {
      throw lazyllm::Error(code, "tensor a: 5 bytes exceed 4");
    } catch (const std::runtime_error& caught) {
      CHECK(std::string(caught.what()) == "tensor a: 5 bytes exceed 4");
      const auto* error = dynamic_cast<const lazyllm::Error*>(&caught);
      REQUIRE(error != nullptr);
      CHECK(error->code() == code);
    }
  }
}
