// JSON from files that nobody vouches for: duplicate keys and deep nesting are errors, and nothing throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal::hf {

using document = nlohmann::json;

/// Parses `text`; errors begin with `name` and give the position or the key.
result<document> parse_json(std::string_view text, const std::string& name);

/// Parses a file of at most `max_bytes`, whose outermost value must be an object.
result<document> read_json_object(const std::filesystem::path& path,
                                  std::uint64_t max_bytes = std::uint64_t{256} << 20);

/// A member of an object, or null if it is absent or JSON's null.
const document* member(const document& object, const char* key);

}  // namespace quantal::hf
