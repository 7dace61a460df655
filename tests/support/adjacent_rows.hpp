// Where a reader's rows lie, by their addresses.
#pragma once

#include <cstddef>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <span>

namespace lazyllm::test {

/// Whether a KV head's keys of these tokens lie one behind the other, and its values.
template <KeyValueReader KV>
bool rows_adjoin(const KV& kv, std::size_t kv_head, std::span<const TokenIndex> tokens) {
  const std::size_t key = row_size<KeyElementOf<KV>>(kv.head_dim()),
                    value = row_size<ValueElementOf<KV>>(kv.head_dim());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (kv.key(kv_head, tokens[i]) != kv.key(kv_head, tokens[0]) + i * key) return false;
    if (kv.value(kv_head, tokens[i]) != kv.value(kv_head, tokens[0]) + i * value) return false;
  }
  return true;
}

}  // namespace lazyllm::test
