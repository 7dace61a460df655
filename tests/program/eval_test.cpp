// `lazyllm eval` from the outside: what it stores, how it goes on after an interruption, and its errors.
#include <doctest/doctest.h>

#include "support/model_directory.hpp"
#include "support/run_program.hpp"
#include "support/tiny_model.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace lazyllm::test;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;

/// A directory with the tiny model and a text, and the program run on them; the results go to `out`.
struct Fixture : ModelDirectory {
  [[nodiscard]] ProgramResult eval(const Arguments& more) const {
    return run("eval", {"-f", text_file, "-t", "1"}, more);
  }
  /// Two needles, dense and under two policies.
  [[nodiscard]] ProgramResult two_needles(const Arguments& more = {}) const {
    Arguments arguments = {"--tasks", "needle",     "--lengths", "400",         "--items",
                           "2",       "--policies", "1:1.0",     "1:0.3+cached"};
    arguments.insert(arguments.end(), {"-o", file("out")});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return eval(arguments);
  }
  [[nodiscard]] std::string records_text() const { return read_bytes(file("out/records.jsonl")); }
  void set_records(const std::string& text) const {
    std::ofstream(file("out/records.jsonl"), std::ios::binary) << text;
  }
  /// All lines but the first.
  [[nodiscard]] std::vector<Json> records() const {
    std::istringstream stream(records_text());
    std::vector<Json> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    REQUIRE(lines.size() > 1);
    CHECK(lines[0]["run"] == "lazyllm eval 1");
    return {lines.begin() + 1, lines.end()};
  }

  std::string text_file =
      file("text", "In the beginning was a garden.\nA river went out. Four heads it had! Who named them?");
};

/// Records without what a clock says.
std::vector<Json> untimed(std::vector<Json> records) {
  for (Json& record : records) {
    record.erase("ttft_ms");
    record.erase("total_ms");
  }
  return records;
}

}  // namespace

TEST_CASE("eval stores a record for each item and policy, the dense model first, and two tables") {
  const Fixture f;
  const ProgramResult result = f.two_needles();
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.empty());
  const std::vector<Json> records = f.records();
  REQUIRE(records.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(records[i]["policy"] == (i % 3 == 0 ? "none" : i % 3 == 1 ? "1:1.0" : "1:0.3+cached"));
    CHECK(records[i]["task"] == "needle");
    CHECK(records[i]["item"] == i / 3);
    CHECK(records[i]["depth"] == (i / 3 == 0 ? 0.1 : 0.3));
    CHECK(records[i]["prompt_tokens"] <= 400);
    CHECK(records[i]["ttft_ms"] > 0);
    CHECK(records[i]["rows_dense"] == records[i]["prompt_tokens"].get<std::size_t>() * tiny_layers);
  }
  for (const std::size_t dense : {0u, 3u}) {
    CHECK(records[dense + 1]["log_probability"] == records[dense]["log_probability"]);  // keeps everything
    CHECK(records[dense + 1]["rows_computed"] == records[dense]["rows_dense"]);
    CHECK(records[dense + 2]["log_probability"] != records[dense]["log_probability"]);
    CHECK(records[dense + 2]["rows_computed"] < records[dense]["rows_computed"]);
  }
  CHECK(result.out == read_bytes(f.file("out/table.md")));
  CHECK(result.out.find("\n| none | needle | 2 | ") != std::string::npos);
  CHECK(result.out.find("\n| 1:0.3+cached | 400 | 2 | ") != std::string::npos);
  const std::string csv = read_bytes(f.file("out/table.csv"));
  CHECK(csv.starts_with("policy,task,length,n,right,"));
  CHECK(std::ranges::count(csv, '\n') == 1 + 3 * 4);  // needle and all, of one length and of all
}

TEST_CASE("a finished run is not run again, and an interrupted one goes on to the same records") {
  const Fixture f;
  REQUIRE(f.two_needles().status == 0);
  const std::string whole = f.records_text();
  const std::vector<Json> expected = untimed(f.records());
  REQUIRE(f.two_needles().status == 0);
  CHECK(f.records_text() == whole);

  // Cut after the first line, inside a record, before its end of line; and a last line of rubbish.
  const std::size_t first_line = whole.find('\n') + 1;
  const std::size_t third_record = whole.find('\n', whole.find('\n', first_line) + 1) + 1;
  for (const std::string& text :
       {whole.substr(0, first_line), whole.substr(0, third_record + 40), whole.substr(0, whole.size() - 1),
        whole.substr(0, third_record) + "{}\n", std::string()}) {
    f.set_records(text);
    REQUIRE(f.two_needles().status == 0);
    CHECK(untimed(f.records()) == expected);
  }
}

