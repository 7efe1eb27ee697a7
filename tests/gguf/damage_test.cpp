// Whatever is wrong with a file, opening it gives an error or a consistent reader: never a crash.
#include "small_file.hpp"

namespace quantal::test {
namespace {

/// Opens bytes as a file and touches everything a successful reader offers.
bool opens(const temp_dir& dir, const std::string& bytes, std::string* message = nullptr) {
  write_file(dir / "x.gguf", bytes);
  const auto r = gguf::reader::open(dir / "x.gguf");
  if (!r) {
    EXPECT_NE(r.error().message.find("x.gguf"), std::string::npos) << r.error().message;
    if (message) *message = r.error().message;
    return false;
  }
  unsigned sum = 0;
  for (const auto& t : r->tensors())
    if (const auto d = r->data(t))
      for (const auto b : *d) sum += static_cast<unsigned>(b);
  EXPECT_GE(sum, 0u);
  return true;
}

TEST(GgufDamage, EveryTruncationIsAnError) {
  temp_dir dir;
  write_small(dir / "a.gguf");
  const auto bytes = read_file(dir / "a.gguf");
  // The last tensor has 12 bytes; everything before its end is needed, the padding behind it is not.
  const std::size_t needed = bytes.size() - 20;
  for (std::size_t n = 0; n < needed; ++n) EXPECT_FALSE(opens(dir, bytes.substr(0, n))) << n;
  for (std::size_t n = needed; n <= bytes.size(); ++n) EXPECT_TRUE(opens(dir, bytes.substr(0, n))) << n;
}

TEST(GgufDamage, EveryBitFlipOfTheHeaderIsHandled) {
  temp_dir dir;
  write_small(dir / "a.gguf");
  const auto bytes = read_file(dir / "a.gguf");
  for (std::size_t i = 0; i < 800 && i < bytes.size(); ++i)
    for (int b = 0; b < 8; ++b) {
      auto damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << b));
      opens(dir, damaged);
    }
}

template <class T>
std::string le(T v) {
  return {reinterpret_cast<const char*>(&v), sizeof v};
}
std::string str(const std::string& s) { return le(static_cast<std::uint64_t>(s.size())) + s; }
std::string header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
  return "GGUF" + le(version) + le(tensors) + le(keys);
}
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
                   std::uint64_t offset) {
  std::string s = str(name) + le(static_cast<std::uint32_t>(dims.size()));
  for (const auto d : dims) s += le(d);
  return s + le(type) + le(offset);
}
std::string key_u32(const std::string& name, std::uint32_t v) {
  return str(name) + le(std::uint32_t{4}) + le(v);
}
const std::string pad(1024, '\0');

TEST(GgufDamage, HostileFilesAreRefusedWithACause) {
  temp_dir dir;
  const std::uint64_t huge = ~std::uint64_t{0};
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"magic", "GGML" + header(0, 0).substr(4)},
      {"version", header(0, 0, 1)},
      {"big-endian", header(0, 0, 0x03000000)},
      {"keys", header(0, huge) + pad},
      {"tensors", header(huge, 0) + pad},
      {"truncated", header(0, 1) + le(huge) + pad},
      {"truncated", header(0, 1) + str("k") + le(std::uint32_t{8}) + le(huge) + pad},
      {"truncated", header(0, 1) + str("k") + le(std::uint32_t{9}) + le(std::uint32_t{4}) + le(huge) + pad},
      {"nested",
       header(0, 1) + str("k") + le(std::uint32_t{9}) + le(std::uint32_t{9}) + le(std::uint64_t{1}) + pad},
      {"unknown type", header(0, 1) + str("k") + le(std::uint32_t{77}) + pad},
      {"empty name", header(0, 1) + key_u32("", 1) + pad},
      {"duplicate key", header(0, 2) + key_u32("k", 1) + key_u32("k", 2) + pad},
      {"alignment", header(0, 1) + key_u32("general.alignment", 0) + pad},
      {"power of two", header(0, 1) + key_u32("general.alignment", 3) + pad},
      {"alignment", header(0, 1) + key_u32("general.alignment", 1u << 31) + pad},
      {"dimensions", header(1, 0) + tensor("t", {1, 1, 1, 1, 1}, 0, 0) + pad},
      {"overflow", header(1, 0) + tensor("t", {huge, 2}, 0, 0) + pad},
      {"overflow", header(1, 0) + tensor("t", {std::uint64_t{1} << 62, 8}, 0, 0) + pad},
      {"overflow", header(1, 0) + tensor("t", {0, std::uint64_t{1} << 62, 8}, 0, 0) + pad},
      {"overflow", header(1, 0) + tensor("t", {std::uint64_t{1} << 62, 8}, 77, 0) + pad},
      {"overflow", header(2, 0) + tensor("t", {std::uint64_t{1} << 62}, 77, 0) +
                       tensor("u", {std::uint64_t{1} << 62}, 77, 0) + pad},
      {"whole blocks", header(1, 0) + tensor("t", {33}, q4_0::gguf_id, 0) + pad},
      {"truncated", header(1, 0) + tensor("t", {1 << 20}, 0, 0) + pad},
      {"truncated", header(1, 0) + tensor("t", {8}, 0, huge - 31) + pad},
      {"multiple", header(1, 0) + tensor("t", {8}, 0, 4) + pad},
      {"empty name", header(1, 0) + tensor("", {8}, 0, 0) + pad},
      {"longer", header(1, 0) + tensor(std::string(64, 'n'), {8}, 0, 0) + pad},
      {"zero byte", header(1, 0) + tensor(std::string("a\0b", 3), {8}, 0, 0) + pad},
      {"duplicate tensor", header(2, 0) + tensor("t", {8}, 0, 0) + tensor("t", {8}, 0, 32) + pad},
      {"overlap", header(2, 0) + tensor("t", {16}, 0, 0) + tensor("u", {8}, 0, 32) + pad},
  };
  for (const auto& [cause, bytes] : cases) {
    std::string message;
    EXPECT_FALSE(opens(dir, bytes, &message)) << cause;
    EXPECT_NE(message.find(cause), std::string::npos) << "wanted '" << cause << "' in: " << message;
  }
}

TEST(GgufDamage, UnknownTensorTypesAreListedButNotRead) {
  temp_dir dir;
  write_file(dir / "x.gguf", header(1, 0) + tensor("t", {8}, 999, 0) + pad);
  const auto r = gguf::reader::open(dir / "x.gguf");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_FALSE(r->data(r->tensors()[0]));
}

TEST(GgufDamage, EmptyTensorsAndNoTensors) {
  temp_dir dir;
  EXPECT_TRUE(opens(dir, header(0, 0) + pad));
  EXPECT_TRUE(opens(dir, header(1, 0) + tensor("t", {0, 4}, 0, 0) + pad));
  EXPECT_FALSE(gguf::reader::open(dir / "missing.gguf"));
  EXPECT_FALSE(gguf::reader::open("/"));
}

}  // namespace
}  // namespace quantal::test
