// What a streamed collection leaves on the disk after every block, so that a run that was ended goes on from there.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "json.hpp"
#include "quantal/imatrix/store.hpp"

namespace quantal::mla {

/// A folder that one run uses at a time. Move-only.
class stream_state {
 public:
  /// Takes the folder, or makes it. `identity`: whatever decides what is collected, by the option that says it. A state
  /// of another identity is refused by the name of what differs.
  static result<stream_state> open(const std::filesystem::path& folder, json identity);
  stream_state(stream_state&& o) noexcept;
  ~stream_state();

  const std::filesystem::path& folder() const noexcept { return folder_; }
  /// Blocks that are done.
  std::int64_t blocks() const noexcept { return blocks_; }
  /// Which of the kept hidden states is theirs.
  std::optional<int> hidden() const noexcept { return hidden_; }
  /// What had been collected; only if blocks are done.
  result<imatrix::store> statistics() const;
  /// Second moments of a block.
  std::filesystem::path moments(std::int64_t block) const;

  /// A block is done.
  result<void> keep(std::int64_t blocks, int hidden, const imatrix::store& statistics);
  /// The results are in their files: removes the state's own files, and the folder if nothing else is in it.
  void remove() noexcept;

 private:
  stream_state(std::filesystem::path folder, json identity, int lock)
      : folder_(std::move(folder)), identity_(std::move(identity)), lock_(lock) {}
  result<void> read();
  std::filesystem::path statistics_of(std::int64_t blocks) const;

  std::filesystem::path folder_;
  json identity_;
  int lock_;
  bool fresh_ = false;  ///< holds nothing to go on from
  std::int64_t blocks_ = 0;
  std::optional<int> hidden_;
};

/// 64 bits that tell sequences of bytes apart, for identities.
std::string digest(std::span<const std::byte> bytes);

}  // namespace quantal::mla
