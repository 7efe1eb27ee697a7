// What a pass took, phase by phase, and the limits of the machine for each.
#pragma once

#include "json.hpp"
#include "text_pass.hpp"

namespace quantal::mla {

/// As measured in the same run; 0: could not be.
struct machine_limits {
  double bytes_per_second = 0;       ///< of the disk under the model, past the system's cache
  double operations_per_second = 0;  ///< of products of float32 from the first caches, with all threads
};

machine_limits measure_limits(const model& m, const runtime::dispatcher& arch, executor_ref executor);

json report_json(const pass_report& r, const machine_limits& limits, bool streamed);

/// "27 blocks in 3m02s: 812.1 tokens/s, weights at 1.20 GiB/s, 0.300 s waiting for them".
std::string summary(const pass_report& r);

}  // namespace quantal::mla
