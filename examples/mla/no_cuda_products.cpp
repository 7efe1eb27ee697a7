#include "products.hpp"

namespace quantal::mla {

result<std::unique_ptr<products>> cuda_products(std::int64_t, std::int64_t) {
  return error{"-ngl: built without CUDA (QUANTAL_CUDA)"};
}

}  // namespace quantal::mla
