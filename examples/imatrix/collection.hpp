// One collection: a model over a text, watched by the collectors; streamed runs keep a state after every block.
#pragma once

#include <functional>
#include <optional>

#include "collector.hpp"
#include "moments_collector.hpp"
#include "pass_report.hpp"
#include "scoring.hpp"
#include "stream_state.hpp"

namespace quantal::mla {

struct collection_options {
  run_options how;
  std::int64_t batch = 0;  ///< tokens per pass; 0: a whole chunk
  bool perplexity = true;
  std::uint64_t ram = 0;          ///< bytes that a streamed run may take
  std::filesystem::path scratch;  ///< folder of temporary files
  /// Folder of the state of a streamed run; empty: it has none.
  std::filesystem::path state;
  json identity;  ///< of the state
  /// After every chunk of a model in memory.
  std::function<result<void>(std::int64_t chunks)> after_chunk;
};

struct collection {
  pass_report pass;
  running_mean nll;
  imatrix::moments_source moments;    ///< without datasets
  std::optional<stream_state> state;  ///< to be removed once the results are in their files
};

/// `c` holds earlier statistics, or none. `moments`: null without second moments.
result<collection> collect(const model& m, const corpus& text, collector& c, moments_collector* moments,
                           executor_ref threads, const collection_options& o);

}  // namespace quantal::mla
