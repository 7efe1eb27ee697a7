// The residual stream of every token of a text, between two blocks: in memory, on disk, or kept for a later run.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "quantal/result.hpp"
#include "unnamed_file.hpp"

namespace quantal::mla {

/// A file of floats, mapped for writing. Move-only.
class mapped_floats {
 public:
  /// Creates it or, with `keep`, takes the one that is there. Space on the disk is reserved.
  static result<mapped_floats> open(const std::filesystem::path& path, std::int64_t floats, bool keep);
  mapped_floats(mapped_floats&& o) noexcept;
  ~mapped_floats();

  std::span<float> values() noexcept { return values_; }
  result<void> sync();

 private:
  mapped_floats(std::string path, std::span<float> values) : path_(std::move(path)), values_(values) {}
  std::string path_;
  std::span<float> values_;
};

class hidden_states {
 public:
  /// In memory or, if they take more than `ram` bytes, in a file without a name in `folder`.
  static result<hidden_states> temporary(std::int64_t floats, std::uint64_t ram,
                                         const std::filesystem::path& folder);
  /// In the files hidden.0 and hidden.1 of `folder`. `current`: which of them holds what an earlier run made of
  /// them; nothing: there was none.
  static result<hidden_states> kept(std::int64_t floats, const std::filesystem::path& folder,
                                    std::optional<int> current);

  /// Before the block, and after it; the same memory where nothing is kept.
  std::span<float> before() noexcept { return parts_[static_cast<std::size_t>(current_)].values; }
  std::span<float> after() noexcept {
    return parts_[(static_cast<std::size_t>(current_) + 1) % parts_.size()].values;
  }
  /// The block is done: what is after it is on the disk if it is kept.
  result<void> advance();
  int current() const noexcept { return current_; }

 private:
  struct part {
    std::span<float> values;
    std::vector<float> memory = {};
    std::unique_ptr<mapped_floats> file = {};
    std::unique_ptr<unnamed_file> holder = {};
  };
  std::vector<part> parts_;
  int current_ = 0;
};

}  // namespace quantal::mla
