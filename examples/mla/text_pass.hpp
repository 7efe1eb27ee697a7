// A text through a model, chunk by chunk or layer by layer: the one way in which programs run models over texts.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "corpus.hpp"
#include "forward.hpp"
#include "hidden_states.hpp"
#include "progress.hpp"

namespace quantal::mla {

struct chunk_source {
  std::int64_t count, size;
  std::function<std::vector<std::int32_t>(std::int64_t)> tokens;  ///< of a chunk, as the model sees them
};

/// The chunks of a text that was loaded; it must outlive the source.
chunk_source chunks_of(const corpus& text);

/// Takes the logits of a chunk, from pass_options::first_logits on, in the order of chunks; answers a note for the
/// progress bar.
using chunk_sink = std::function<result<std::string>(std::int64_t chunk, std::span<const float> logits)>;

struct pass_options {
  run_options how = {};
  std::int64_t batch = 0;  ///< tokens of a chunk that are evaluated together; 0: all
  bool logits = true;
  std::int64_t first_logits = 0;

  // Of streamed models:
  std::uint64_t ram = 0;                ///< bytes that the run may take; 0: does not matter
  std::filesystem::path scratch = ".";  ///< folder of temporary files
  std::int64_t chunks_at_once = 0;      ///< 0: as many as pay and fit
  hidden_states* hidden = nullptr;      ///< where the run keeps its state
  std::int64_t first_block = 0;         ///< blocks that `hidden` has been through
  std::function<result<void>(std::int64_t block)> after_block = {};
};

/// What a pass took. Times are seconds.
struct pass_report {
  std::int64_t tokens = 0, blocks = 0;
  double seconds = 0;
  double embedding = 0, compute = 0, output = 0;  ///< compute: blocks, without waiting
  double operations = 0;                          ///< of products in blocks
  double waiting = 0;                             ///< for weights that were not read yet
  double reading = 0;                             ///< of the thread that reads ahead
  std::uint64_t bytes = 0;                        ///< that it read
  double keeping = 0;                             ///< in after_block, and for kept states to be written
};

/// Steps of the progress bar.
std::int64_t pass_steps(const model& m, std::int64_t chunks);

/// Statistics and logits do not depend on threads nor on whether the model is streamed, bit for bit. Errors begin with
/// the chunk.
result<pass_report> run_text(const model& m, const chunk_source& text, const runtime::dispatcher& arch,
                             executor_ref executor, const pass_options& options, progress& bar,
                             observer* watch, const chunk_sink& sink);

}  // namespace quantal::mla
