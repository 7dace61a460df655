// Answers a question with a GGUF model and LazyLLM's pruning. Usage: lazyllm_generate MODEL.gguf ["QUESTION"]
#include <lazyllm/lazyllm.hpp>

#include <iostream>
#include <string>
#include <string_view>

int main(int argc, char** argv) try {
  const lazyllm::MappedFile file(argc > 1 ? argv[1] : "model.gguf");
  const lazyllm::GgufFile gguf = lazyllm::parse_gguf(file.bytes());
  const auto tokenizer = lazyllm::Tokenizer::from_gguf(gguf);
  const lazyllm::ChatMessage question{.role = "user", .content = argc > 2 ? argv[2] : "What is the capital of France?"};
  const std::string prompt = lazyllm::ChatTemplate::from_gguf(gguf).apply({&question, 1});

  lazyllm::ThreadPool pool(lazyllm::cpu_count());
  const auto weights = lazyllm::LlamaWeights<>::load(file, gguf, pool);
  lazyllm::Llama graph(weights, pool, 2048);
  const lazyllm::TopKPolicy policy(lazyllm::MeanOverHeads{}, lazyllm::recommended_schedule(weights->config()));
  const lazyllm::SessionOptions limits{.context_size = 2048, .decode_revivals = lazyllm::recommended_decode_revivals};
  lazyllm::LazySession session(graph, policy, limits);
  lazyllm::Sampler sampler({.temperature = 0});

  const lazyllm::GenerateOptions options{.prompt = tokenizer.encode(prompt, {.add_special = false}), .max_tokens = 64};
  const auto result = generate(session, tokenizer, sampler, options, [](std::string_view text) {
    return static_cast<bool>(std::cout << text << std::flush);
  });
  std::cout << "\n";
  return result.ids.empty() ? 1 : 0;
} catch (const std::exception& error) {
  std::cerr << "lazyllm_generate: " << error.what() << "\n";
  return 1;
}
