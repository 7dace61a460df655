// `lazyllm generate` from the outside: what it prints, where, and with which exit status.
#include <doctest/doctest.h>
#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/text/generator.hpp>
#include <lazyllm/version.hpp>

#include "support/model_directory.hpp"
#include "support/run_program.hpp"
#include "support/tiny_model.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace lazyllm;
using namespace lazyllm::test;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;

const std::string prompt = "The quick brown fox jumps over the lazy dog. 0123456789!";  // a token a character

/// A directory with the tiny model, and the program run on it.
struct Fixture : ModelDirectory {
  [[nodiscard]] ProgramResult generate(const Arguments& more, const std::string& input = "") const {
    return run("generate", more, {}, input);
  }
  /// The object of a greedy run on the raw prompt.
  [[nodiscard]] Json json(const Arguments& more) const {
    Arguments arguments = {"--temp", "0", "--json", "-p", prompt, "--raw"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return parsed(generate(arguments));
  }
  [[nodiscard]] static Json parsed(const ProgramResult& result) {
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    REQUIRE(std::ranges::count(result.out, '\n') == 1);
    REQUIRE(result.out.back() == '\n');
    return Json::parse(result.out);
  }
};

std::size_t sum(const Json& numbers) {
  std::size_t total = 0;
  for (const Json& number : numbers) total += number.get<std::size_t>();
  return total;
}

}  // namespace

TEST_CASE("--version prints the library's version") {
  const ProgramResult result = run_program("lazyllm", {"--version"});
  CHECK(result.status == 0);
  CHECK(result.out == "lazyllm " + std::string(version) + "\n");
}

TEST_CASE("--help is no error") {
  CHECK(run_program("lazyllm", {"--help"}).status == 0);
  CHECK(run_program("lazyllm", {"generate", "--help"}).status == 0);
}

TEST_CASE("wrong usage ends with status 2 and says why on standard error only") {
  const Fixture f;
  const std::string model = f.file("model.gguf");
  for (const Arguments& arguments : std::initializer_list<Arguments>{
           {},
           {"unknown"},
           {"generate"},
           {"generate", "-p", "a"},
           {"generate", "-m", model},
           {"generate", "-m", model, "-p", "a", "-f", "b"},
           {"generate", "-m", model, "-p", "a", "--unknown"},
           {"generate", "-m", model, "-p", "a", "-n", "-1"},
           {"generate", "-m", model, "-p", "a", "-n", "3x"},
           {"generate", "-m", model, "-p", "a", "-t", "0"},
           {"generate", "-m", model, "-p", "a", "-c", "0"},
           {"generate", "-m", model, "-p", "a", "-s", "99999999999999999999"},
           {"generate", "-m", model, "-p", "a", "--temp", "-1"},
           {"generate", "-m", model, "-p", "a", "--temp", "nan"},
           {"generate", "-m", model, "-p", "a", "--top-p", "2"},
           {"generate", "-m", model, "-p", "a", "--prune", "much"},
           {"generate", "-m", model, "-p", "a", "--prune", "1:1.5"},
           {"generate", "-m", model, "-p", "a", "--prune", "1:p100"},
           {"generate", "-m", model, "-p", "a", "--prune", "1:2,1:3"},
           {"generate", "-m", model, "-p", "a", "--prune", "same"},
           {"generate", "-m", model, "-p", "a", "--decode-prune", "1:"},
           {"generate", "-m", model, "-p", "a", "--decode-revivals", "-1"},
           {"generate", "-m", model, "-p", "a", "--dense-below", "0.5"},
           {"generate", "-m", model, "-p", "a", "--evict", "tova"},
       }) {
    CAPTURE(arguments);
    const ProgramResult result = run_program("lazyllm", arguments);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK_FALSE(result.err.empty());
  }
}

TEST_CASE("a run-time error ends with status 1 and one line on standard error") {
  const Fixture f;
  const std::string big(tiny_context, 'a');
  for (const Arguments& arguments : std::initializer_list<Arguments>{
           {"-p", "a", "-m", f.file("missing.gguf")},
           {"-p", "a", "-m", f.file("text.gguf", "not a model")},
           {"-p", "", "--raw"},
           {"-f", f.file("missing.txt")},
           {"-f", f.directory.path().string()},
           {"--ids", f.file("empty.json", "[]")},
           {"--ids", f.file("object.json", "{}")},
           {"--ids", f.file("text.json", "1, 2")},
           {"--ids", f.file("fraction.json", "[1.5]")},
           {"--ids", f.file("negative.json", "[-1]")},
           {"--ids", f.file("outside.json", "[" + std::to_string(tiny_vocab) + "]")},
           {"--ids", f.file("huge.json", "[18446744073709551615]")},
           {"-p", "a", "--raw", "-n", "4", "-c", "4"},
           {"-p", "a", "-c", std::to_string(tiny_context + 1)},
           {"-p", big, "--raw", "-n", "1"},
           {"-p", "a", "--prune", std::to_string(tiny_layers) + ":0.5"},
           {"-p", "a", "--decode-prune", std::to_string(tiny_layers) + ":0.5"},
           {"-p", "a", "--logits", f.file("missing/logits")},
       }) {
    CAPTURE(arguments);
    Arguments all = {"generate"};
    if (std::ranges::find(arguments, "-m") == arguments.end()) all.insert(all.end(), {"-m", f.file("model.gguf")});
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ProgramResult result = run_program("lazyllm", all);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.starts_with("lazyllm: "));
    CHECK(std::ranges::count(result.err, '\n') == 1);
  }
}

