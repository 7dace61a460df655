// `lazyllm perplexity` from the outside.
#include <doctest/doctest.h>

#include "support/model_directory.hpp"
#include "support/run_program.hpp"
#include "support/tiny_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

using namespace lazyllm::test;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;

/// A directory with the tiny model and a text of 200 characters, a token each.
struct Fixture : ModelDirectory {
  Fixture() {
    std::ofstream text(file("text"));
    for (int i = 0; i < 200; ++i) text << static_cast<char>('a' + (i * i) % 26);
  }
  [[nodiscard]] ProgramResult perplexity(const Arguments& more) const {
    return run("perplexity", {"-f", file("text"), "-c", "60"}, more);
  }
  [[nodiscard]] Json json(Arguments more) const {
    more.emplace_back("--json");
    const ProgramResult result = perplexity(more);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    REQUIRE(std::ranges::count(result.out, '\n') == 1);
    return Json::parse(result.out);
  }
};

}  // namespace

TEST_CASE("perplexity scores the second half of each whole chunk") {
  const Fixture f;
  const Json all = f.json({});
  CHECK(all["chunks"] == 3);
  CHECK(all["chunk_tokens"] == 60);
  CHECK(all["scored_tokens"] == 3 * 29);
  CHECK(all["perplexity"] > 1);
  CHECK(all["perplexity_error"] > 0);
  CHECK_FALSE(all.contains("kl_mean"));
  CHECK(f.json({"--chunks", "1"})["scored_tokens"] == 29);
  CHECK(f.json({"-t", "2"})["perplexity"] == f.json({"-t", "1"})["perplexity"]);
}

TEST_CASE("a schedule that keeps everything has the dense perplexity exactly, and no divergence") {
  const Fixture f;
  const Json dense = f.json({});
  for (const char* schedule : {"none", "1:1.0", "0:1.0/max~3"}) {
    const Json kept = f.json({"--prune", schedule, "--kl-divergence"});
    CHECK(kept["perplexity"] == dense["perplexity"]);
    CHECK(kept["dense_perplexity"] == dense["perplexity"]);
    CHECK(kept["perplexity_ratio"] == 1);
    CHECK(kept["kl_mean"] == 0);
    CHECK(kept["kl_p99"] == 0);
    CHECK(kept["top1_agreement"] == 1);
  }
}

TEST_CASE("pruning shows in the divergence, and the ratio is that of the perplexities") {
  const Fixture f;
  const Json pruned = f.json({"--prune", "0:0.1", "--kl-divergence"});
  CHECK(pruned["kl_mean"] > 0);
  CHECK(pruned["kl_p99"] >= pruned["kl_median"]);
  CHECK(pruned["perplexity_ratio"].get<double>() ==
        doctest::Approx(pruned["perplexity"].get<double>() / pruned["dense_perplexity"].get<double>()));
  CHECK(f.json({"--prune", "0:0.1"})["perplexity"] == pruned["perplexity"]);
  CHECK(f.json({"--prune", "0:0.1", "--dense-below", "61"})["perplexity"] == pruned["dense_perplexity"]);

  const ProgramResult text = f.perplexity({"--prune", "0:0.1", "--kl-divergence"});
  CHECK(text.out.find("3 chunks of 60 tokens, 87 tokens scored\ndense perplexity: ") != std::string::npos);
  CHECK(text.out.find("\n0:0.1 perplexity: ") != std::string::npos);
  CHECK(text.out.find("\nKL(dense || pruned): mean ") != std::string::npos);
}

