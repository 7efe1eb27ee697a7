// safetensors files as they should be, and every way in which a hostile one can lie.
#include "safetensors.hpp"

#include <gtest/gtest.h>

#include <random>

#include "checkpoint.hpp"
#include "safetensors_writer.hpp"
#include "strict_json.hpp"

namespace quantal::test {
namespace {

using hf::checkpoint;
using hf::safetensors_file;

raw_tensor tensor(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape,
                  std::size_t bytes, char fill = 'x') {
  return {name, dtype, std::move(shape), std::string(bytes, fill)};
}

std::string valid() {
  return safetensors_bytes({tensor("a", "BF16", {2, 3}, 12), tensor("empty", "F32", {0}, 0),
                            tensor("b", "F8_E4M3", {5}, 5), tensor("s", "F32", {}, 4)});
}

/// What opening these bytes complains about; empty if it does not.
std::string complaint(const std::string& bytes) {
  temp_dir dir;
  write_file(dir / "x.safetensors", bytes);
  const auto f = safetensors_file::open(dir / "x.safetensors");
  if (f) return {};
  EXPECT_NE(f.error().message.find("x.safetensors"), std::string::npos) << f.error().message;
  return f.error().message;
}

void expect_complaint(const std::string& bytes, const std::string& part) {
  const auto m = complaint(bytes);
  EXPECT_NE(m.find(part), std::string::npos) << "got: " << m << "\nwanted: " << part;
}

std::string with_length(std::uint64_t n, std::string bytes) {
  std::memcpy(bytes.data(), &n, 8);
  return bytes;
}

/// A file whose header holds the given members and whose data has `data` bytes.
std::string with_header(const std::string& members, std::size_t data) {
  return safetensors_bytes("{" + members + "}", std::string(data, 'x'));
}

TEST(Safetensors, ReadsTypesShapesAndBytes) {
  temp_dir dir;
  write_file(dir / "x.safetensors", valid());
  const auto f = safetensors_file::open(dir / "x.safetensors");
  ASSERT_TRUE(f) << f.error().message;
  ASSERT_EQ(f->tensors().size(), 4u);
  const auto* a = f->find("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->type, hf::dtype::bf16);
  EXPECT_EQ(a->shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(a->elements(), 6);
  EXPECT_EQ(a->bytes.size(), 12u);
  EXPECT_EQ(f->find("s")->elements(), 1);
  EXPECT_EQ(f->find("empty")->elements(), 0);
  EXPECT_EQ(f->find("b")->shape_text(), "[5]");
  EXPECT_EQ(f->find("c"), nullptr);
}

TEST(Safetensors, TruncationAnywhereIsAnError) {
  const std::string whole = valid();
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(complaint(whole.substr(0, n)).empty()) << n;
  expect_complaint(whole.substr(0, 7), "truncated");
  expect_complaint(whole.substr(0, 30), "truncated");
  expect_complaint(whole.substr(0, whole.size() - 1), "tensor 's'");
}

TEST(Safetensors, EveryWrongHeaderLengthIsAnError) {
  const std::string whole = valid();
  const std::size_t right = whole.size() - 8 - 21;
  for (std::uint64_t n = 0; n < whole.size() + 8; ++n)
    EXPECT_EQ(complaint(with_length(n, whole)).empty(), n == right) << n;
  expect_complaint(with_length(~std::uint64_t{0}, whole), "absurd");
  expect_complaint(with_length(std::uint64_t{1} << 63, whole), "absurd");
  expect_complaint(with_length(99'999'999, whole), "truncated");
}

TEST(Safetensors, EveryDamagedHeaderByteIsHarmless) {
  const std::string whole = valid();
  std::mt19937 random(1);
  for (std::size_t i = 0; i < whole.size() - 21; ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(random());
    complaint(damaged);  // an error or another valid file, never a crash
  }
}

TEST(Safetensors, HeadersThatLie) {
  const auto entry = [](const char* name, const char* dtype, const char* shape, const char* offsets) {
    return std::string("\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  const auto a = entry("a", "F32", "[2]", "[0,8]");
  EXPECT_EQ(complaint(with_header(a, 8)), "");
  expect_complaint(with_header(a + "," + a, 8), "duplicate key 'a'");
  expect_complaint(with_header(a + "," + entry("b", "F32", "[2]", "[4,12]"), 12), "'b': its bytes overlap");
  expect_complaint(with_header(a + "," + entry("b", "F32", "[2]", "[0,8]"), 8), "overlap");
  expect_complaint(with_header(a + "," + entry("b", "F32", "[1]", "[12,16]"), 16), "belong to no tensor");
  expect_complaint(with_header(a, 9), "at the end belong to no tensor");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[8,0]"), 8), "ascending");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[0,16]"), 16), "are 8 bytes");
  expect_complaint(with_header(entry("a", "BF16", "[2]", "[0,8]"), 8), "are 4 bytes");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[0,9223372036854775807]"), 8), "truncated?");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[0,18446744073709551615]"), 8), "data_offsets");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[0,1e1]"), 8), "data_offsets");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[-8,0]"), 8), "data_offsets");
  expect_complaint(with_header(entry("a", "F32", "[2]", "[0]"), 8), "data_offsets");
  expect_complaint(with_header(entry("a", "F32", "[4294967296,4294967296]", "[0,8]"), 8), "overflows");
  expect_complaint(with_header(entry("a", "F32", "[9223372036854775807]", "[0,8]"), 8), "overflows");
  expect_complaint(with_header(entry("a", "F32", "[-2]", "[0,8]"), 8), "natural number");
  expect_complaint(with_header(entry("a", "F32", "2", "[0,8]"), 8), "shape");
  expect_complaint(with_header(entry("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8), "9 dimensions");
  expect_complaint(with_header(entry("a", "F7", "[2]", "[0,8]"), 8), "unknown dtype 'F7'");
  expect_complaint(with_header(entry("", "F32", "[2]", "[0,8]"), 8), "empty name");
  expect_complaint(with_header("\"a\":3", 0), "no object");
  expect_complaint(with_header("\"a\":{}", 0), "dtype");
  expect_complaint(with_header("\"a\":" + std::string(100, '['), 0), "nested deeper");
  expect_complaint(safetensors_bytes("[]", ""), "does not begin");
  expect_complaint(safetensors_bytes("{\"a\":", ""), "not valid JSON");
  expect_complaint(safetensors_bytes("{\"\xff\":1}", ""), "not valid JSON");
}

TEST(StrictJson, ObjectsOnlyAndNoNull) {
  temp_dir dir;
  write_file(dir / "a.json", "[1]");
  EXPECT_FALSE(hf::read_json_object(dir / "a.json"));
  EXPECT_FALSE(hf::read_json_object(dir / "missing.json"));
  write_file(dir / "b.json", R"({"x": null, "y": {"x": 1, "z": {"x": 2}}})");
  const auto d = hf::read_json_object(dir / "b.json");
  ASSERT_TRUE(d) << d.error().message;
  EXPECT_EQ(hf::member(*d, "x"), nullptr);
  EXPECT_EQ(hf::member(*hf::member(*d, "y"), "x")->get<int>(), 1);
  EXPECT_FALSE(hf::read_json_object(dir / "b.json", 8));
}

class Checkpoint : public ::testing::Test {
 protected:
  using shard_list = std::vector<std::pair<std::string, std::vector<raw_tensor>>>;

  void write(const shard_list& shards) {
    for (const auto& [file, tensors] : shards) write_file(dir / file, safetensors_bytes(tensors));
    write_file(dir / "model.safetensors.index.json", index_json(shards));
  }
  void expect_error(const std::string& part) {
    const auto c = checkpoint::open(dir / "");
    ASSERT_FALSE(c);
    EXPECT_NE(c.error().message.find(part), std::string::npos) << c.error().message;
  }

  temp_dir dir;
  const shard_list two = {{"model-00001-of-00002.safetensors", {tensor("a", "F32", {1}, 4, 'a')}},
                          {"model-00002-of-00002.safetensors", {tensor("b", "F32", {1}, 4, 'b')}}};
};

TEST_F(Checkpoint, ReadsShardsThroughTheIndex) {
  write(two);
  const auto c = checkpoint::open(dir / "");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->tensors().size(), 2u);
  ASSERT_TRUE(c->find("b"));
  EXPECT_EQ(c->find("b")->tensor->bytes[0], std::byte{'b'});
  EXPECT_EQ(c->find("b")->file->path().filename(), "model-00002-of-00002.safetensors");
  EXPECT_EQ(c->find("c"), nullptr);
}

TEST_F(Checkpoint, ReadsASingleFileOfAnyName) {
  write_file(dir / "weights.safetensors", safetensors_bytes({tensor("a", "F32", {1}, 4)}));
  const auto c = checkpoint::open(dir / "");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_TRUE(c->find("a"));
  write_file(dir / "second.safetensors", safetensors_bytes({tensor("a", "F32", {1}, 4)}));
  expect_error("several");
}

TEST_F(Checkpoint, MissingShardsAndTensors) {
  write(two);
  std::filesystem::remove(dir / two[1].first);
  expect_error("model-00002-of-00002.safetensors: cannot open");
  write(two);
  write_file(dir / two[1].first, safetensors_bytes({tensor("c", "F32", {1}, 4)}));
  expect_error("tensor 'b' is missing");
}

TEST_F(Checkpoint, ATensorInTwoShardsOrTheWrongOne) {
  write(two);
  write_file(dir / two[1].first, safetensors_bytes({tensor("a", "F32", {1}, 4), tensor("b", "F32", {1}, 4)}));
  expect_error("tensor 'a': is also in");
  write(two);
  write_file(dir / two[0].first, safetensors_bytes({tensor("b", "F32", {1}, 4)}));
  write_file(dir / two[1].first, safetensors_bytes({tensor("a", "F32", {1}, 4)}));
  expect_error("is missing");
}

TEST_F(Checkpoint, UnlistedTensorsAreToldNotTaken) {
  write(two);
  write_file(dir / two[1].first, safetensors_bytes({tensor("b", "F32", {1}, 4), tensor("z", "F32", {1}, 4)}));
  const auto c = checkpoint::open(dir / "");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->find("z"), nullptr);
  EXPECT_EQ(c->unlisted(), std::vector<std::string>{"z"});
}

TEST_F(Checkpoint, HostileIndexes) {
  const auto index = [&](const std::string& text) { write_file(dir / "model.safetensors.index.json", text); };
  index("{}");
  expect_error("weight_map");
  index(R"({"weight_map":{"a":"../x.safetensors"}})");
  expect_error("same directory");
  index(R"({"weight_map":{"a":"/etc/passwd"}})");
  expect_error("same directory");
  index(R"({"weight_map":{"a":"x.bin"}})");
  expect_error("same directory");
  index(R"({"weight_map":{"a":7}})");
  expect_error("no string");
  index(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})");
  expect_error("duplicate key 'a'");
  EXPECT_FALSE(checkpoint::open(dir / "nowhere"));
}

}  // namespace
}  // namespace quantal::test
