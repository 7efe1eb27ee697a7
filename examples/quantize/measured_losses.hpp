// Losses of a model that somebody measured with one tensor in one type: CSV tables.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "quantal/formats.hpp"
#include "quantal/result.hpp"

namespace quantal::plan {

class measured_losses {
 public:
  /// What was measured with `type` in this tensor; nothing if it was not.
  std::optional<double> of(const std::string& tensor, std::uint32_t type) const;
  /// All that was measured of a tensor: losses by type.
  const std::map<std::uint32_t, double>& of(const std::string& tensor) const;
  bool empty() const noexcept { return losses_.empty(); }

 private:
  friend result<measured_losses> parse_measured_losses(std::string_view, const std::string&);
  std::map<std::string, std::map<std::uint32_t, double>> losses_;
};

/// Two layouts, told apart by the header: a line per measurement with the columns tensor, type and value (also called name, qtype,
/// kld, kl_divergence), in any order, others are ignored; or a line per type, whose first column is type (or qtype), with a column
/// per tensor. Not measured: empty, -, ?, nan, n/a, null, 404. Values may end in %. What is below zero is noise and counts as
/// zero. Lines that begin with # are comments. Errors name `origin`, the line and the cause.
result<measured_losses> parse_measured_losses(std::string_view csv, const std::string& origin);

}  // namespace quantal::plan
