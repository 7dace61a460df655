// `lazyllm calibrate`: the file that it stores, who reads that file, how it is interrupted, and its errors.
#include <doctest/doctest.h>

#include <lazyllm/core/error.hpp>
#include <lazyllm/prune/schedule.hpp>

#include "calibrate.hpp"
#include "support/model_directory.hpp"
#include "support/run_program.hpp"
#include "support/tiny_model.hpp"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace lazyllm::test;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;

/// A directory with the tiny model and a text.
struct Fixture : ModelDirectory {
  [[nodiscard]] std::string presets_file() const { return file("model.gguf.lazyllm.json"); }
  [[nodiscard]] ProgramResult calibrate(const Arguments& more = {}) const {
    return run("calibrate",
               {"-f", text_file, "-t", "1", "--tasks", "needle", "--lengths", "400", "--items", "1", "--held-out", "1",
                "--trials", "6", "--kl", "100"},
               more);
  }
  [[nodiscard]] ProgramResult generate() const { return run("generate", {"-p", "abc", "-n", "1", "--prune", "auto"}); }
  [[nodiscard]] Json stored() const { return Json::parse(read_bytes(presets_file())); }
  void store(const Json& object) const { std::ofstream(presets_file()) << object; }
  [[nodiscard]] program::CalibrateCommand command() const {
    return {.model = file("model.gguf"),
            .texts = {file("text")},
            .options = {.limit = 100, .most_trials = 6},
            .tasks = {lazyllm::Task::needle},
            .lengths = {400},
            .items = 1,
            .held_out = 2,
            .threads = 1,
            .output = {}};
  }

  std::string text_file = file("text", "In the beginning was a garden.\nA river went out. Four heads it had!");
};

const auto no_progress = [](std::string_view, std::uint64_t, std::uint64_t) {};
const auto no_note = [](std::string_view) {};

}  // namespace

TEST_CASE("calibrate stores what it tried and found, measured on other items") {
  const Fixture f;
  const ProgramResult result = f.calibrate();
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const Json stored = f.stored();
  CHECK(stored["format"] == "lazyllm presets 1");
  CHECK(stored["finished"] == true);
  CHECK(stored["loss"] == "kl");
  CHECK(stored["limits"]["safe"] == 50);
  CHECK(stored["limits"]["auto"] == 100);
  CHECK(stored["trials"].size() == 6);
  CHECK_FALSE(stored["front"].empty());
  CHECK(stored["held_out"].size() == 2 * 4);  // needle and all: dense, safe, auto, fast
  for (const char* preset : {"safe", "auto", "fast"}) {
    CAPTURE(preset);
    const std::string schedule = stored["presets"][preset];
    CHECK_NOTHROW(lazyllm::parse_schedule(schedule).check(tiny_layers, 4));
    CHECK(schedule != "none");  // a limit that everything meets
    CHECK(result.out.find("| " + std::string(preset) + " | `" + schedule + "` |") != std::string::npos);
    CHECK(result.out.find("\n| " + std::string(preset) + " | needle | 1 |") != std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(f.presets_file() + ".part"));
}

TEST_CASE("the presets beside a model are what its presets are, and the program says so") {
  const Fixture f;
  CHECK(f.generate().err.find("the safe rule: nothing was measured on this model") != std::string::npos);
  REQUIRE(f.calibrate().status == 0);
  Json object = f.stored();
  object["presets"]["auto"] = "1:0.5,2:0.25";
  f.store(object);
  const ProgramResult generated = f.generate();
  CHECK(generated.status == 0);
  CHECK(generated.err.find("pruning by 1:0.5,2:0.25, calibrated: " + f.presets_file()) != std::string::npos);
  const ProgramResult evaluated =
      run_program("lazyllm", {"eval", "-m", f.file("model.gguf"), "-f", f.file("text"), "--tasks", "needle",
                              "--lengths", "400", "--items", "1", "--policies", "auto", "1:0.5,2:0.25+revive8"});
  CAPTURE(evaluated.err);
  REQUIRE(evaluated.status == 0);
  const auto scores = [&](const std::string& policy) {  // up to the times
    const std::size_t at = evaluated.out.find("\n| " + policy + " | needle | ");
    REQUIRE(at != std::string::npos);
    return evaluated.out.substr(evaluated.out.find("needle", at), 55);
  };
  CHECK(scores("auto") == scores("1:0.5,2:0.25+revive8"));
}

TEST_CASE("presets that are damaged, of another model or of other layers are refused by name") {
  const Fixture f;
  REQUIRE(f.calibrate().status == 0);
  const Json good = f.stored();
  const auto refused = [&](const std::string& named) {
    const ProgramResult result = f.generate();
    CAPTURE(result.err);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.find(named) != std::string::npos);
  };
  const auto changed = [&](const char* pointer, const Json& value) {
    Json object = good;
    object[Json::json_pointer(pointer)] = value;
    f.store(object);
  };
  std::ofstream(f.presets_file()) << good.dump().substr(0, 100);
  refused("is no file of presets");
  std::ofstream(f.presets_file()) << "[]";
  refused("is no file of presets");
  changed("/format", "lazyllm presets 2");
  refused("lazyllm presets 2");
  changed("/fingerprint", "0000000000000000");
  refused("is of another model");
  changed("/presets", Json::object());
  refused("is no file of presets");
  changed("/presets/auto", 5);
  refused("is no file of presets");
  changed("/presets/auto", "much");
  refused("'much'");
  changed("/presets/fast", std::to_string(tiny_layers) + ":0.5");
  refused("layer 4");
  REQUIRE(f.calibrate().status == 0);  // what cannot be read does not keep a new one from being made
  CHECK(f.generate().status == 0);
}

