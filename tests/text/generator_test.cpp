#include <doctest/doctest.h>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <lazyllm/text/generator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace lazyllm;

// The ids of the tokenizer below.
enum Id : TokenId { a, b, c, newline, e_acute_1, e_acute_2, ab, end };

/// Letters, a line break, the two bytes of U+00E9 apart, one merged token and an end token.
Tokenizer small_tokenizer() {
  using Strings = std::vector<std::string>;
  // In the byte alphabet 0x0A is U+010A, 0xC3 is U+00C3 and 0xA9 is U+00A9.
  const Strings tokens = {"a", "b", "c", "\xC4\x8A", "\xC3\x83", "\xC2\xA9", "ab", "<|im_end|>"};
  std::vector<GgufEntry> metadata;
  metadata.push_back({"tokenizer.ggml.model", std::string("gpt2")});
  metadata.push_back({"tokenizer.ggml.pre", std::string("gpt-2")});
  metadata.push_back({"tokenizer.ggml.tokens", GgufArray(tokens)});
  metadata.push_back({"tokenizer.ggml.merges", GgufArray(Strings{"a b"})});
  metadata.push_back({"tokenizer.ggml.token_type", GgufArray(std::vector<std::int32_t>{1, 1, 1, 1, 1, 1, 1, 3})});
  metadata.push_back({"tokenizer.ggml.eos_token_id", std::uint32_t{end}});
  return Tokenizer::from_gguf(GgufFile(3, 0, std::move(metadata), {}));
}

/// A language model that knows its next tokens by heart: every projection makes the next token of the script likeliest.
/// Attention looks at the first token only, so pruning policies have something to rank.
class ScriptedGraph {
 public:
  explicit ScriptedGraph(std::vector<TokenId> script, std::size_t vocab_size = 8)
      : script_(std::move(script)), vocab_size_(vocab_size) {}

  [[nodiscard]] static std::size_t layer_count() { return 3; }
  [[nodiscard]] static std::size_t head_count() { return 1; }
  [[nodiscard]] static std::size_t hidden_dim() { return 1; }
  [[nodiscard]] std::size_t vocab_size() const { return vocab_size_; }

  void embed(std::span<const TokenId> ids, Rows hidden) {
    embedded.insert(embedded.end(), ids.begin(), ids.end());
    for (std::size_t r = 0; r < hidden.rows(); ++r) hidden.row(r)[0] = 0.0f;
  }
  void run_layer(const LayerStep& step) {
    ++layers_run;
    for (std::size_t row = 0; row < step.scores.query_rows(); ++row) {
      std::ranges::fill(step.scores.row(row, 0), 0.0f);
      step.scores.row(row, 0)[0] = 1.0f;
    }
  }
  void project(ConstRows, Rows logits) {
    std::ranges::fill(logits.row(0), 0.0f);
    logits.row(0)[static_cast<std::size_t>(script_.at(projections++))] = 1.0f;
  }

  std::vector<TokenId> embedded;  // every token that ran, in order
  std::size_t layers_run = 0;
  std::size_t projections = 0;

 private:
  std::vector<TokenId> script_;
  std::size_t vocab_size_;
};
static_assert(LanguageGraph<ScriptedGraph>);

/// A scripted model without pruning, and what generate says.
struct Run {
  explicit Run(std::vector<TokenId> script, std::size_t context_size = 100)
      : graph(std::move(script)), session(graph, KeepAll{}, SessionOptions{.context_size = context_size}) {}

  Generation operator()(const GenerateOptions& options) {
    return generate(session, tokenizer, sampler, options, [this](std::string_view text) {
      pieces.emplace_back(text);
      return true;
    });
  }

  Tokenizer tokenizer = small_tokenizer();
  Sampler sampler{SamplerOptions{.temperature = 0}};
  ScriptedGraph graph;
  LazySession<ScriptedGraph, KeepAll> session;
  std::vector<std::string> pieces;
};

using Ids = std::vector<TokenId>;
using Pieces = std::vector<std::string>;

GenerateOptions request(std::size_t max_tokens, std::vector<std::string> stop_strings = {}) {
  GenerateOptions options;
  options.prompt = {a, b};
  options.max_tokens = max_tokens;
  options.stop_strings = std::move(stop_strings);
  return options;
}

}  // namespace

static_assert(TextCallback<bool (*)(std::string_view)>);
static_assert(!TextCallback<void (*)(std::string_view)>);
static_assert(!TextCallback<bool (*)(int)>);

