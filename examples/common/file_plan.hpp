// The files that a command line names, checked before any work: inputs stay as they are, outputs can be written.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "quantal/result.hpp"

namespace quantal {

class file_plan {
 public:
  /// Empty paths are skipped: the option was not given. Of a split model the first file stands for all, a folder for
  /// the files in it. `name` is the option or argument, for messages.
  file_plan& input(const std::string& name, const std::filesystem::path& path);
  file_plan& output(std::string name, const std::filesystem::path& path);
  template <class Paths>
  file_plan& inputs(const std::string& name, const Paths& paths) {
    for (const auto& p : paths) input(name, p);
    return *this;
  }
  /// The program prints text: no output may be what standard output or standard error is redirected to.
  file_plan& prints() { return prints_ = true, *this; }

  /// Errors: an output that is an input or another output, by whatever name (path, symbolic link, hard link, file of
  /// a split model, file of a folder); one that cannot be created or replaced; standard output or standard error
  /// that would be written into an input or, where the program prints, into an output.
  result<void> check() const;

 private:
  struct named_file {
    std::string name;
    std::filesystem::path path;
  };
  result<void> check_output(std::size_t i) const;
  result<void> check_streams() const;

  std::vector<named_file> inputs_, outputs_;
  bool prints_ = false;
};

}  // namespace quantal
