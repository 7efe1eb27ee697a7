// quantal.Metadata: keys of a GGUF file with their types.
#pragma once

#include <memory>
#include <string>

#include "quantal/gguf/metadata.hpp"
#include "quantized.hpp"

namespace quantal::python {

/// Shared with a file and read-only, or its own.
class metadata_map {
 public:
  metadata_map() : own_(std::make_shared<gguf::metadata>()), shared_(own_) {}
  explicit metadata_map(std::shared_ptr<const gguf::metadata> of_file) : shared_(std::move(of_file)) {}

  const gguf::metadata& get() const noexcept { return *shared_; }
  /// TypeError for what belongs to a file.
  gguf::metadata& own();
  metadata_map copy() const;

 private:
  std::shared_ptr<gguf::metadata> own_;
  std::shared_ptr<const gguf::metadata> shared_;
};

/// None, a Metadata or a mapping, as the keys of a new file.
gguf::metadata metadata_of(nb::handle given);

}  // namespace quantal::python
