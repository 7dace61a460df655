#include <doctest/doctest.h>
#include <lazyllm/text/stop_strings.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

using lazyllm::StopStringFilter;

namespace {

/// The oracle: cuts the whole text before the stop string whose end comes first.
std::string cut(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop) && stop.size() > longest) longest = stop.size();
    }
    if (longest != 0) return text.substr(0, end - longest);
  }
  return text;
}

}  // namespace

TEST_CASE("without stop strings all text passes at once") {
  StopStringFilter filter({});
  CHECK(filter.push("abc") == "abc");
  CHECK(filter.push("").empty());
  CHECK(filter.flush().empty());
  CHECK_FALSE(filter.stopped());
}

TEST_CASE("text is held back exactly while it may be the start of a stop string") {
  StopStringFilter filter({"END", "\n\n"});
  CHECK(filter.push("a E") == "a ");
  CHECK(filter.push("N") == "");
  CHECK(filter.push("E") == "EN");
  CHECK(filter.push("x\n") == "Ex");
  CHECK(filter.push("y") == "\ny");
  CHECK_FALSE(filter.stopped());
  CHECK(filter.push("EN") == "");
  CHECK(filter.flush() == "EN");
}

TEST_CASE("a stop string is found across pieces, and neither it nor what follows comes out") {
  StopStringFilter filter({"<end>"});
  CHECK(filter.push("yes<e") == "yes");
  CHECK(filter.push("nd> no") == "");
  CHECK(filter.stopped());
  CHECK(filter.push("more").empty());
  CHECK(filter.flush().empty());
}

TEST_CASE("an empty stop string is an error") { CHECK_THROWS_AS(StopStringFilter({"a", ""}), lazyllm::Error); }

TEST_CASE("the text that passes does not depend on how the stream is cut into pieces") {
  const std::vector<std::vector<std::string>> stop_lists = {{"aab"},      {"abab", "ba"}, {"b", "abc"},
                                                            {"abc", "c"}, {"aaaa"},       {"\xC3\xA9\xC3\xA9"}};
  const std::vector<std::string> texts = {
      "aaabaab", "ababab", "abcabc", "aaacaaaaab", "cabacaba", "bbbabab", "x\xC3\xA9\xC3\xA9", "\xC3\xA9-\xC3\xA9"};
  for (const auto& stops : stop_lists) {
    for (const std::string& text : texts) {
      const std::string expected = cut(text, stops);
      // Every subset of the places between two bytes.
      for (std::size_t cuts = 0; cuts < (std::size_t{1} << (text.size() - 1)); ++cuts) {
        StopStringFilter filter(stops);
        std::string passed;
        std::string piece;
        for (std::size_t i = 0; i < text.size(); ++i) {
          piece += text[i];
          if (i + 1 < text.size() && ((cuts >> i) & 1u) == 0) continue;
          passed += filter.push(piece);
          piece.clear();
        }
        passed += filter.flush();
        REQUIRE(passed == expected);
        REQUIRE(filter.stopped() == (expected != text));
      }
    }
  }
}
