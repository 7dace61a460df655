// Prompt in, text out: runs a session, samples token after token and hands their text on as soon as it is certain.
// Of n generated tokens the session runs the first n - 1: the last one needs no logits after it.
// Source: this library's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/text/sampler.hpp>
#include <lazyllm/text/stop_strings.hpp>
#include <lazyllm/text/streaming_decoder.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace lazyllm::inline v0 {

struct GenerateOptions {
  std::vector<TokenId> prompt = {};
  std::size_t max_tokens = 128;                ///< 0: the prompt runs, nothing is generated
  std::vector<std::string> stop_strings = {};  ///< the text ends before the first of them
  bool ignore_end = false;                     ///< go on after a token that ends a generation
  std::size_t penalty_window = 64;             ///< how many of the last tokens, prompt included, the sampler is shown
  /// A request from any thread ends the generation before the next step, or before the next layer of the prefill.
  std::stop_token stop_token = {};
  /// Progress of the prefill: called before each layer with (layers done, layer_count), and once when all are done.
  std::function<void(std::size_t, std::size_t)> on_prefill = {};
  /// Called once with the logits [vocab_size] after the prompt.
  std::function<void(std::span<const float>)> on_first_logits = {};
};

/// Why a generation ended: an end token or a stop string; max_tokens; the stop token or on_text asked for it.
enum class FinishReason { stop, length, cancelled };

struct Generation {
  std::vector<TokenId> ids;  ///< all generated, with the token that ended it
  std::string text;          ///< without control tokens and stop string
  FinishReason finish = FinishReason::length;
  std::vector<std::size_t> revived;  ///< tokens taken out of the Aux Cache, by decode step
  std::chrono::duration<double> time_to_first_logits{0};
  std::chrono::duration<double> decode_time{0};  ///< from the first token to the last
};

/// Takes text as it is made (whole UTF-8 characters, where the model makes them); false stops the generation.
template <class F>
concept TextCallback = std::predicate<F&, std::string_view>;

/// Runs options.prompt (after what the session already holds) and generates. The session can go on afterwards, unless a
/// prefill was cancelled; the last generated token has not run yet, so a next prompt starts with it.
/// Throws Error before any work for an empty prompt, an id outside the vocabulary, an empty stop string, a tokenizer
/// with fewer tokens than the model, or prompt and max_tokens together beyond the session's context.
/// Everything that grows by a fixed amount per token is reserved up front.
template <LanguageGraph Graph, PruningPolicy Policy, TextCallback OnText>
Generation generate(LazySession<Graph, Policy>& session, const Tokenizer& tokenizer, Sampler& sampler,
                    const GenerateOptions& options, OnText&& on_text);

/// The same without a callback: the text is in the result.
template <LanguageGraph Graph, PruningPolicy Policy>
Generation generate(LazySession<Graph, Policy>& session, const Tokenizer& tokenizer, Sampler& sampler,
                    const GenerateOptions& options) {
  return generate(session, tokenizer, sampler, options, [](std::string_view) { return true; });
}

/// Throws Error (limit) when a prompt and the tokens to generate do not fit into a context together. For callers that
/// want to know before they load a model; generate checks it too.
inline void check_fits_context(std::size_t prompt_tokens, std::size_t max_tokens, std::size_t context_size) {
  if (prompt_tokens > context_size || max_tokens > context_size - prompt_tokens) {
    throw Error(ErrorCode::limit, "a prompt of " + std::to_string(prompt_tokens) + " tokens and " +
                                      std::to_string(max_tokens) + " to generate exceed the context of " +
                                      std::to_string(context_size));
  }
}

