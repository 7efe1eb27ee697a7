// Tiles of grid vectors. A small grid (iq2_xxs) is looked through whole.
//
// Grids of vectors of 4 magnitudes with 8 levels (iq3_*) have cells: a target is rounded to the nearest level
// component by component, and the grid vectors near that cell of the lattice are the candidates.
//
// Near means near to the cell under equal weights; the weighted distance then decides among them. On weights
// and importances of real models what this misses costs less than half a percent of the error of a full
// search.
#pragma once

#include <algorithm>

#include "quantal/quantize/code_tiles.hpp"
#include "quantal/quantize/grid_search.hpp"

namespace quantal::quantize {

/// A grid of `size` vectors, all of it.
template <int (*component)(int, int) noexcept, int vector, int size>
struct grid_tiles {
  static constexpr int count = size / tile_codes;
  code_tile<vector> tile[std::size_t{count}];
};
template <int (*component)(int, int) noexcept, int vector, int size>
inline constexpr grid_tiles<component, vector, size> tiles_of_grid = [] {
  grid_tiles<component, vector, size> t{};
  for (int i = 0; i < size; ++i)
    for (int k = 0; k < vector; ++k) t.tile[i / tile_codes].set(i % tile_codes, k, component(i, k));
  return t;
}();

/// The tile_codes vectors of F's grid nearest to each of the 8^4 cells. Built on first use.
template <class F>
class grid_cells {
  using G = grid_halves<&F::grid_value, F::vector, F::grid_size>;
  static constexpr int size = F::grid_size;

 public:
  static constexpr int vector = 4, bits = 3, cells = 1 << (bits * vector);
  static_assert(G::levels.count == 1 << bits && G::half * 2 == vector);

  /// Cell of the target v (in units of codes), component k.
  QUANTAL_INLINE static int cell_part(float v, int k) noexcept {
    constexpr float first = static_cast<float>(G::levels.value[0]),
                    step = static_cast<float>(G::levels.value[1] - G::levels.value[0]);
    const float at = mul(v - first, 1.0f / step) + 0.5f;
    return static_cast<int>(at < 0.0f ? 0.0f : at > 7.0f ? 7.0f : at) << (bits * k);
  }
  const code_tile<vector>& near(int cell) const noexcept { return near_[cell]; }
  int index(int cell, int code) const noexcept { return index_[cell][code]; }

  static const grid_cells& table() noexcept {
    static const grid_cells one;
    return one;
  }

 private:
  grid_cells() noexcept {
    std::int32_t order[std::size_t{size}];
    for (int cell = 0; cell < cells; ++cell) {
      for (int i = 0; i < size; ++i) {
        int distance = 0;
        for (int k = 0; k < vector; ++k) {
          const int d = F::grid_value(i, k) - G::levels.value[cell >> (bits * k) & 7];
          distance += d * d;
        }
        order[i] = distance * size + i;
      }
      std::nth_element(order, order + tile_codes, order + size);
      for (int c = 0; c < tile_codes; ++c) {
        index_[cell][c] = static_cast<std::uint16_t>(order[c] % size);
        for (int k = 0; k < vector; ++k) near_[cell].set(c, k, F::grid_value(index_[cell][c], k));
      }
    }
  }

  code_tile<vector> near_[cells];
  std::uint16_t index_[cells][tile_codes];
};

}  // namespace quantal::quantize