TEST_CASE("--json prints one object with exactly the documented keys, which agree with each other") {
  const Fixture f;
  const Json object = f.json({"-n", "6", "-t", "2", "--prune", "1:0.5,2:10", "--ignore-eos"});
  Arguments keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  Arguments expected = {
      "prompt_tokens",        "ids",           "text",    "finish",  "ttft_ms",       "prefill_tokens_per_s",
      "decode_tokens_per_s",  "rows_computed", "revived", "kept",    "aux_bytes",     "rows_dense",
      "decode_rows_computed", "kv_bytes",      "isa",     "threads", "peak_rss_bytes"};
  std::ranges::sort(expected);
  CHECK(keys == expected);  // nlohmann::json sorts keys

  CHECK(object["prompt_tokens"] == prompt.size());
  CHECK(object["ids"].size() == 6);
  CHECK(object["finish"] == "length");
  CHECK(object["ttft_ms"] > 0);
  CHECK(object["prefill_tokens_per_s"].get<double>() ==
        doctest::Approx(static_cast<double>(prompt.size()) / object["ttft_ms"].get<double>() * 1e3));
  CHECK(object["decode_tokens_per_s"] > 0);
  CHECK(object["threads"] == 2);
  CHECK(object["peak_rss_bytes"] > 0);
  CHECK(object["kv_bytes"] > 0);
  CHECK(object["rows_dense"] == tiny_layers * prompt.size());
  // Layers 0 and 1 run every row, layer 2 half of them (56 tokens), layer 3 ten.
  REQUIRE(prompt.size() == 56);
  CHECK(object["rows_computed"] == 2 * 56 + 28 + 10);
  // One number per decode step; every step computes the new token at every layer, and what it revives besides.
  CHECK(object["revived"].size() == 5);
  CHECK(object["decode_rows_computed"] >= 5 * tiny_layers);
  REQUIRE(object["kept"].size() == 2 * 6);
  for (std::size_t i = 0; i < object["kept"].size(); ++i) {
    const Json& kept = object["kept"][i];
    CHECK(kept.size() == 3);
    CHECK(kept["step"] == i / 2);
    CHECK(kept["layer"] == 1 + i % 2);
    CHECK(kept["count"] == (i % 2 == 1 ? 10 : (56 + i / 2 + 1) / 2));
  }
}

TEST_CASE("--trace adds the kept tokens, and without --json prints them on standard error") {
  const Fixture f;
  const Arguments options = {"-n", "3", "--prune", "1:0.25", "--trace", "--ignore-eos"};
  const Json object = f.json(options);
  REQUIRE(object["kept"].size() == 3);
  for (const Json& kept : object["kept"]) {
    const auto indices = kept["indices"].get<std::vector<std::size_t>>();
    CHECK(indices.size() == kept["count"]);
    CHECK(std::ranges::is_sorted(indices));
    CHECK(indices.back() == prompt.size() - 1 + kept["step"].get<std::size_t>());
  }
  Arguments text = {"--temp", "0", "-p", prompt, "--raw"};
  text.insert(text.end(), options.begin(), options.end());
  const ProgramResult result = f.generate(text);
  CHECK(result.out == object["text"].get<std::string>() + "\n");
  CHECK(result.err.find("step 0, after layer 1: 14 kept: ") != std::string::npos);
  CHECK(result.err.find("step 2, after layer 1: 15 kept: ") != std::string::npos);
}