TEST_CASE("generate returns the sampled tokens and their text, and runs all but the last") {
  Run run({b, ab, c, a});
  const Generation result = run(request(3));
  CHECK(result.ids == Ids{b, ab, c});
  CHECK(result.text == "babc");
  CHECK(result.finish == FinishReason::length);
  CHECK(run.pieces == Pieces{"b", "ab", "c"});
  CHECK(run.graph.embedded == Ids{a, b, b, ab});
  CHECK(result.revived == std::vector<std::size_t>{0, 0});
  CHECK(result.time_to_first_logits.count() > 0);
}

TEST_CASE("an end token stops, is among the ids and not in the text; ignore_end goes on") {
  Run run({a, end, b, c});
  GenerateOptions options = request(4);
  SUBCASE("stops") {
    const Generation result = run(options);
    CHECK(result.ids == Ids{a, end});
    CHECK(result.text == "a");
    CHECK(result.finish == FinishReason::stop);
  }
  SUBCASE("goes on") {
    options.ignore_end = true;
    const Generation result = run(options);
    CHECK(result.ids == Ids{a, end, b, c});
    CHECK(result.text == "abc");
    CHECK(result.finish == FinishReason::length);
  }
}

TEST_CASE("a character cut into two tokens comes out whole, and at the end of the text as it is") {
  Run run({a, e_acute_1, e_acute_2, e_acute_1, b});
  SUBCASE("whole") {
    CHECK(run(request(3)).text == "a\xC3\xA9");
    CHECK(run.pieces == Pieces{"a", "\xC3\xA9"});
  }
  SUBCASE("unfinished") {
    CHECK(run(request(4)).text == "a\xC3\xA9\xC3");
    CHECK(run.pieces == Pieces{"a", "\xC3\xA9", "\xC3"});
  }
}

TEST_CASE("a stop string across tokens ends the text before it") {
  Run run({c, a, newline, b, newline, newline, c});
  const Generation result = run(request(7, {"\n\n"}));
  CHECK(result.text == "ca\nb");
  CHECK(result.finish == FinishReason::stop);
  CHECK(result.ids == Ids{c, a, newline, b, newline, newline});
  CHECK(run.pieces == Pieces{"c", "a", "\nb"});
}

TEST_CASE("a stop string may begin and end inside tokens, and match the bytes of a character in two tokens") {
  Run inside({c, ab, ab, c});
  CHECK(inside(request(4, {"ba"})).text == "ca");
  Run bytes({a, e_acute_1, e_acute_2, b});
  CHECK(bytes(request(4, {"\xC3\xA9"})).text == "a");
}

TEST_CASE("text held back for a stop string comes out at the end") {
  Run run({a, newline, b});
  CHECK(run(request(2, {"\n\n"})).text == "a\n");
  CHECK(run.pieces == Pieces{"a", "\n"});
}

TEST_CASE("on_text may stop the generation") {
  Run run({a, b, c});
  const Generation result =
      generate(run.session, run.tokenizer, run.sampler, request(3), [](std::string_view text) { return text != "b"; });
  CHECK(result.finish == FinishReason::cancelled);
  CHECK(result.ids == Ids{a, b});
  CHECK(result.text == "ab");
}

TEST_CASE("a stop token ends the prefill between two layers") {
  Run run({a, b});
  std::stop_source source;
  GenerateOptions options = request(2);
  options.stop_token = source.get_token();
  options.on_prefill = [&](std::size_t done, std::size_t) {
    if (done == 1) source.request_stop();
  };
  const Generation result = run(options);
  CHECK(result.finish == FinishReason::cancelled);
  CHECK(result.ids.empty());
  CHECK(run.graph.layers_run == 1);
  CHECK_THROWS_AS(run(request(2)), Error);  // an interrupted session says so
}

TEST_CASE("a stop token ends the generation between two steps, and the session can go on") {
  Run run({a, b, c, a, b});
  std::stop_source source;
  GenerateOptions options = request(3);
  options.stop_token = source.get_token();
  const Generation first = generate(run.session, run.tokenizer, run.sampler, options, [&](std::string_view text) {
    if (text == "b") source.request_stop();
    return true;
  });
  CHECK(first.finish == FinishReason::cancelled);
  CHECK(first.ids == Ids{a, b});
  GenerateOptions next = request(2);
  next.prompt = {first.ids.back(), c};
  CHECK(run(next).ids == Ids{c, a});
  CHECK(run.graph.embedded == Ids{a, b, a, b, c, c});
}

