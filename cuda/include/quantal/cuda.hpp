// The device's products and decoding for programs that learn the format at run time: link
// quantal::cuda_operations. Needs no CUDA compiler. With the format known at compile time, include
// quantal/cuda/mul_mat.cuh in a unit of nvcc.
#pragma once

#include "quantal/cuda/device.hpp"
#include "quantal/cuda/operations.hpp"
