// Importance matrices and second moments: read, written, merged, looked up by tensor. Needs nothing but the
// standard library.
#pragma once

#include "quantal/imatrix/io.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "quantal/imatrix/model.hpp"
#include "quantal/imatrix/moments.hpp"
#include "quantal/imatrix/statistics.hpp"
#include "quantal/imatrix/store.hpp"
