// Errors of device calls.
#pragma once

#include <cuda_runtime.h>

#include "quantal/status.hpp"
