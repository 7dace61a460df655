// The LazyLLM engine for a model graph of one's own: policies, Aux Cache and session. Standard library only.
#pragma once

#include <lazyllm/cache/aux_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/filter_prompt.hpp>
#include <lazyllm/graph/layer_selection.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/baselines.hpp>
#include <lazyllm/prune/keep_rule.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <lazyllm/version.hpp>
