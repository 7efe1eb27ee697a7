// The list of formats and its run-time table.
#include <algorithm>
#include <set>

#include "format_case.hpp"

namespace quantal::test {
namespace {

TEST(format_table, names_and_ids_are_unique) {
  std::set<std::string_view> names;
  std::set<std::uint32_t> ids;
  for (const format_info& f : format_table) {
    EXPECT_TRUE(names.insert(f.name).second) << f.name;
    EXPECT_TRUE(ids.insert(f.gguf_id).second) << f.name;
  }
}

TEST(format_table, finds_by_id_and_by_name_in_any_case) {
  for (const format_info& f : format_table) {
    EXPECT_EQ(find_format(f.gguf_id), &f);
    std::string upper(f.name);
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
    EXPECT_EQ(find_format(f.name), &f);
    EXPECT_EQ(find_format(upper), &f);
  }
  EXPECT_EQ(find_format(77777u), nullptr);
  EXPECT_EQ(find_format("q4_"), nullptr);
  EXPECT_EQ(find_format("q4_00"), nullptr);
  EXPECT_EQ(find_format(""), nullptr);
}

TEST(format_table, visits_the_format_of_an_id) {
  for (const format_info& f : format_table) {
    std::string_view seen;
    EXPECT_TRUE(visit_format(f.gguf_id, [&]<class F>() { seen = F::name; }));
    EXPECT_EQ(seen, f.name);
  }
  EXPECT_FALSE(visit_format(77777u, []<class F>() { FAIL(); }));
}

TEST(format_table, row_bytes_count_metadata_once) {
  for (const format_info& f : format_table) {
    EXPECT_EQ(f.row_bytes(0), f.layout.row_meta);
    EXPECT_EQ(f.row_bytes(3 * f.layout.elements), f.layout.row_meta + 3 * f.layout.bytes);
  }
}

static_assert(find_format("Q4_k")->gguf_id == 12);
static_assert(find_format(12u)->layout.bpw() == 4.5);

}  // namespace
}  // namespace quantal::test
