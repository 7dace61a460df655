// `lazyllm bench` from the outside: which rows it measures, how it shows them, and its errors.
#include <doctest/doctest.h>
#include <lazyllm/simd/isa.hpp>

#include "support/model_directory.hpp"
#include "support/run_program.hpp"
#include "support/tiny_model.hpp"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

namespace {

using namespace lazyllm;
using namespace lazyllm::test;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;

/// A directory with the tiny model, and the program run on it.
struct Fixture : ModelDirectory {
  [[nodiscard]] ProgramResult bench(const Arguments& more) const { return run("bench", more); }
  [[nodiscard]] std::string output(Arguments more, const char* format) const {
    more.insert(more.end(), {"-o", format});
    const ProgramResult result = bench(more);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    // Nothing, or which schedule a preset is.
    CHECK((result.err.empty() || result.err.starts_with("lazyllm: pruning by ")));
    return result.out;
  }
  [[nodiscard]] Json json(const Arguments& more) const { return Json::parse(output(more, "json")); }
};

using RowName = std::tuple<std::string, std::size_t, std::size_t, std::string>;  // kind, tokens, depth, prune

std::vector<RowName> names(const Json& rows) {
  std::vector<RowName> result;
  for (const Json& row : rows) result.emplace_back(row["kind"], row["tokens"], row["depth"], row["prune"]);
  return result;
}

}  // namespace

TEST_CASE("bench measures a row for each prompt, and for each depth and count of generated tokens") {
  const Fixture f;
  const Json rows = f.json({"-p", "24,100", "-n", "3,5", "-d", "0,40", "-t", "2", "-r", "3"});
  REQUIRE(rows.is_array());
  CHECK(names(rows) == std::vector<RowName>{{"prefill", 24, 0, "none"},
                                            {"prefill", 100, 0, "none"},
                                            {"decode", 3, 0, "none"},
                                            {"decode", 5, 0, "none"},
                                            {"decode", 3, 40, "none"},
                                            {"decode", 5, 40, "none"}});
  Arguments expected = {"kind",  "tokens",       "depth",         "threads",        "isa",
                        "prune", "tokens_per_s", "rows_computed", "peak_rss_bytes", "median_tokens_per_s"};
  std::ranges::sort(expected);
  for (const Json& row : rows) {
    Arguments keys;
    for (const auto& item : row.items()) keys.push_back(item.key());
    CHECK(keys == expected);  // nlohmann::json sorts keys
    CHECK(row["threads"] == 2);
    CHECK(row["isa"] == name(active_isa()));
    auto rates = row["tokens_per_s"].get<std::vector<double>>();
    REQUIRE(rates.size() == 3);
    std::ranges::sort(rates);
    CHECK(rates[0] > 0);
    CHECK(row["median_tokens_per_s"] == rates[1]);
    // The timed steps only: neither the warm-up nor the context before the generated tokens.
    CHECK(row["rows_computed"] == row["tokens"].get<std::size_t>() * tiny_layers);
    CHECK(row["peak_rss_bytes"] > 1'000'000);
  }
}

TEST_CASE("the median of an even number of repeats is between the middle ones") {
  const Json rows = Fixture().json({"-p", "8", "-n", "0", "-r", "2"});
  REQUIRE(rows.size() == 1);
  const auto rates = rows[0]["tokens_per_s"].get<std::vector<double>>();
  REQUIRE(rates.size() == 2);
  CHECK(rows[0]["median_tokens_per_s"].get<double>() == doctest::Approx((rates[0] + rates[1]) / 2));
}

TEST_CASE("with --prune every row appears twice, dense and pruned") {
  const Fixture f;
  const Json rows = f.json({"-p", "56", "-n", "2", "-d", "40", "-r", "1", "--prune", "1:0.5,2:10"});
  const std::string spec = "1:0.5,2:10";
  CHECK(names(rows) ==
        std::vector<RowName>{
            {"prefill", 56, 0, "none"}, {"prefill", 56, 0, spec}, {"decode", 2, 40, "none"}, {"decode", 2, 40, spec}});
  CHECK(rows[0]["rows_computed"] == 56 * tiny_layers);
  CHECK(rows[1]["rows_computed"] == 2 * 56 + 28 + 10);
  CHECK(rows[2]["rows_computed"] == 2 * tiny_layers);
  CHECK(rows[3]["rows_computed"] >= 2 * tiny_layers);  // and what is revived

  CHECK(names(f.json({"-p", "8", "-n", "0", "-r", "1", "--prune", "auto"})) ==
        std::vector<RowName>{{"prefill", 8, 0, "none"}, {"prefill", 8, 0, "auto"}});
  CHECK(f.json({"-p", "8", "-n", "0", "-r", "1", "--prune", "none"}).size() == 1);
}

