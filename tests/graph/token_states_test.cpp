#include <doctest/doctest.h>

#include <lazyllm/graph/token_states.hpp>
#include <vector>

using namespace lazyllm;

namespace {

using Tokens = std::vector<TokenIndex>;

/// Five tokens in flight; token t's hidden state is 10 t.
TokenStates five_tokens() {
  TokenStates states(8, 3, 1);
  const Rows inputs = states.new_rows(5);
  for (std::size_t i = 0; i < 5; ++i) inputs.row(i)[0] = static_cast<float>(10 * i);
  states.add(5);
  return states;
}

std::vector<float> hidden(TokenStates& states) {
  std::vector<float> values;
  for (std::size_t i = 0; i < states.rows().size(); ++i) values.push_back(states.hidden().row(i)[0]);
  return values;
}
Tokens rows(const TokenStates& states) { return {states.rows().begin(), states.rows().end()}; }

}  // namespace

TEST_CASE("Rows that do not go on are parked, and come back to their places between the rows in flight") {
  TokenStates states = five_tokens();
  const Tokens all{0, 1, 2, 3, 4}, kept{1, 3, 4};
  CHECK(states.gather(all, 0) == 0);
  states.mark_computed(0);
  states.park_dropped(kept, 0, false);
  CHECK(states.is_parked(0));
  CHECK_FALSE(states.is_parked(1));
  CHECK(states.aux_bytes() == 2 * sizeof(float));
  CHECK(states.gather(kept, 1) == 0);
  CHECK(hidden(states) == std::vector<float>{10, 30, 40});
  CHECK(states.gather(all, 1) == 2);
  CHECK(rows(states) == all);
  CHECK(hidden(states) == std::vector<float>{0, 10, 20, 30, 40});
  CHECK(states.aux_bytes() == 0);
}

TEST_CASE("A token parked half-way is gathered for the second half of that layer, not for the next one") {
  TokenStates states = five_tokens();
  const Tokens all{0, 1, 2, 3, 4}, kept{0, 4};
  states.mark_computed(0);
  states.park_dropped(kept, 0, true);
  CHECK(states.gather_unfinished(kept, 0) == 0);
  CHECK(rows(states) == kept);
  CHECK_FALSE(states.any_unfinished(kept, 0));
  CHECK(states.any_unfinished(all, 0));
  CHECK_FALSE(states.any_unfinished(all, 1));
  CHECK(states.depth(2) == 1);
  const Tokens later{0, 2, 4};
  CHECK(states.gather_unfinished(later, 0) == 1);
  CHECK(hidden(states) == std::vector<float>{0, 20, 40});
  CHECK_FALSE(states.any_unfinished(later, 0));
}

TEST_CASE("The consecutive tail ends at a gap and at what is asked for") {
  TokenStates states = five_tokens();
  CHECK(states.consecutive_tail(0) == 0);
  CHECK(states.consecutive_tail(3) == 3);
  CHECK(states.consecutive_tail(9) == 5);
  states.park_dropped(Tokens{0, 1, 3, 4}, before_first_layer, false);
  states.gather(Tokens{0, 1, 3, 4}, 0);
  CHECK(states.consecutive_tail(9) == 2);
}
