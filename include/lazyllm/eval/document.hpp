// A puzzle's facts among as much filler as fits: the document that the questions are about.
// Each fact stands between two pieces of filler, at its share of them; nothing in the filler repeats a secret.
// Source: RULER, arXiv 2404.06654, section 3.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/draw.hpp>
#include <lazyllm/eval/number_tasks.hpp>
#include <lazyllm/eval/puzzle.hpp>
#include <lazyllm/eval/source_text.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// A document as its pieces of filler and the facts between them.
class Document {
 public:
  /// As many pieces as have at most `filler_tokens` tokens together, from a place in the text that `draw` chooses.
  /// Throws Error (invalid_argument) where every sentence of the text repeats a secret, or pairs run out of keys.
  Document(Puzzle puzzle, std::size_t filler_tokens, const SourceText& source, const Tokenizer& tokenizer, Draw& draw)
      : facts_(std::move(puzzle.facts)) {
    std::ranges::stable_sort(facts_, {}, &Fact::depth);
    if (puzzle.filler == Filler::pairs) {
      add_pairs(puzzle, filler_tokens, tokenizer, draw);
    } else {
      add_sentences(puzzle, filler_tokens, source, draw);
    }
  }

  [[nodiscard]] std::size_t pieces() const { return filler_.size(); }

  /// The text with the first `pieces` pieces only; facts keep their shares. Pieces are apart by a space where neither
  /// side has a line's end.
  [[nodiscard]] std::string text(std::size_t pieces) const {
    std::string text;
    const auto add = [&text](std::string_view piece) {
      const bool apart = text.empty() || text.back() == '\n' || piece.front() == '\n';
      if (!apart) text += ' ';
      text += piece;
    };
    auto fact = facts_.begin();
    for (std::size_t i = 0; i <= pieces; ++i) {
      const double share = pieces == 0 ? 1 : static_cast<double>(i) / static_cast<double>(pieces);
      for (; fact != facts_.end() && (i == pieces || fact->depth <= share); ++fact) add(fact->text);
      if (i < pieces) add(filler_[i]);
    }
    return text;
  }

 private:
  void add_sentences(const Puzzle& puzzle, std::size_t filler_tokens, const SourceText& source, Draw& draw) {
    const std::size_t start = draw.below(source.size());
    std::size_t tokens = 0;
    std::size_t skipped = 0;
    for (std::size_t i = start;; ++i) {
      const SourceText::Sentence& sentence = source.sentence(i);
      if (std::ranges::any_of(puzzle.secrets, [&](auto& s) { return count_word(sentence.text, s) != 0; })) {
        if (++skipped == source.size()) {
          throw Error(ErrorCode::invalid_argument, "every sentence of the text has '" + puzzle.secrets[0] + "' in it");
        }
        continue;
      }
      skipped = 0;
      tokens += sentence.tokens;
      if (tokens > filler_tokens) return;
      filler_.push_back(sentence.text);
    }
  }

  void add_pairs(const Puzzle& puzzle, std::size_t filler_tokens, const Tokenizer& tokenizer, Draw& draw) {
    std::vector<std::pair<std::string_view, std::string_view>> keys;
    for (const std::string_view adjective : words::adjectives) {
      for (const std::string_view noun : words::nouns) keys.emplace_back(adjective, noun);
    }
    std::size_t tokens = 0;
    for (std::size_t i = 0;; ++i) {
      if (i + 1 == keys.size()) {
        throw Error(ErrorCode::invalid_argument, "key-value lines of " + std::to_string(filler_tokens) +
                                                     " tokens: there are only " + std::to_string(keys.size()) +
                                                     " keys");
      }
      std::swap(keys[i], keys[i + draw.below(keys.size() - i)]);
      const std::string key = detail::magic_key(keys[i].first, keys[i].second);
      const std::string number = draw.numbers(1)[0];
      if (number == puzzle.secrets[0] || facts_[0].text.find(key) != std::string::npos) continue;
      std::string line = detail::pair_line(key, number);
      tokens += tokenizer.encode(line, {.add_special = false}).size();
      if (tokens > filler_tokens) return;
      filler_.push_back(std::move(line));
    }
  }

  std::vector<Fact> facts_;
  std::vector<std::string> filler_;
};

}  // namespace lazyllm::inline v0
