#include <doctest/doctest.h>

#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/text/chat_template.hpp>

#include "support/real_model.hpp"
#include "support/tokenizer_files.hpp"

#include <string>
#include <utility>
#include <vector>

namespace {

using lazyllm::ChatMessage;
using lazyllm::ChatTemplate;
using lazyllm::Error;

const nlohmann::json& golden() {
  static const nlohmann::json data = test::read_json("chat_golden.json");
  return data;
}

std::string source_of(const std::string& name) {
  for (const auto& entry : golden()) {
    if (entry["name"] == name) return entry["template"];
  }
  FAIL("no template " << name);
  return {};
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const std::size_t place = text.find(what);
  REQUIRE(place != std::string::npos);
  return text.replace(place, what.size(), by);
}

bool is_recognised(const std::string& source) {
  try {
    static_cast<void>(ChatTemplate::recognise(source));
  } catch (const Error& error) {
    CHECK(error.code() == lazyllm::ErrorCode::unsupported);
    return false;
  }
  return true;
}

TEST_CASE("A conversation is printed as Jinja prints the template") {
  for (const auto& entry : golden()) {
    const std::string name = entry["name"];
    CAPTURE(name);
    const auto chat = ChatTemplate::from_gguf(
        test::Metadata().set("tokenizer.chat_template", entry["template"].get<std::string>()).file());
    for (const auto& conversation : entry["conversations"]) {
      std::vector<ChatMessage> messages;
      for (const auto& message : conversation["messages"]) messages.push_back({message[0], message[1]});
      CHECK(chat.apply(messages) == conversation["with_prompt"].get<std::string>());
      CHECK(chat.apply(messages, false) == conversation["without"].get<std::string>());
    }
  }
}

TEST_CASE("The default system message is the file's own") {
  CHECK(ChatTemplate::recognise(source_of("smollm2")).default_system() ==
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  CHECK(ChatTemplate::recognise(source_of("qwen2")).default_system() == "You are a helpful assistant.");
  CHECK(ChatTemplate::recognise(source_of("with tools")).default_system() == "You answer, and it's all you do.");
  CHECK(ChatTemplate::recognise(source_of("spelled")).default_system() == "Answer \"briefly\".");
  CHECK(ChatTemplate::recognise(source_of("empty default")).default_system() == "");
  CHECK_FALSE(ChatTemplate::recognise(source_of("no default")).default_system().has_value());
}

TEST_CASE("The real model's template is recognised") {
  const auto path = real_model_path();
  if (!path) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  const lazyllm::MappedFile file(*path);
  const auto chat = ChatTemplate::from_gguf(lazyllm::parse_gguf(file.bytes()));
  const std::vector<ChatMessage> messages = {{"user", "Hi"}};
  CHECK(chat.apply(messages).ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
}

TEST_CASE("A template that prints anything else is refused") {
  const std::string plain = source_of("qwen2");
  REQUIRE(is_recognised(plain));
  const std::pair<const char*, const char*> changes[] = {
      {"'\\n' + message", "message"},                            // no newline after the role
      {"message['content'] +", "message['content'] | trim +"},   // a filter
      {"message['content'] +", "message['content'].strip() +"},  // a call
      {"+ '<|im_end|>' + '\\n'}}", "}}"},                        // no end
      {"{% endfor %}", "{{ '</s>' }}{% endfor %}"},              // more after each message
      {"{% for", "{{ bos_token }}{% for"},                       // more before
      {"loop.first and ", ""},                                   // a default system message for each message
      {"messages[0]['role'] !=", "messages[1]['role'] !="},      // another message decides
      {"!= 'system'", "== 'system'"},                            // the other way round
      {"!= 'system'", "!= 'system' and true"},                   // more conditions
      {"system\\n", "developer\\n"},                             // another role
      {"assistant\\n", "assistant\\n<think>"},                   // another generation prompt
      {"{% endfor %}", "{% endfor %}\n\n"},                      // literal text
      {"{% endfor %}", "{% endfor %} "},                         // the same
      {"if add_generation_prompt", "if not add_generation_prompt"},
      {"in messages", "in messages[1:]"},
  };
  for (const auto& [what, by] : changes) {
    if (is_recognised(replaced(plain, what, by))) FAIL_CHECK(what << " replaced by " << by);
  }
  CHECK_FALSE(is_recognised(plain + "!"));
  const std::string tools = source_of("with tools");
  CHECK_FALSE(is_recognised(tools + "!"));
  REQUIRE(is_recognised(tools));
  // Branches for tools may say anything, the rest may not.
  CHECK(is_recognised(replaced(tools, "You may call functions.", "Call functions!")));
  CHECK_FALSE(
      is_recognised(replaced(tools, "'<|im_start|>system\\n' + messages[0]", "'<|im_start|>system ' + messages[0]")));
  CHECK_FALSE(is_recognised(replaced(tools, "and not loop.first", "")));
  CHECK_FALSE(is_recognised(replaced(tools, "    {%- elif message.role == \"assistant\" %}", "    {%- set x = 1 %}")));
  CHECK_FALSE(is_recognised(replaced(tools, "{%- if tools %}", "{%- if documents %}")));
  for (const char* source : {"", "{", "{{", "{{}}", "{% %}", "{%", "{{ 'a }}", "{{ \"\\x41\" }}", "{# never closed",
                             "{% endfor %}{% endfor %}", "{% if tools %}", "{% if tools %}{% endfor %}", "a\r\nb"}) {
    CAPTURE(source);
    CHECK_FALSE(is_recognised(source));
  }
}

TEST_CASE("A recognised template cut off anywhere is refused") {
  for (const char* name : {"smollm2", "with tools", "spelled"}) {
    std::string source = source_of(name);
    while (source.ends_with('\n')) source.pop_back();
    for (std::size_t size = 0; size < source.size(); ++size) {
      if (is_recognised(source.substr(0, size))) FAIL_CHECK(name << " cut to " << size << " bytes");
    }
  }
}

TEST_CASE("What cannot be printed is an error that says why") {
  CHECK_THROWS_WITH_AS(static_cast<void>(ChatTemplate::recognise("{{ bos_token }}[INST]")),
                       "tokenizer.chat_template is none that is known (it begins \"{{ bos_token }}[INST]\"); supported "
                       "is ChatML as in SmolLM2, Qwen2 and Qwen2.5",
                       Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(ChatTemplate::from_gguf(test::Metadata().file())),
                       "GGUF key tokenizer.chat_template is missing, wanted string", Error);
  const auto tools = ChatTemplate::recognise(source_of("with tools"));
  CHECK_THROWS_WITH_AS(static_cast<void>(tools.apply({})), "chat template: a conversation of 0 messages", Error);
  const std::vector<ChatMessage> messages = {{"user", "x"}, {"tool", "42"}};
  CHECK_THROWS_WITH_AS(static_cast<void>(tools.apply(messages)),
                       "chat template: role \"tool\"; supported are system, user, assistant", Error);
}

}  // namespace
