// All of quantal but CUDA (quantal/cuda/) and the gates for tests (quantal/testing/). Needs xsimd for
// quantizers and kernels; formats.hpp, dequantize.hpp, runtime.hpp, gguf.hpp and imatrix.hpp do without.
#pragma once

#include "quantal/config.hpp"
#include "quantal/dequantize.hpp"
#include "quantal/executor.hpp"
#include "quantal/formats.hpp"
#include "quantal/gguf.hpp"
#include "quantal/imatrix.hpp"
#include "quantal/lattice.hpp"
#include "quantal/mul_mat.hpp"
#include "quantal/mul_mat_id.hpp"
#include "quantal/mul_mat_many.hpp"
#include "quantal/pack.hpp"
#include "quantal/quantize.hpp"
#include "quantal/runtime.hpp"
#include "quantal/status.hpp"
#include "quantal/views.hpp"