TEST_CASE("the prefill's progress names every layer once, and the first logits are shown once") {
  Run run({c, a});
  GenerateOptions options = request(2);
  std::vector<std::size_t> progress;
  std::vector<std::vector<float>> logits;
  options.on_prefill = [&](std::size_t done, std::size_t count) {
    CHECK(count == 3);
    progress.push_back(done);
  };
  options.on_first_logits = [&](std::span<const float> row) { logits.emplace_back(row.begin(), row.end()); };
  static_cast<void>(run(options));
  CHECK(progress == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(logits == std::vector<std::vector<float>>{{0, 0, 1, 0, 0, 0, 0, 0}});
}

TEST_CASE("nothing runs when the request is wrong") {
  Run run({a, b, c}, 4);
  const auto rejected = [&](const GenerateOptions& options) {
    CHECK_THROWS_AS(run(options), Error);
    CHECK(run.graph.layers_run == 0);
    CHECK(run.graph.embedded.empty());
  };
  rejected(request(3));  // 2 + 3 > 4
  rejected(request(std::numeric_limits<std::size_t>::max()));
  rejected(request(2, {""}));
  GenerateOptions options = request(1);
  options.prompt = {};
  rejected(options);
  options.prompt = {a, 8};
  rejected(options);
  options.prompt = {-1};
  rejected(options);
  // Exactly the context is fine.
  CHECK(run(request(2)).ids == Ids{a, b});
}

TEST_CASE("a model with more tokens than the tokenizer is refused") {
  ScriptedGraph graph({a}, 9);
  LazySession session(graph, KeepAll{}, SessionOptions{.context_size = 10});
  Sampler sampler(SamplerOptions{.temperature = 0});
  CHECK_THROWS_AS(static_cast<void>(generate(session, small_tokenizer(), sampler, request(1))), Error);
  CHECK(graph.layers_run == 0);
}

TEST_CASE("max_tokens 0 runs the prompt and generates nothing") {
  Run run({a});
  const Generation result = run(request(0));
  CHECK(result.ids.empty());
  CHECK(result.finish == FinishReason::length);
  CHECK(run.graph.embedded == Ids{a, b});
}

TEST_CASE("the repeat penalty sees the last tokens of prompt and generation, as many as the window holds") {
  // The script's token, `a`, has logit 1; it is penalised when the window reaches back to the prompt's first token.
  Run run({a, a});
  run.sampler = Sampler(SamplerOptions{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_penalty = 2});
  GenerateOptions options = request(1);
  const auto logit_of_a = [&] {
    const auto candidates = run.sampler.candidates();
    return std::ranges::find(candidates, TokenId{a}, &Sampler::Candidate::id)->logit;
  };
  SUBCASE("inside the window") {
    options.penalty_window = 2;
    static_cast<void>(run(options));
    CHECK(logit_of_a() == 0.5f);
  }
  SUBCASE("outside the window") {
    options.penalty_window = 1;
    static_cast<void>(run(options));
    CHECK(logit_of_a() == 1.0f);
  }
}

TEST_CASE("generated tokens leave the penalty window again") {
  Run run({a, c, a});
  run.sampler = Sampler(SamplerOptions{.temperature = 0, .repeat_penalty = 2});
  GenerateOptions options = request(3);
  options.prompt = {b};
  const auto last_logit = [&](std::size_t window) {
    options.penalty_window = window;
    CHECK(run(options).ids == Ids{a, c, a});
    return run.sampler.candidates().front().logit;
  };
  SUBCASE("outside") { CHECK(last_logit(1) == 1.0f); }
  SUBCASE("inside") { CHECK(last_logit(2) == 0.5f); }
}

TEST_CASE("revived counts the tokens that each decode step took out of the Aux Cache") {
  // The prefill keeps 1 of 3 after layer 0; without a schedule in decode, the first step revives the other two.
  ScriptedGraph graph({a, b, c});
  const TopKPolicy policy(MeanOverHeads{}, parse_schedule("0:1"), StepSchedule{});
  LazySession session(graph, policy, SessionOptions{.context_size = 10});
  Sampler sampler(SamplerOptions{.temperature = 0});
  GenerateOptions options = request(3);
  options.prompt = {a, b, c};
  const Generation result = generate(session, small_tokenizer(), sampler, options);
  CHECK(result.revived == std::vector<std::size_t>{2, 0});
}