TEST_CASE("an interrupted search stores the best so far, and an interrupted measurement what was searched") {
  const Fixture f;
  std::size_t asked = 0;
  const auto after = [&](std::size_t most) {
    asked = 0;
    return [&asked, most] { return ++asked > most; };
  };
  CHECK_THROWS_AS(program::run_calibrate(f.command(), no_progress, no_note, after(0)), lazyllm::Error);
  CHECK_FALSE(std::filesystem::exists(f.presets_file()));

  // Asked after the one dense item, then after each schedule.
  const program::CalibrationReport searching = program::run_calibrate(f.command(), no_progress, no_note, after(3));
  CHECK(searching.calibration.trials.size() == 3);
  CHECK_FALSE(searching.finished);
  CHECK(f.stored()["finished"] == false);
  CHECK(f.stored()["trials"].size() == 3);
  CHECK(f.stored()["presets"]["auto"] != "none");

  const program::CalibrationReport measuring = program::run_calibrate(f.command(), no_progress, no_note, after(9));
  CHECK(measuring.finished);
  CHECK(measuring.held_out.empty());
  CHECK(f.stored()["finished"] == true);
  CHECK(f.stored()["held_out"].empty());
}

TEST_CASE("wrong usage of calibrate ends with status 2, a run-time error with 1") {
  const Fixture f;
  CHECK(run_program("lazyllm", {"calibrate", "--help"}).status == 0);
  for (const Arguments& arguments : std::initializer_list<Arguments>{
           {"--accuracy-loss", "0.01"}, {"--kl", "-1"}, {"--trials", "0"}, {"--items", "0"}, {"--tasks", "noodle"}}) {
    CAPTURE(arguments);
    CHECK(f.calibrate(arguments).status == 2);
  }
  struct Case {
    Arguments arguments;
    std::string named;
  };
  for (const Case& wrong :
       std::initializer_list<Case>{{{"-o", f.file("no/where.json")}, "cannot write"},
                                   {{"--lengths", "100"}, "100 tokens has no room"},
                                   {{"--lengths", std::to_string(tiny_context)}, "the model has"}}) {
    CAPTURE(wrong.named);
    const ProgramResult result = f.calibrate(wrong.arguments);
    CHECK(result.status == 1);
    CHECK(result.err.find(wrong.named) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(f.presets_file()));
  }
}