TEST_CASE("--prune none is the library's KeepAll bit for bit, with 1, 2 and 3 threads") {
  const Fixture f;
  const MappedFile file(f.file("model.gguf"));
  const GgufFile gguf = parse_gguf(file.bytes());
  const Tokenizer tokenizer = Tokenizer::from_gguf(gguf);
  ThreadPool pool(1);
  Llama graph(LlamaWeights<>::load(file, gguf, pool), pool, 128);
  LazySession session(graph, KeepAll{}, {.context_size = 128});
  Sampler sampler({.temperature = 0});
  std::vector<float> logits;
  GenerateOptions options{.prompt = tokenizer.encode(prompt), .max_tokens = 20, .ignore_end = true};
  options.on_first_logits = [&](std::span<const float> row) { logits.assign(row.begin(), row.end()); };
  const Generation expected = lazyllm::generate(session, tokenizer, sampler, options);

  for (const char* threads : {"1", "2", "3"}) {
    const Json object =
        f.json({"-n", "20", "--ignore-eos", "--prune", "none", "-t", threads, "--logits", f.file("logits")});
    CHECK(object["ids"].get<std::vector<TokenId>>() == expected.ids);
    CHECK(object["text"] == expected.text);
    CHECK(object["kept"].empty());
    CHECK(object["aux_bytes"] == 0);
    CHECK(object["rows_computed"] == object["rows_dense"]);
    const std::string bytes = read_bytes(f.file("logits"));
    REQUIRE(bytes.size() == tiny_vocab * sizeof(float));
    CHECK(std::memcmp(bytes.data(), logits.data(), bytes.size()) == 0);
  }
}

TEST_CASE("text, file, standard input and ids are the same prompt") {
  const Fixture f;
  const Json expected = f.json({"-n", "5"});
  const Arguments greedy = {"--temp", "0", "--json", "-n", "5"};
  const auto with = [&](Arguments arguments, const std::string& input = "") {
    arguments.insert(arguments.end(), greedy.begin(), greedy.end());
    return Fixture::parsed(f.generate(arguments, input));
  };
  CHECK(with({"--raw", "-f", f.file("prompt.txt", prompt)})["ids"] == expected["ids"]);
  CHECK(with({"--raw", "-f", "-"}, prompt)["ids"] == expected["ids"]);
  const Tokenizer tokenizer = Tokenizer::from_gguf(parse_gguf(MappedFile(f.file("model.gguf")).bytes()));
  const std::string ids = Json(tokenizer.encode(prompt)).dump();
  CHECK(with({"--ids", f.file("ids.json", ids)})["ids"] == expected["ids"]);
  // Without --raw the template's text is around it: the user's turn (16 characters and 2 control tokens) and the
  // assistant's start.
  const Json chat = with({"-p", prompt});
  CHECK(chat["prompt_tokens"] == prompt.size() + std::string("SuserNEN").size() + std::string("SassistantN").size());
}

TEST_CASE("a generation ends with the end token, which is among the ids, unless --ignore-eos") {
  const Fixture f;
  save_tiny_model(f.file("model.gguf"), true);
  const Json stopped = f.json({"-n", "3"});
  CHECK(stopped["ids"] == Json({tiny_end_id}));
  CHECK(stopped["finish"] == "stop");
  CHECK(stopped["text"] == "");
  CHECK(stopped["decode_tokens_per_s"] == 0);
  CHECK(stopped["revived"] == Json::array());
  const Json going_on = f.json({"-n", "3", "--ignore-eos"});
  CHECK(going_on["ids"].size() == 3);
  CHECK(going_on["finish"] == "length");
}

TEST_CASE("prompt and generated tokens may fill the context exactly") {
  const Fixture f;
  const std::string all(tiny_context - 2, 'a');
  const ProgramResult result =
      f.generate({"-p", all, "--raw", "-n", "2", "--ignore-eos", "--json", "--prune", "2:0.1"});
  CHECK(Fixture::parsed(result)["ids"].size() == 2);
}

TEST_CASE("the same seed gives the same tokens, another seed others") {
  const Fixture f;
  const auto sampled = [&](const char* seed) {
    return Fixture::parsed(f.generate({"-p", prompt, "--raw", "-n", "20", "--temp", "1.5", "--top-k", "0",
                                       "--ignore-eos", "--json", "-s", seed}))["ids"];
  };
  CHECK(sampled("5") == sampled("5"));
  CHECK(sampled("5") != sampled("6"));
}

TEST_CASE("--decode-prune decides what decode steps revive") {
  const Fixture f;
  const auto decode = [&](const char* spec) {
    return f.json({"-n", "6", "--ignore-eos", "--prune", "0:0.25", "--decode-prune", spec});
  };
  const std::size_t pruned = prompt.size() - 14;  // a quarter of 56 stays

  const Json none = decode("none");  // all pruned tokens come back at the first step, at the layers they lack
  CHECK(none["revived"] == Json({pruned, 0, 0, 0, 0}));
  CHECK(none["decode_rows_computed"] == pruned * (tiny_layers - 1) + 5 * tiny_layers);
  CHECK(none["aux_bytes"] == 0);
  CHECK(none["kept"].size() == 1);

  const Json cached = decode("cached");
  CHECK(sum(cached["revived"]) == 0);
  CHECK(cached["decode_rows_computed"] == 5 * tiny_layers);
  CHECK(cached["aux_bytes"] > 0);

  const Json same = decode("same");
  CHECK(same["ids"] == f.json({"-n", "6", "--ignore-eos", "--prune", "0:0.25"})["ids"]);
  CHECK(same["kept"].size() == 6);

  const Json own = decode("0:1.0");  // everything is kept: revived as with none, but selected at every step
  CHECK(own["revived"] == none["revived"]);
  CHECK(own["ids"] == none["ids"]);
  CHECK(own["kept"].size() == 6);

  const Json only_decode = f.json({"-n", "6", "--ignore-eos", "--decode-prune", "0:0.25"});
  CHECK(only_decode["rows_computed"] == only_decode["rows_dense"]);
  CHECK(only_decode["kept"].size() == 5);
  CHECK(only_decode["kept"][0]["step"] == 1);
}