TEST_CASE("more items, tasks and policies extend a run") {
  const Fixture f;
  REQUIRE(f.two_needles().status == 0);
  const ProgramResult result = f.eval({"--tasks", "needle,continuation", "--lengths", "390,400", "--items", "3",
                                       "--policies", "random=0.5", "gem_filter=1:0.5", "-o", f.file("out")});
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  std::set<std::string> keys;
  for (const Json& r : f.records()) {
    keys.insert(r["task"].dump() + r["length"].dump() + r["item"].dump() + r["policy"].dump());
    CHECK(r.contains("continuation") == (r["task"] == "continuation" && r["policy"] != "none"));
  }
  CHECK(keys.size() == f.records().size());
  CHECK(keys.size() == 2 * 2 + 2 * 2 * 3 * 3);
  CHECK(result.out.find("\n| random=0.5 | 6 | ") != std::string::npos);  // in the table of continuations
}

TEST_CASE("records of another run, or damaged ones, are left alone") {
  const Fixture f;
  REQUIRE(f.two_needles().status == 0);
  const std::string whole = f.records_text();
  const auto refused = [&](const Arguments& more, const std::string& named) {
    const ProgramResult result = f.two_needles(more);
    CHECK(result.status == 1);
    CHECK(result.err.starts_with("lazyllm: "));
    CHECK(result.err.find(named) != std::string::npos);
  };
  refused({"-s", "2"}, "is of another run");
  refused({"--own-words"}, "is of another run");
  CHECK(f.records_text() == whole);
  std::string damaged = whole;
  damaged[damaged.find('\n') + 5] = '{';
  f.set_records(damaged);
  refused({}, "is no record");
  CHECK(f.records_text() == damaged);
}

TEST_CASE("without -o the table is printed and nothing is stored") {
  const Fixture f;
  const ProgramResult result =
      f.eval({"--tasks", "needle", "--lengths", "400", "--items", "1", "--policies", "auto", "--own-words"});
  REQUIRE(result.status == 0);
  CHECK(result.out.starts_with("model.gguf, "));
  CHECK(result.out.find("\n| auto | needle | 1 | ") != std::string::npos);
}

TEST_CASE("wrong usage of eval ends with status 2 and says why on standard error only") {
  const Fixture f;
  CHECK(run_program("lazyllm", {"eval", "--help"}).status == 0);
  CHECK(run_program("lazyllm", {"eval", "-m", f.file("model.gguf")}).status == 2);
  for (const Arguments& arguments : std::initializer_list<Arguments>{
           {"--tasks", "noodle"},
           {"--tasks", ""},
           {"--lengths", "0"},
           {"--lengths", "1e3"},
           {"--depths", "1.5"},
           {"--depths", "middle"},
           {"--policies", "snap_kv=4:0.3"},
           {"--policies", "1:0.3+fast"},
           {"--items", "0"},
           {"-s", "-1"},
       }) {
    CAPTURE(arguments);
    const ProgramResult result = f.eval(arguments);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK_FALSE(result.err.empty());
  }
}

TEST_CASE("a run-time error of eval ends with status 1 and one line on standard error") {
  const Fixture f;
  std::ofstream(f.file("blank")) << " \n";
  struct Case {
    Arguments arguments;
    std::string named;
  };
  for (const Case& wrong : std::initializer_list<Case>{
           {{"-f", f.file("missing")}, "missing"},
           {{"-f", f.file("blank")}, "no words"},
           {{"--lengths", "100"}, "100 tokens has no room"},
           {{"--lengths", std::to_string(tiny_context)}, "the model has " + std::to_string(tiny_context)},
           {{"--policies", std::to_string(tiny_layers) + ":0.5"}, "layer 4"},
           {{"--policies", "gem_filter=9:0.5"}, "layer 9"},
       }) {
    CAPTURE(wrong.named);
    Arguments arguments = {"eval", "-m", f.file("model.gguf"), "--lengths", "400", "--items", "1"};
    const auto given = [&](const char* option) {
      return std::ranges::find(wrong.arguments, option) != wrong.arguments.end();
    };
    if (given("--lengths")) arguments.resize(3);
    if (!given("-f")) arguments.insert(arguments.end(), {"-f", f.file("text")});
    arguments.insert(arguments.end(), wrong.arguments.begin(), wrong.arguments.end());
    const ProgramResult result = run_program("lazyllm", arguments);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.starts_with("lazyllm: "));
    CHECK(result.err.find(wrong.named) != std::string::npos);
    CHECK(std::ranges::count(result.err, '\n') == 1);
  }
}
