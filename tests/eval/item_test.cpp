// Items in tokens: their length, the answer's only place, the turns of a second question, continuations.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/item.hpp>

#include "support/eval_text.hpp"

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

const ChatTemplate chatml = ChatTemplate::recognise(
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");

const SourceText& source() {
  static const SourceText text(natural_text, byte_tokenizer());
  return text;
}

std::string text_of(const std::vector<TokenId>& ids) { return byte_tokenizer().decode(ids, true); }

/// The answer of a task of one question, without the space before it.
std::string answer_of(const Item& item) { return text_of(item.turns.back().answer).substr(1); }

constexpr std::size_t length = 1200;  // the tokenizer has little more than bytes

}  // namespace

TEST_CASE("the answer stands in the prompt once, at its depth, and the prompt has the length") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {.seed = 3});
  for (const Task task : {Task::needle, Task::keys, Task::paraphrase, Task::documents, Task::facts, Task::pairs}) {
    for (const double depth : {0.0, 0.5, 1.0}) {
      for (std::size_t index = 0; index < 8; ++index) {
        CAPTURE(name(task));
        CAPTURE(depth);
        CAPTURE(index);
        const Item item = maker.make({task, length, depth, index});
        REQUIRE(item.turns.size() == 1);
        const Turn& turn = item.turns[0];
        CHECK(turn.lead.empty());
        CHECK(turn.prompt.size() <= length);
        CHECK(turn.prompt.size() > length - 120);  // the longest sentence is shorter
        const std::string prompt = text_of(turn.prompt);
        const std::string answer = answer_of(item);
        REQUIRE(count_word(prompt, answer) == 1);
        // Shares of the pieces, whose sizes differ; in the middle of its document where there are several.
        const std::size_t begin = prompt.find("Remember them.\n\n") + 16;
        const std::size_t end = prompt.rfind("\n\n");
        const auto place = static_cast<double>(prompt.find(answer) - begin) / static_cast<double>(end - begin);
        CHECK(std::abs(place - depth) <= 0.2);
        CHECK(prompt.starts_with("<|im_start|>user\n"));
        CHECK(prompt.find("<|im_start|>assistant\n") != std::string::npos);
      }
    }
  }
}

TEST_CASE("several values stand in the prompt once each, in the order of the answer") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {});
  for (std::size_t index = 0; index < 8; ++index) {
    const Item item = maker.make({Task::values, length, 0.3, index});
    const std::string prompt = text_of(item.turns[0].prompt);
    const std::string answer = answer_of(item);  // 1234, 5678 and 9012
    REQUIRE(answer.size() == 19);
    std::size_t before = 0;
    for (const std::string& value : {answer.substr(0, 4), answer.substr(6, 4), answer.substr(15)}) {
      CHECK(count_word(prompt, value) == 1);
      CHECK(prompt.find(value) > before);
      before = prompt.find(value);
    }
  }
}

TEST_CASE("the text's own numbers and names never double an answer") {
  // All of this text's sentences but one hold the word that some items ask for.
  const SourceText cities("He saw Lisbon. They left Oslo. It was Toronto. All was well. In Nairobi they slept.",
                          byte_tokenizer());
  const ItemMaker maker(cities, byte_tokenizer(), nullptr, {});
  for (std::size_t index = 0; index < 40; ++index) {
    const Item item = maker.make({Task::facts, 900, 0.5, index});
    CHECK(count_word(text_of(item.turns[0].prompt), answer_of(item)) == 1);
  }
}

TEST_CASE("items are those of the seed and the key, whatever else was made") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {.seed = 5});
  const ItemMaker same(source(), byte_tokenizer(), &chatml, {.seed = 5});
  const ItemMaker other(source(), byte_tokenizer(), &chatml, {.seed = 6});
  static_cast<void>(same.make({Task::facts, length, 0.1, 9}));
  const ItemKey key{Task::needle, length, 0.5, 2};
  CHECK(maker.make(key).turns[0].prompt == same.make(key).turns[0].prompt);
  CHECK(maker.make(key).turns[0].prompt != other.make(key).turns[0].prompt);
  CHECK(maker.make(key).turns[0].prompt != maker.make({Task::needle, length, 0.5, 3}).turns[0].prompt);
}

