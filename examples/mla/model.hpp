// A model that can run: its file, what its metadata say, and its tensors.
#pragma once

#include <filesystem>
#include <memory>

#include "config.hpp"
#include "weights.hpp"

namespace quantal::mla {

struct model {
  std::unique_ptr<gguf::reader> file;
  config hyper;
  weights tensors;
  /// The layers are not complete (complete_layer); only a layer_stream runs such a model.
  bool streamed = false;

  std::uint64_t bytes() const noexcept;  ///< of all tensors in the file
};

/// Whether a model is in memory as a whole while it runs, or layer by layer.
struct residence {
  bool stream = false;    ///< layer by layer, however much memory there is
  std::uint64_t ram = 0;  ///< bytes of memory; a model that exceeds them is streamed; 0: never
};

/// Opens, validates and prepares a model; errors name the file and the tensor or key.
result<model> load_model(const std::filesystem::path& path, residence where = {});

}  // namespace quantal::mla