namespace detail {

template <LanguageGraph Graph, PruningPolicy Policy>
void check_request(const LazySession<Graph, Policy>& session, const Tokenizer& tokenizer,
                   const GenerateOptions& options) {
  if (session.graph().vocab_size() > tokenizer.vocab_size()) {
    throw Error(ErrorCode::invalid_argument, "the model has " + std::to_string(session.graph().vocab_size()) +
                                                 " tokens, the tokenizer only " +
                                                 std::to_string(tokenizer.vocab_size()));
  }
  check_fits_context(options.prompt.size(), options.max_tokens, session.context_capacity() - session.context_size());
}

/// The token loop's text: from ids to what the caller sees.
template <class OnText>
class TextSink {
 public:
  TextSink(const Tokenizer& tokenizer, const std::vector<std::string>& stop_strings, std::string& text, OnText& on_text)
      : decoder_(tokenizer), filter_(stop_strings), text_(text), on_text_(on_text) {}

  /// False when on_text asked to stop.
  [[nodiscard]] bool push(TokenId id) { return emit(filter_.push(decoder_.push(id))); }
  [[nodiscard]] bool found_stop_string() const { return filter_.stopped(); }
  /// At the end of the stream: what was held back.
  void finish() {
    std::string rest = filter_.push(decoder_.flush());
    rest += filter_.flush();
    static_cast<void>(emit(rest));
  }

 private:
  bool emit(std::string_view text) {
    if (text.empty()) return true;
    text_ += text;
    return on_text_(text);
  }

  StreamingDecoder decoder_;
  StopStringFilter filter_;
  std::string& text_;
  OnText& on_text_;
};

}  // namespace detail

template <LanguageGraph Graph, PruningPolicy Policy, TextCallback OnText>
Generation generate(LazySession<Graph, Policy>& session, const Tokenizer& tokenizer, Sampler& sampler,
                    const GenerateOptions& options, OnText&& on_text) {
  using Clock = std::chrono::steady_clock;
  detail::check_request(session, tokenizer, options);
  Generation result;
  detail::TextSink<std::remove_reference_t<OnText>> sink(tokenizer, options.stop_strings, result.text, on_text);
  result.ids.reserve(options.max_tokens);
  result.revived.reserve(options.max_tokens);
  const std::span<const TokenId> prompt = options.prompt;
  const std::span<const TokenId> prompt_tail = prompt.last(std::min(options.penalty_window, prompt.size()));
  std::vector<TokenId> recent(prompt_tail.begin(), prompt_tail.end());
  recent.reserve(recent.size() + options.max_tokens);

  std::span<const float> logits;
  const Clock::time_point start = Clock::now();
  try {
    logits = session.prefill(prompt, [&](LayerIndex layer, std::size_t layer_count) {
      if (options.on_prefill) options.on_prefill(layer, layer_count);
      return !options.stop_token.stop_requested();
    });
  } catch (const Cancelled&) {
    result.finish = FinishReason::cancelled;
    return result;
  }
  result.time_to_first_logits = Clock::now() - start;
  if (options.on_prefill) options.on_prefill(session.graph().layer_count(), session.graph().layer_count());
  if (options.on_first_logits) options.on_first_logits(logits);

  Clock::time_point first_token;
  Clock::time_point last_token;
  result.finish = FinishReason::length;
  while (result.ids.size() < options.max_tokens) {
    if (options.stop_token.stop_requested()) {
      result.finish = FinishReason::cancelled;
      break;
    }
    if (!result.ids.empty()) {
      logits = session.decode(result.ids.back());
      result.revived.push_back(session.last_step().revived);
    }
    const std::size_t window = std::min(options.penalty_window, recent.size());
    const TokenId id = sampler.sample(logits, std::span(recent).last(window));
    result.ids.push_back(id);
    recent.push_back(id);
    last_token = Clock::now();
    if (result.ids.size() == 1) first_token = last_token;

    if (!options.ignore_end && tokenizer.is_end_of_generation(id)) {
      result.finish = FinishReason::stop;
      break;
    }
    const bool wanted = sink.push(id);
    if (sink.found_stop_string()) {
      result.finish = FinishReason::stop;
      break;
    }
    if (!wanted) {
      result.finish = FinishReason::cancelled;
      break;
    }
  }
  result.decode_time = last_token - first_token;
  if (result.finish != FinishReason::cancelled) sink.finish();
  return result;
}

}  // namespace lazyllm::inline v0