TEST_CASE("--aux-rows decides what a waiting token takes") {
  const Fixture f;
  const auto bytes = [&](const char* format) {
    return f.json({"-n", "1", "--prune", "0:0.25", "--aux-rows", format})["aux_bytes"].get<std::size_t>();
  };
  CHECK(bytes("float32") == f.json({"-n", "1", "--prune", "0:0.25"})["aux_bytes"]);
  CHECK(bytes("float16") * 2 == bytes("float32"));
  CHECK(bytes("bfloat16") * 2 == bytes("float32"));
  CHECK(bytes("int8") < bytes("float16"));
  CHECK(f.generate({"-p", prompt, "--aux-rows", "int4"}).status == 2);
}

TEST_CASE("--decode-revivals bounds what a decode step revives for each layer") {
  const Fixture f;
  const Arguments options = {"-n", "4", "--ignore-eos", "--prune", "0:0.25", "--decode-prune", "none"};
  const auto revived = [&](const char* budget) {
    Arguments all = options;
    all.insert(all.end(), {"--decode-revivals", budget});
    return f.json(all);
  };
  // 42 of the 56 tokens wait; 0 stands for none of them, and what does not come back is not counted.
  CHECK(revived("5")["revived"] == Json({5, 5, 5}));
  CHECK(revived("0")["revived"] == Json({0, 0, 0}));
  CHECK(revived("40")["revived"] == Json({40, 2, 0}));
  CHECK(revived("100")["ids"] == f.json(options)["ids"]);
}

TEST_CASE("--dense-below keeps short contexts dense") {
  const Fixture f;
  const auto pruned = [&](const char* tokens) {
    return f.json({"-n", "3", "--ignore-eos", "--prune", "0:0.25", "--dense-below", tokens})["kept"];
  };
  CHECK(pruned("56").size() == 3);
  REQUIRE(pruned("58").size() == 1);
  CHECK(pruned("58")[0]["step"] == 2);
  CHECK(pruned("59").empty());
}

TEST_CASE("--evict keeps the KV cache small, with pruning and without") {
  const Fixture f;
  const auto kv_bytes = [&](const char* eviction, const char* prune) {
    return f.json({"-n", "5", "--ignore-eos", "--prune", prune, "--evict", eviction})["kv_bytes"].get<std::size_t>();
  };
  // K and V of 2 heads of 8 numbers at each of the layers; the last of the 5 tokens does not run.
  const std::size_t token_bytes = 2 * 2 * row_bytes<Int8>(8);
  CHECK(kv_bytes("none", "none") == (56 + 4) * tiny_layers * token_bytes);
  CHECK(kv_bytes("window:2,10", "none") == 12 * tiny_layers * token_bytes);
  CHECK(kv_bytes("tova:9", "none") == 9 * tiny_layers * token_bytes);
  CHECK(kv_bytes("h2o:9", "none") == 9 * tiny_layers * token_bytes);
  CHECK(kv_bytes("snapkv:20^8", "none") == (20 + 4) * tiny_layers * token_bytes);
  CHECK(kv_bytes("tova:9", "1:0.25") == 9 * tiny_layers * token_bytes);
}

TEST_CASE("--prune auto is accepted for prefill and decode") {
  const Fixture f;
  CHECK(f.json({"-n", "2", "--ignore-eos", "--prune", "auto"})["ids"].size() == 2);
  CHECK(f.json({"-n", "2", "--ignore-eos", "--prune", "1:0.5", "--decode-prune", "auto"})["ids"].size() == 2);
}

TEST_CASE("text goes to standard output alone, timings to standard error") {
  const Fixture f;
  const Json object = f.json({"-n", "8"});
  const ProgramResult result = f.generate({"-p", prompt, "--raw", "--temp", "0", "-n", "8"});
  CHECK(result.status == 0);
  CHECK(result.out == object["text"].get<std::string>() + "\n");
  CHECK(result.err.find("prefill: 56 tokens") != std::string::npos);
}
