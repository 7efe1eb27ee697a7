// GGUF files: read, written, mapped. Needs nothing but the standard library.
#pragma once

#include "quantal/gguf/input_scale.hpp"
#include "quantal/gguf/mapped_file.hpp"
#include "quantal/gguf/metadata.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/gguf/writer.hpp"
