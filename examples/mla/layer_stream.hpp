// All chunks of a text through one block of the model, then the next: one block is in memory at a time, every weight is
// read once, and experts meet the tokens of many chunks together.
#pragma once

#include <filesystem>

#include "forward.hpp"
#include "hidden_states.hpp"
#include "progress.hpp"
#include "read_ahead.hpp"
#include "text_pass.hpp"

namespace quantal::mla {

/// Consecutive parts of at most `batch` tokens for every chunk of `size`.
std::vector<segment> parts_of(std::int64_t chunks, std::int64_t size, std::int64_t batch);

/// Chunks of `size` tokens that pay to go through a block together, and fit in a quarter of `ram` bytes (0: does not matter).
std::int64_t chunks_together(const config& c, const run_options& how, std::int64_t size, std::uint64_t ram,
                             bool all_experts);

/// Of a block's tensors.
byte_ranges bytes_of(const model& m, std::int64_t block);

class layer_stream {
 public:
  layer_stream(const model& m, const chunk_source& text, const runtime::dispatcher& arch,
               executor_ref executor, const pass_options& options, progress& bar);

  result<void> run(observer* watch, const chunk_sink& sink);
  const pass_report& report() const noexcept { return report_; }

 private:
  result<void> embed(hidden_states& h);
  result<void> run_block(std::int64_t block, hidden_states& h, observer* watch);
  result<void> run_batch(std::int64_t block, const layer& l, std::int64_t first, std::int64_t chunks,
                         float* h, observer* watch);
  result<void> run_output(hidden_states& h, observer* watch, const chunk_sink& sink);
  void read(std::int64_t block);
  std::int64_t chunks_at_once(bool all_experts) const;
  std::int64_t floats_per_chunk() const { return text_.size * model_.hyper.embedding; }
  error in_chunk(std::int64_t first, const error& e) const;
  void show(std::int64_t block, std::int64_t chunks);

  const model& model_;
  const chunk_source& text_;
  const pass_options& options_;
  progress& bar_;
  forward run_;
  block_cache cache_;
  read_ahead reader_;
  bool larger_than_ram_;
  pass_report report_;
};

}  // namespace quantal::mla
