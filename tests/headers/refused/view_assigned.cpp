// refused: (no viable conversion|could not convert).*weight_view<.*q8_0>
#include <quantal/formats.hpp>
#include <quantal/views.hpp>

using namespace quantal;

weight_view<q4_K> view(const weight_view<q8_0>& w) { return w; }
