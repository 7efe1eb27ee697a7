// Converted tensors until the output takes them: a plan that is carried out in another order than the output's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "hidden_states.hpp"
#include "plan.hpp"
#include "text.hpp"
#include "unnamed_file.hpp"

namespace quantal::plan {

/// In a file without a name, whose space is reserved at the start.
class step_store {
 public:
  static result<step_store> in(const std::filesystem::path& folder, const model_plan& plan) {
    step_store s;
    s.ends_.push_back(0);
    for (const auto& step : plan.steps) s.ends_.push_back(s.ends_.back() + step.bytes);
    auto holder = unnamed_file::in(folder);
    if (!holder) return holder.error();
    s.holder_ = std::make_unique<unnamed_file>(std::move(*holder));
    const auto floats = static_cast<std::int64_t>(s.ends_.back() / sizeof(float) + 1);
    auto file = mla::mapped_floats::open(s.holder_->path(), floats, false);
    if (!file)
      return error{(folder.empty() ? "." : folder.string()) + ": no room for the converted tensors, " +
                   text::human_size(s.ends_.back()) + ": " + file.error().message};
    s.file_ = std::make_unique<mla::mapped_floats>(std::move(*file));
    s.filled_.assign(plan.steps.size(), 0);
    return s;
  }

  /// The next bytes of a step.
  result<void> append(std::size_t step, std::span<const std::byte> bytes) {
    const auto at = ends_[step] + filled_[step];
    if (bytes.size() > ends_[step + 1] - at) return error{"a converted tensor is larger than planned"};
    std::copy(bytes.begin(), bytes.end(), all().begin() + static_cast<std::ptrdiff_t>(at));
    filled_[step] += bytes.size();
    return {};
  }
  /// What has been appended.
  std::span<const std::byte> bytes(std::size_t step) const {
    return all().subspan(ends_[step], filled_[step]);
  }

 private:
  std::span<std::byte> all() const { return std::as_writable_bytes(file_->values()); }

  std::unique_ptr<unnamed_file> holder_;
  std::unique_ptr<mla::mapped_floats> file_;
  std::vector<std::uint64_t> ends_, filled_;
};

}  // namespace quantal::plan
