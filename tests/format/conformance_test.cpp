// Every format decodes the golden vectors bit for bit, sign of zero included, at every byte alignment.
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "format_case.hpp"
#include "quantal/dequantize.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

const std::string data = test::data_file("/conformance/");

struct vector_set {
  std::string name;  ///< "q4_K.random"
  std::int64_t rows, cols;
};

std::vector<vector_set> sets_of(std::string_view format) {
  std::ifstream manifest(data + "manifest.txt");
  std::vector<vector_set> sets;
  for (std::string line; std::getline(manifest, line);) {
    std::istringstream fields(line);
    std::string name, set;
    vector_set v;
    if (fields >> name >> set >> v.rows >> v.cols && name == format)
      sets.push_back({name + "." + set, v.rows, v.cols});
  }
  return sets;
}

std::vector<char> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string describe_first_difference(const std::vector<float>& got, const float* want, std::int64_t cols) {
  for (std::size_t i = 0; i < got.size(); ++i)
    if (std::memcmp(&got[i], want + i, 4) != 0) {
      std::ostringstream s;
      s << "row " << i / cols << " column " << i % cols << ": " << got[i] << " instead of " << want[i];
      return s.str();
    }
  return "";
}

class conformance : public testing::TestWithParam<std::uint32_t> {};

TEST_P(conformance, decodes_bit_exactly) {
  const format_info& f = *find_format(GetParam());
  const auto sets = sets_of(f.name);
  ASSERT_GE(sets.size(), 2u) << "no golden vectors for " << f.name;
  for (const auto& set : sets) {
    SCOPED_TRACE(set.name);
    const auto blocks = read_file(data + set.name + ".blocks"),
               expected = read_file(data + set.name + ".f32");
    const std::int64_t row_bytes = f.row_bytes(set.cols);
    ASSERT_EQ(blocks.size(), static_cast<std::size_t>(set.rows * row_bytes));
    ASSERT_EQ(expected.size(), static_cast<std::size_t>(set.rows * set.cols * 4));
    std::vector<float> want(expected.size() / 4), got(want.size());
    std::memcpy(want.data(), expected.data(), expected.size());
    for (std::size_t shift = 0; shift < 16; ++shift) {
      std::vector<std::byte> moved(shift + blocks.size());
      std::memcpy(moved.data() + shift, blocks.data(), blocks.size());
      for (std::int64_t r = 0; r < set.rows; ++r)
        ASSERT_EQ(dequantize_row(f.gguf_id, moved.data() + shift + r * row_bytes, got.data() + r * set.cols,
                                 set.cols),
                  status::ok);
      ASSERT_EQ(describe_first_difference(got, want.data(), set.cols), "") << "shifted by " << shift;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, conformance, testing::ValuesIn(all_format_ids()), format_name);

TEST(dequantize, reports_what_it_cannot_do) {
  std::byte row[64] = {};
  float out[32];
  EXPECT_EQ(dequantize_row(0xffffu, row, out, 32), status::unknown_format);
  EXPECT_EQ(dequantize_row(q4_0::gguf_id, row, out, 31), status::bad_shape);
  EXPECT_EQ(dequantize_row(q4_0::gguf_id, row, out, -32), status::bad_shape);
  EXPECT_EQ(dequantize_row(q4_0::gguf_id, row, out, 0), status::ok);
}

}  // namespace
}  // namespace quantal::test
