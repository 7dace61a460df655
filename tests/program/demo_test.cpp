// The demo answers its question right, dense and pruned. Needs the real model and the document; says so without them.
#include <doctest/doctest.h>

#include "support/build_kind.hpp"
#include "support/real_model.hpp"
#include "support/run_program.hpp"

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace {

/// Where examples/fetch_document.sh puts the document; LAZYLLM_DOCUMENT names another one.
std::filesystem::path document_path() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
    return std::string(value == nullptr ? "" : value);
  };
  if (const std::string path = variable("LAZYLLM_DOCUMENT"); !path.empty()) return path;
  const std::string cache = variable("XDG_CACHE_HOME");
  return std::filesystem::path(cache.empty() ? variable("HOME") + "/.cache" : cache) / "lazyllm/genesis-1-5.txt";
}

}  // namespace

TEST_CASE("the demo finds the fact, dense and with LazyLLM") {
  const auto model = real_model_path();
  const std::filesystem::path document = document_path();
  if (!model) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  if (!std::filesystem::exists(document)) {
    MESSAGE("skipped: no document; examples/fetch_document.sh makes it, LAZYLLM_DOCUMENT names another");
    return;
  }
  if (lazyllm::test::sanitized_build) {
    MESSAGE("skipped: under a sanitizer 4,000 tokens take minutes");
    return;
  }
  const auto result = lazyllm::test::run_program(
      "lazyllm_demo", {"--model", model->string(), "--document", document.string(), "--rounds", "1", "--json"});
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const nlohmann::json report = nlohmann::json::parse(result.out);
  CHECK(report["prompt_tokens"] > 3500);
  CHECK(report["dense"]["right"] == true);
  CHECK(report["lazy"]["right"] == true);
  CHECK(report["dense"]["rows_computed"] == report["rows_dense"]);
  CHECK(report["lazy"]["rows_computed"].get<double>() < 0.75 * report["rows_dense"].get<double>());
}

TEST_CASE("the demo's wrong usage ends with status 2, a missing file with status 1") {
  CHECK(lazyllm::test::run_program("lazyllm_demo", {}).status == 2);
  CHECK(lazyllm::test::run_program("lazyllm_demo", {"-m", "a", "-d", "b", "--schedule", "x"}).status == 2);
  CHECK(lazyllm::test::run_program("lazyllm_demo", {"-m", "missing", "-d", "missing"}).status == 1);
}
