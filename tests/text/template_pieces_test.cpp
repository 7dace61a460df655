#include <doctest/doctest.h>

#include <lazyllm/text/template_pieces.hpp>

#include <string>
#include <vector>

namespace {

using lazyllm::template_pieces;
using lazyllm::TemplatePiece;
using Kind = TemplatePiece::Kind;
using Pieces = std::vector<TemplatePiece>;

TEST_CASE("Spellings that mean the same give equal pieces") {
  const Pieces expected = {{Kind::text, "a\n"}, {Kind::value, "m.x"}, {Kind::text, "b"}};
  for (const char* source : {"a\n{{ m.x }}b", "{{ 'a\\n' + m['x'] + 'b' }}", "{{-\"a\\n\"-}}  {{ m [ \"x\" ] }}b",
                             "{# c #}a\n{{m.x}}{# d #}b\n", "  {# c #}\na\n{{ m . x }}b"}) {
    CAPTURE(source);
    CHECK(template_pieces(source) == expected);
  }
}

TEST_CASE("White space around blocks goes as trim_blocks and lstrip_blocks say, and as the dashes say") {
  CHECK(template_pieces("a\n  {% if x %}\n  b\n {%- endif %}\n c") == Pieces{{Kind::text, "a\n"},
                                                                             {Kind::statement, "if x"},
                                                                             {Kind::text, "  b"},
                                                                             {Kind::statement, "endif"},
                                                                             {Kind::text, " c"}});
  CHECK(template_pieces("a  {% if x -%}\n\n b {% endif %}\n\nc\n\n") == Pieces{{Kind::text, "a  "},
                                                                               {Kind::statement, "if x"},
                                                                               {Kind::text, "b "},
                                                                               {Kind::statement, "endif"},
                                                                               {Kind::text, "\nc\n"}});
  CHECK(
      template_pieces("  {{ x }}\n  {% y %}\n  {% z %}") ==
      Pieces{
          {Kind::text, "  "}, {Kind::value, "x"}, {Kind::text, "\n"}, {Kind::statement, "y"}, {Kind::statement, "z"}});
}

TEST_CASE("Statements are words with one space between them") {
  CHECK(template_pieces("{% if(a['b']==\"c d\" and\tm[0].r!='e')%}") ==
        Pieces{{Kind::statement, "if ( a.b == 'c d' and m[0].r != 'e' )"}});
  CHECK(template_pieces("{% if '%}' in x %}") == Pieces{{Kind::statement, "if '%}' in x"}});
}

TEST_CASE("A printed value that is more than a sum of strings and paths is one piece") {
  CHECK(template_pieces("{{ x|trim + 'y' }}") == Pieces{{Kind::value, "x | trim + 'y'"}});
  for (const char* source : {"{{ x + }}", "{{ + x }}", "{{ x y }}", "{{ (x) }}", "{{ x, y }}", "{{ f() }}"}) {
    CAPTURE(source);
    CHECK(template_pieces(source).size() == 1);
    CHECK(template_pieces(source)[0].body.find(' ') != std::string::npos);
  }
}

TEST_CASE("What does not end is an error that shows the place") {
  CHECK_THROWS_WITH_AS(static_cast<void>(template_pieces("ab{{ x | trim")),
                       "chat template: unknown syntax at \"{{ x | trim\"", lazyllm::Error);
  for (const char* source : {"{{ 'a", "{{ 'a }}", "{{ x", "{% x", "{# x", "{{}}", "{%%}", "{{ '\\u0041' }}", "\r"}) {
    CAPTURE(source);
    CHECK_THROWS_AS(static_cast<void>(template_pieces(source)), lazyllm::Error);
  }
}

}  // namespace