TEST_CASE("perplexity refuses wrong usage with status 2 and wrong files with status 1") {
  const Fixture f;
  CHECK(run_program("lazyllm", {"perplexity", "--help"}).status == 0);
  CHECK(run_program("lazyllm", {"perplexity", "-m", f.file("model.gguf")}).status == 2);
  CHECK(f.perplexity({"--chunks", "0"}).status == 2);
  CHECK(f.perplexity({"--prune", "much"}).status == 2);
  const std::string model = f.file("model.gguf");
  struct Case {
    Arguments arguments;
    std::string named;
  };
  for (const Case& wrong : std::initializer_list<Case>{
           {{"-f", f.file("missing")}, "missing"},
           {{"-f", f.file("text"), "-c", "201"}, "the text has 200 tokens"},
           {{"-f", f.file("text"), "-c", std::to_string(tiny_context + 1)}, "513"},
           {{"-f", f.file("text"), "-c", "60", "--prune", "4:0.5"}, "layer 4"},
       }) {
    CAPTURE(wrong.named);
    Arguments arguments = {"perplexity", "-m", model};
    arguments.insert(arguments.end(), wrong.arguments.begin(), wrong.arguments.end());
    const ProgramResult result = run_program("lazyllm", arguments);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.find(wrong.named) != std::string::npos);
    CHECK(std::ranges::count(result.err, '\n') == 1);
  }
}

TEST_CASE("a stored run is what another one is compared with") {
  const Fixture f;
  const std::string base = f.file("base");
  const Json dense = f.json({"--save-base", base});
  CHECK(std::filesystem::file_size(base) == 16 + 4 * 8 + 87 * (4 + 2 * tiny_vocab));

  const Json same = f.json({"--base", base});
  CHECK(same["base"] == "base");
  CHECK(same["base_perplexity"].get<double>() == doctest::Approx(dense["perplexity"].get<double>()).epsilon(2e-4));
  CHECK(same["kl_mean"] < 1e-7);  // rounding by at most 24 / 65535 / 2: half its square
  CHECK(same["top1_agreement"] == 1);

  const Json pruned = f.json({"--prune", "0:0.1", "--base", base});
  const Json direct = f.json({"--prune", "0:0.1", "--kl-divergence"});
  for (const char* number : {"kl_mean", "kl_median", "kl_p99", "perplexity_ratio"}) {
    CAPTURE(number);
    CHECK(pruned[number].get<double>() == doctest::Approx(direct[number].get<double>()).epsilon(2e-3));
  }
  CHECK(f.perplexity({"--base", base}).out.find("KL(base || this): mean ") != std::string::npos);
}

TEST_CASE("a base of another run, or a damaged one, is refused by name before any work") {
  const Fixture f;
  const std::string base = f.file("base");
  REQUIRE(f.perplexity({"--save-base", base}).status == 0);
  const std::string good = read_bytes(base);
  const auto refused = [&](const Arguments& more, const std::string& named) {
    Arguments arguments = {"--base", base};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = f.perplexity(arguments);
    CAPTURE(result.err);
    CHECK(result.status == 1);
    CHECK(result.err.find(base) != std::string::npos);
    CHECK(result.err.find(named) != std::string::npos);
  };
  refused({"--chunks", "2"}, "scored tokens 87, this one has 58");
  const ProgramResult others = run_program(
      "lazyllm", {"perplexity", "-m", f.file("model.gguf"), "-f", f.file("text"), "-c", "50", "--base", base});
  CHECK(others.status == 1);
  CHECK(others.err.find("chunks of 60, this one has 50") != std::string::npos);
  std::ofstream(f.file("text")) << std::string(200, 'a');
  refused({}, "another text");
  std::ofstream(base, std::ios::binary) << good.substr(0, 20);
  refused({}, "cannot read");
  std::ofstream(base, std::ios::binary) << "no base at all, but as long as its head is, or longer";
  refused({}, "is no base");
  CHECK(f.perplexity({"--save-base", f.file("no/where")}).status == 1);
  CHECK(f.perplexity({"--base", base, "--kl-divergence"}).status == 2);
}

TEST_CASE("a base that is not whole is refused") {
  const Fixture f;
  const std::string base = f.file("base");
  REQUIRE(f.perplexity({"--save-base", base}).status == 0);
  std::filesystem::resize_file(base, std::filesystem::file_size(base) - 1);
  const ProgramResult result = f.perplexity({"--base", base});
  CHECK(result.status == 1);
  CHECK(result.err.find("a whole base of 87 scored tokens") != std::string::npos);
}