TEST_CASE("bench bounds the pruning as generate does") {
  const Fixture f;
  const Arguments prefill = {"-p", "56", "-n", "0", "-r", "1", "--prune", "1:0.5", "--dense-below"};
  const auto rows_below = [&](const char* tokens) {
    Arguments all = prefill;
    all.emplace_back(tokens);
    return f.json(all)[1]["rows_computed"];
  };
  CHECK(rows_below("57") == 56 * tiny_layers);
  CHECK(rows_below("56") == 2 * 56 + 2 * 28);
  const Json decode = f.json({"-p", "0", "-n", "2", "-d", "40", "-r", "1", "--prune", "0:5", "--decode-revivals", "0"});
  CHECK(decode[1]["rows_computed"] == 2 * tiny_layers);
}

TEST_CASE("the default output is a table, and CSV has a header and a line a row") {
  const Fixture f;
  const Arguments options = {"-p", "8", "-n", "2", "-d", "4", "-r", "2", "--prune", "1:2,2:1"};
  const ProgramResult table = f.bench(options);
  CHECK(table.status == 0);
  CHECK(table.out.starts_with("model.gguf, " + std::string(name(active_isa())) + ", "));
  CHECK(table.out.find("\n| prefill 8 | none | ") != std::string::npos);
  CHECK(table.out.find("\n| decode 2 after 4 | 1:2,2:1 | ") != std::string::npos);
  CHECK(table.out.find(" ± ") != std::string::npos);

  const std::string csv = f.output(options, "csv");
  CHECK(csv.starts_with("kind,tokens,depth,threads,isa,prune,"));
  CHECK(std::ranges::count(csv, '\n') == 1 + 4);
  CHECK(csv.find("\nprefill,8,0,") != std::string::npos);
  CHECK(csv.find(",\"1:2,2:1\",") != std::string::npos);
}

TEST_CASE("rows may fill the model's context exactly") {
  const std::string all = std::to_string(tiny_context);
  CHECK(Fixture().json({"-p", all, "-n", "2", "-d", std::to_string(tiny_context - 2), "-r", "1"}).size() == 2);
}

TEST_CASE("wrong usage of bench ends with status 2 and says why on standard error only") {
  const Fixture f;
  CHECK(run_program("lazyllm", {"bench"}).status == 2);
  CHECK(run_program("lazyllm", {"bench", "--help"}).status == 0);
  for (const Arguments& arguments : std::initializer_list<Arguments>{
           {"-p", "12x"},
           {"-p", "-1"},
           {"-p", "12,x"},
           {"-n", "1.5"},
           {"-d", "4294967296"},
           {"-t", "0"},
           {"-r", "0"},
           {"-o", "xml"},
           {"-p", "0", "-n", "0"},
           {"--prune", "much"},
           {"--prune", "same"},
           {"--ids", "file"},
       }) {
    CAPTURE(arguments);
    const ProgramResult result = f.bench(arguments);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK_FALSE(result.err.empty());
  }
}

TEST_CASE("a run-time error of bench ends with status 1 and one line on standard error") {
  const Fixture f;
  const std::string beyond = std::to_string(tiny_context + 1);
  struct Case {
    Arguments arguments;
    std::string named;
  };
  for (const Case& wrong : std::initializer_list<Case>{
           {{"-p", "8," + beyond}, beyond},
           {{"-n", beyond}, beyond},
           {{"-n", "2", "-d", std::to_string(tiny_context - 1)}, "a prompt of 511 tokens and 2 to generate"},
           {{"--prune", std::to_string(tiny_layers) + ":0.5"}, "layer 4"},
       }) {
    CAPTURE(wrong.named);
    const ProgramResult result = f.bench(wrong.arguments);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.starts_with("lazyllm: "));
    CHECK(result.err.find(wrong.named) != std::string::npos);
    CHECK(std::ranges::count(result.err, '\n') == 1);
  }
  CHECK(run_program("lazyllm", {"bench", "-m", (f.directory.path() / "missing.gguf").string()}).status == 1);
}
