// Downloads that gave something else than the file that was asked for.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace quantal::hf {

/// What begins like this, for messages: a pointer of Git LFS or a page of a web server. Empty for anything
/// else.
inline std::string impostor(std::string_view start) {
  if (start.starts_with("version https://git-lfs.github.com/spec/") ||
      start.starts_with("version https://hawser.github.com/spec/"))
    return "this is a Git LFS pointer, not the file it stands for; fetch the file itself (git lfs pull)";
  const auto first = start.find_first_not_of(" \t\r\n");
  std::string word(first == std::string_view::npos ? std::string_view{} : start.substr(first, 14));
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word.starts_with("<!doctype html") || word.starts_with("<html") || word.starts_with("<head"))
    return "this is an HTML page, not the file that was asked for; the download failed (a login or a wrong "
           "address?)";
  if (start.starts_with("Entry not found") || start.starts_with("Invalid username or password") ||
      start.starts_with("Access to model"))
    return "this is a server's refusal, not the file that was asked for; the download failed";
  return {};
}

}  // namespace quantal::hf
