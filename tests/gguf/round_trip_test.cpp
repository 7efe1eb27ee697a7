#include "small_file.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

TEST(Gguf, RoundTripsEveryType) {
  temp_dir dir;
  write_small(dir / "a.gguf");
  const auto r = gguf::reader::open(dir / "a.gguf");
  ASSERT_TRUE(r) << r.error().message;
  const auto want = every_type();
  ASSERT_EQ(r->meta().size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(r->meta().items()[i].first, want.items()[i].first);
    EXPECT_TRUE(r->meta().items()[i].second == want.items()[i].second) << want.items()[i].first;
  }
  for (const auto& t : some_tensors()) {
    const auto* got = r->find(t.name);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->ne, t.ne);
    const auto data = r->data(*got);
    ASSERT_TRUE(data);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(data->data()), data->size()), tensor_bytes_of(t));
  }
}

TEST(Gguf, RewritingOtherWritersFilesKeepsEveryByte) {
  temp_dir dir;
  for (const auto& e : std::filesystem::directory_iterator(test::data_file("/fixtures"))) {
    const auto r = gguf::reader::open(e.path());
    ASSERT_TRUE(r) << r.error().message;
    auto w = gguf::writer::create(dir / "copy.gguf", r->meta(), r->tensors());
    ASSERT_TRUE(w);
    for (const auto& t : r->tensors()) {
      const auto data = *r->data(t);
      for (std::size_t at = 0; at < data.size(); at += 1000)
        ASSERT_TRUE(w->append(data.subspan(at, std::min<std::size_t>(1000, data.size() - at))));
    }
    ASSERT_TRUE(w->finish());
    EXPECT_EQ(read_file(dir / "copy.gguf"), read_file(e.path())) << e.path();
  }
}

TEST(Gguf, OtherAlignment) {
  temp_dir dir;
  auto meta = every_type();
  meta.set("general.alignment", std::uint32_t{4096});
  write_small(dir / "a.gguf", meta);
  const auto r = gguf::reader::open(dir / "a.gguf");
  ASSERT_TRUE(r) << r.error().message;
  for (const auto& t : r->tensors()) EXPECT_EQ(t.offset % 4096, 0u);
}

TEST(GgufWriter, LeavesNothingUnlessFinished) {
  temp_dir dir;
  write_file(dir / "a.gguf", "old");
  {
    auto w = gguf::writer::create(dir / "a.gguf", every_type(), some_tensors());
    ASSERT_TRUE(w);
    const std::string few(10, 'x');
    ASSERT_TRUE(w->append(std::as_bytes(std::span(few))));
    EXPECT_FALSE(w->finish());
  }
  EXPECT_EQ(read_file(dir / "a.gguf"), "old");
  EXPECT_EQ(dir.files(), 1u);
}

TEST(GgufWriter, RefusesBadPlans) {
  temp_dir dir;
  EXPECT_FALSE(gguf::writer::create(dir / "a.gguf", {}, {{"t", q4_0::gguf_id, 1, {31, 1, 1, 1}}}));
  EXPECT_FALSE(gguf::writer::create(dir / "a.gguf", {}, {{"", 0, 1, {1, 1, 1, 1}}}));
  EXPECT_FALSE(
      gguf::writer::create(dir / "a.gguf", {}, {{"t", 0, 1, {1, 1, 1, 1}}, {"t", 0, 1, {1, 1, 1, 1}}}));
  EXPECT_FALSE(gguf::writer::create(dir / "a.gguf", {},
                                    {{"t", 0, 2, {std::int64_t{1} << 40, std::int64_t{1} << 40, 1, 1}}}));
  EXPECT_FALSE(gguf::writer::create("/nonexistent/a.gguf", {}, {}));
  auto w = gguf::writer::create(dir / "a.gguf", {}, {{"t", 0, 1, {1, 1, 1, 1}}});
  ASSERT_TRUE(w);
  const std::string much(64, 'x');
  EXPECT_FALSE(w->append(std::as_bytes(std::span(much))));
}

void write_shards(const temp_dir& dir, int count, std::int32_t total) {
  for (int i = 0; i < count; ++i) {
    gguf::metadata m;
    if (i == 0) m.set("general.architecture", std::string("test"));
    m.set("split.no", static_cast<std::uint16_t>(i));
    m.set("split.count", static_cast<std::uint16_t>(count));
    m.set("split.tensors.count", total);
    char name[40];
    std::snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", i + 1, count);
    write_small(dir / name, m, {{"t" + std::to_string(i), 0, 1, {3, 1, 1, 1}}});
  }
}

TEST(GgufShards, OpensThroughTheFirst) {
  temp_dir dir;
  write_shards(dir, 3, 3);
  const auto r = gguf::reader::open(dir / "m-00001-of-00003.gguf");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->shards(), 3);
  EXPECT_EQ(r->tensors().size(), 3u);
  EXPECT_EQ(r->find("t2")->shard, 2);
  EXPECT_FALSE(gguf::reader::open(dir / "m-00002-of-00003.gguf"));
}

TEST(GgufShards, NamesWhatIsMissing) {
  temp_dir dir;
  write_shards(dir, 3, 3);
  std::filesystem::remove(dir / "m-00003-of-00003.gguf");
  const auto r = gguf::reader::open(dir / "m-00001-of-00003.gguf");
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("m-00003-of-00003.gguf"), std::string::npos);
  std::filesystem::copy_file(dir / "m-00002-of-00003.gguf", dir / "m-00003-of-00003.gguf");
  EXPECT_FALSE(gguf::reader::open(dir / "m-00001-of-00003.gguf"));
  std::filesystem::rename(dir / "m-00001-of-00003.gguf", dir / "other.gguf");
  EXPECT_FALSE(gguf::reader::open(dir / "other.gguf"));
}

TEST(GgufShards, CountsTensors) {
  temp_dir dir;
  write_shards(dir, 2, 5);
  EXPECT_FALSE(gguf::reader::open(dir / "m-00001-of-00002.gguf"));
}

TEST(Metadata, TypedGettersAnswerErrors) {
  const auto m = every_type();
  EXPECT_EQ(*m.integer("a.i8"), -100);
  EXPECT_FALSE(m.integer("a.u64"));
  EXPECT_FALSE(m.integer("a.f32"));
  EXPECT_FALSE(m.integer("a.u8", 0, 100));
  EXPECT_FALSE(m.integer("missing"));
  EXPECT_EQ(*m.number("a.f64"), -2.25);
  EXPECT_TRUE(*m.boolean("a.bool"));
  EXPECT_FALSE(m.string("a.u8"));
  EXPECT_EQ((*m.strings("b.strings"))->size(), 3u);
  EXPECT_EQ(m.integers("b.u8")->at(1), 2);
  EXPECT_FALSE(m.integers("b.strings"));
}

}  // namespace
}  // namespace quantal::test