TEST_CASE("own words move the lead from the prompt to the generated tokens") {
  const ItemMaker given(source(), byte_tokenizer(), &chatml, {});
  const ItemMaker own(source(), byte_tokenizer(), &chatml, {.own_words = true});
  const ItemKey key{Task::needle, length, 0.5, 0};
  const Turn a = given.make(key).turns[0];
  const Turn b = own.make(key).turns[0];
  CHECK(text_of(b.prompt).ends_with("<|im_start|>assistant\n"));
  CHECK(text_of(b.lead).starts_with("The special magic number for "));
  CHECK(text_of(a.prompt).ends_with(text_of(b.lead)));
  CHECK(a.answer == b.answer);
}

TEST_CASE("a second question goes on where the first one's answer ends, as one conversation") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {});
  const Item item = maker.make({Task::second, length, 0.5, 1});
  REQUIRE(item.turns.size() == 2);
  const std::string first = text_of(item.turns[0].prompt);
  const std::string answer = text_of(item.turns[0].answer);
  const std::string second = text_of(item.turns[1].prompt);
  CHECK(second.starts_with("<|im_end|>\n<|im_start|>user\nWhat is the special magic number for "));
  CHECK(second.find("?<|im_end|>\n<|im_start|>assistant\nThe special magic number for ") != std::string::npos);
  CHECK(count_word(first, answer.substr(1)) == 1);
  CHECK(count_word(first, answer_of(item)) == 1);
  CHECK(count_word(second, answer_of(item)) == 0);
  CHECK(item.context_size() == item.turns[0].prompt.size() + item.turns[0].answer.size() + item.turns[1].prompt.size() +
                                   item.turns[1].answer.size());
}

TEST_CASE("without a chat template the question ends in 'Answer:'") {
  const ItemMaker maker(source(), byte_tokenizer(), nullptr, {});
  const Item item = maker.make({Task::second, length, 0.5, 1});
  CHECK(text_of(item.turns[0].prompt).starts_with("Some facts are hidden"));
  CHECK(text_of(item.turns[0].prompt).find("?\nAnswer: The special magic number for ") != std::string::npos);
  CHECK(text_of(item.turns[1].prompt).starts_with("\n\nWhat is the special"));
}

TEST_CASE("a continuation is a stretch of the text, cut where the prompt ends") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {.continuation_tokens = 10});
  const Item item = maker.make({Task::continuation, 100, 0, 4});
  REQUIRE(item.turns.size() == 1);
  CHECK(item.turns[0].prompt.size() == 100);
  CHECK(item.turns[0].answer.size() == 10);
  std::string repeated;
  for (std::size_t i = 0; i < 3 * source().size(); ++i) repeated += source().sentence(i).text + " ";
  CHECK(repeated.find(text_of(item.turns[0].prompt) + text_of(item.turns[0].answer)) != std::string::npos);
}

TEST_CASE("a length without room for the task is refused with both numbers") {
  const ItemMaker maker(source(), byte_tokenizer(), &chatml, {});
  CHECK_THROWS_WITH_AS(maker.make({Task::keys, 50, 0.5, 0}), doctest::Contains("50 tokens has no room"), Error);
  CHECK_THROWS_AS(maker.make({Task::continuation, 0, 0.5, 0}), Error);
  CHECK_THROWS_WITH_AS(maker.make({Task::pairs, 40000, 0.5, 0}), doctest::Contains("only 1024 keys"), Error);
}

TEST_CASE("a text in which every sentence gives the answer away is refused") {
  Puzzle puzzle{{{"The number is 7.", 0.5}}, {{"Which number?", "The number is", "7"}}, {"7"}};
  const SourceText sevens("7 is here. And 7 is there.", byte_tokenizer());
  Draw draw(1);
  CHECK_THROWS_WITH_AS(Document(puzzle, 100, sevens, byte_tokenizer(), draw), doctest::Contains("'7'"), Error);
}
