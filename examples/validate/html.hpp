// One page that shows what quantal-validate found: no script, no other files, no network.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "findings.hpp"

namespace quantal::validate {

/// The points of [{"name": NAME, "bytes": NUMBER, "kld": NUMBER}, ...]; examples/study's compare.json has "mix" for
/// the name. Errors name `origin` and the entry.
result<std::vector<reference_point>> parse_points(std::string_view json_text, const std::string& origin);

/// Verdict, sizes by type, errors of every tensor, KL divergence against bytes. All text is escaped.
std::string as_html(const findings& f);

}  // namespace quantal::validate
