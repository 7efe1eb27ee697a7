// refused: no matching function for call to .*pack
#include <quantal/pack.hpp>

using namespace quantal;

status decode(const weight_view<q8_0>& w, std::span<std::byte> memory,
              packed_matrix<q4_K, simd::scalar>& packed) {
  return pack(w, memory, calling_thread, packed);
}
