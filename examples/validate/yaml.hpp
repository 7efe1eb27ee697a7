// YAML documents as JSON values: the part of YAML 1.2 that says what JSON can.
#pragma once

#include <string>
#include <string_view>

#include "json.hpp"
#include "quantal/result.hpp"

namespace quantal::validate {

/// One document. Plain scalars are null, true, false, finite numbers or text; quoted ones are text. Anchors,
/// aliases, tags, keys that are no scalars and repeated keys are errors, as is anything behind the document.
/// Errors name `origin` and the line.
result<json> parse_yaml(std::string_view text, const std::string& origin);

}  // namespace quantal::validate
