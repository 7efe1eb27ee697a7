// Streamed runs give what resident ones give, bit for bit: statistics, second moments and logits, in every mode.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "collection.hpp"
#include "file.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace quantal::mla {
namespace {

const std::string fixture_stem = test::data_file("/fixtures/fixture-");

/// A text of no meaning: five chunks, the experts of which differ.
corpus text_of(const model& m, std::int64_t size = 150, std::int64_t chunks = 4) {
  corpus c;
  c.size = size, c.chunks = chunks;
  for (std::int64_t i = 0; i < size * chunks; ++i)
    c.tokens.push_back(static_cast<std::int32_t>(i * i * 7919 % 613 % m.hyper.vocabulary));
  return c;
}

struct outcome {
  imatrix::store statistics;
  imatrix::moments_store moments;
  std::map<std::int64_t, std::vector<float>> logits;
  std::vector<double> similarity;
  pass_report report;
};

outcome run(const model& m, const corpus& text, const pass_options& o, int threads,
            bool all_experts = false) {
  thread_pool pool(threads);
  collector c({.output = true, .all_experts = all_experts, .similarity = true});
  moments_collector moments({std::size_t{1} << 30, 560}, runtime::dispatcher::best().product(), pool);
  observers both(c, moments);
  outcome out;
  progress bar("", 1);
  const auto keep = [&](std::int64_t i, std::span<const float> logits) -> result<std::string> {
    out.logits[i].assign(logits.begin(), logits.end());
    return std::string();
  };
  const auto r = run_text(m, chunks_of(text), runtime::dispatcher::best(), pool, o, bar, &both, keep);
  EXPECT_TRUE(r) << r.error().message;
  if (r) out.report = *r;
  out.statistics = c.statistics(), out.moments = moments.take();
  for (const auto* list : {&c.similarity().layer, &c.similarity().attention, &c.similarity().feed_forward})
    for (const auto& mean : *list)
      out.similarity.push_back(mean.sum), out.similarity.push_back(double(mean.n));
  return out;
}

void expect_same(const outcome& a, const outcome& b, const std::string& what) {
  EXPECT_TRUE(a.statistics == b.statistics) << what;
  EXPECT_TRUE(a.moments == b.moments) << what;
  EXPECT_EQ(a.similarity, b.similarity) << what;
  ASSERT_EQ(a.logits.size(), b.logits.size()) << what;
  for (const auto& [i, row] : a.logits)
    EXPECT_EQ(std::memcmp(row.data(), b.logits.at(i).data(), row.size() * sizeof(float)), 0)
        << what << " " << i;
}

class stream : public ::testing::TestWithParam<const char*> {};

TEST_P(stream, EqualsResidentInEveryModeBatchAndThreadCount) {
  const auto resident = load_model(fixture_stem + GetParam()),
             streamed = load_model(fixture_stem + GetParam(), {true});
  ASSERT_TRUE(resident && streamed);
  const auto text = text_of(*resident);
  for (const int mla : {0, 1, 2, 3})
    for (const bool flash : {false, true})
      for (const std::int64_t batch : {0, 140}) {
        pass_options o;
        o.how = {mla, flash}, o.batch = batch, o.first_logits = 75;
        const auto want = run(*resident, text, o, 1);
        o.chunks_at_once = batch == 0 ? 2 : 3;
        expect_same(want, run(*streamed, text, o, 2),
                    std::to_string(mla) + (flash ? " -fa" : "") + " -b " + std::to_string(batch));
      }
}

TEST_P(stream, EqualsResidentWhereMatricesMeetFewTokens) {
  const auto resident = load_model(fixture_stem + GetParam()),
             streamed = load_model(fixture_stem + GetParam(), {true});
  ASSERT_TRUE(resident && streamed);
  const auto text = text_of(*resident, 9, 12);
  pass_options o;
  o.batch = 4;
  const auto want = run(*resident, text, o, 1);
  for (const std::int64_t chunks : {1, 5, 12}) {
    o.chunks_at_once = chunks;
    expect_same(want, run(*streamed, text, o, 2), std::to_string(chunks));
  }
}

TEST_P(stream, EveryExpertOnEveryToken) {
  const auto resident = load_model(fixture_stem + GetParam()),
             streamed = load_model(fixture_stem + GetParam(), {true});
  ASSERT_TRUE(resident && streamed);
  const auto text = text_of(*resident, 40, 3);
  expect_same(run(*resident, text, {}, 2, true), run(*streamed, text, {}, 2, true), "");
}

TEST_P(stream, RoundedActivationsToo) {
  const auto resident = load_model(fixture_stem + GetParam()),
             streamed = load_model(fixture_stem + GetParam(), {true});
  ASSERT_TRUE(resident && streamed);
  const auto text = text_of(*resident, 40, 4);
  pass_options o;
  o.how.policy = activation::q8;
  expect_same(run(*resident, text, o, 2), run(*streamed, text, o, 1), "");
}

INSTANTIATE_TEST_SUITE_P(Fixtures, stream,
                         ::testing::Values("v3-mainline-bf16.gguf", "v3-ik-bf16.gguf",
                                           "v2lite-mainline-bf16.gguf", "v2lite-ik-bf16.gguf"));

TEST(Stream, ReadsEveryByteOfTheBlocksOnce) {
  const auto m = load_model(fixture_stem + "v3-ik-bf16.gguf", {true});
  ASSERT_TRUE(m);
  std::uint64_t bytes = 0;
  for (const auto& t : m->file->tensors())
    for (std::int64_t b = 0; b < m->hyper.layers; ++b)
      if (t.name.starts_with("blk." + std::to_string(b) + ".")) bytes += t.nbytes;
  const auto r = run(*m, text_of(*m), {}, 1);
  EXPECT_EQ(r.report.bytes, bytes);
  EXPECT_EQ(r.report.blocks, m->hyper.layers);
  EXPECT_GT(r.report.operations, 0);
}

TEST(Stream, HiddenStatesOnDiskGiveTheSame) {
  const auto m = load_model(fixture_stem + "v2lite-ik-bf16.gguf", {true});
  ASSERT_TRUE(m);
  const auto text = text_of(*m);
  pass_options o;
  const auto want = run(*m, text, o, 2);
  const test::temp_dir dir;
  o.ram = 4096, o.scratch = dir / "";
  expect_same(want, run(*m, text, o, 2), "scratch file");
  EXPECT_EQ(dir.files(), 0u);
}

TEST(Stream, IsTheDefaultWhereTheModelExceedsTheMemory) {
  const std::string path = fixture_stem + "v3-ik-bf16.gguf";
  EXPECT_TRUE(load_model(path, {false, 1000})->streamed);
  EXPECT_FALSE(load_model(path, {false, std::uint64_t{1} << 30})->streamed);
  EXPECT_FALSE(load_model(path)->streamed);
}

/// Ends a run in the middle of a block, as a kill does.
struct ended_in_block : collector {
  std::string prefix;
  explicit ended_in_block(std::int64_t block) : prefix("blk." + std::to_string(block) + ".attn_output") {}
  result<void> on_mul_mat(const matrix_input& in) override {
    if (in.name.starts_with(prefix)) return error{"ended"};
    return collector::on_mul_mat(in);
  }
};

class resumed_stream : public ::testing::Test {
 protected:
  resumed_stream() { options.state = dir / "state", options.identity = {{"-c", 150}, {"-mla", 1}}; }

  moments_collector moments() {
    return {{std::size_t{1} << 30, 560}, runtime::dispatcher::best().product(), serial};
  }
  static imatrix::moments_store all_of(const imatrix::moments_source& s) {
    imatrix::moments_store all;
    for (const auto& [name, shape] : s.shapes) all.entries.emplace(name, *s.read(name));
    all.same = s.same;
    return all;
  }

  const model m = *load_model(fixture_stem + "v2lite-ik-bf16.gguf", {true});
  const corpus text = text_of(m);
  const test::temp_dir dir;
  serial_executor serial;
  collection_options options;
};

TEST_F(resumed_stream, LosesNothingBeforeTheBlockThatItWasEndedIn) {
  const std::int64_t last = m.hyper.layers - 1;
  auto sums = moments();
  ended_in_block ended(last);
  ended.statistics().datasets.push_back("text");
  const auto failed = collect(m, text, ended, &sums, serial, options);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "chunk 0: ended");

  collector c, whole;
  c.statistics().datasets.push_back("text");
  auto rest = moments(), whole_sums = moments();
  const auto done = collect(m, text, c, &rest, serial, options);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->pass.blocks, 1);
  EXPECT_EQ(c.statistics().datasets, std::vector<std::string>{"text"});
  whole.statistics().datasets.push_back("text");
  options.state.clear();
  const auto want = collect(m, text, whole, &whole_sums, serial, options);
  ASSERT_TRUE(want);
  EXPECT_TRUE(c.statistics() == whole.statistics());
  EXPECT_TRUE(all_of(done->moments) == all_of(want->moments));
  EXPECT_EQ(done->nll.mean(), want->nll.mean());
}

TEST_F(resumed_stream, RefusesAnotherRunByName) {
  ended_in_block ended(1);
  ASSERT_FALSE(collect(m, text, ended, nullptr, serial, options));
  collector c;
  options.identity["-mla"] = 3;
  const auto r = collect(m, text, c, nullptr, serial, options);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("another -mla (1, now 3)"), std::string::npos) << r.error().message;
}

TEST_F(resumed_stream, RefusesADamagedState) {
  ended_in_block ended(1);
  ASSERT_FALSE(collect(m, text, ended, nullptr, serial, options));
  std::filesystem::resize_file(options.state / "hidden.0", 1000);
  collector c;
  const auto r = collect(m, text, c, nullptr, serial, options);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("another size"), std::string::npos) << r.error().message;
}

TEST_F(resumed_stream, RefusesStatisticsOfAnotherText) {
  ended_in_block ended(1);
  ended.statistics().datasets.push_back("text");
  ASSERT_FALSE(collect(m, text, ended, nullptr, serial, options));
  collector c;
  const auto r = collect(m, text, c, nullptr, serial, options);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("is damaged"), std::string::npos) << r.error().message;
}

TEST_F(resumed_stream, TouchesNoFileThatIsNotItsOwn) {
  std::filesystem::create_directory(options.state);
  ASSERT_TRUE(file::write(options.state / "notes", "mine"));
  collector c;
  const auto r = collect(m, text, c, nullptr, serial, options);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("notes: is no part of a state"), std::string::npos) << r.error().message;
  EXPECT_EQ(*file::read_text(options.state / "notes"), "mine");
}

TEST_F(resumed_stream, LeavesNothingWhereNoBlockWasDone) {
  ended_in_block ended(0);
  ASSERT_FALSE(collect(m, text, ended, nullptr, serial, options));
  EXPECT_FALSE(std::filesystem::exists(options.state));
}

TEST(ExactSums, DoNotDependOnTheOrder) {
  std::vector<double> values;
  for (int i = 0; i < 4000; ++i) {
    const auto x = static_cast<float>(std::ldexp(1.0 + i * 7919 % 4001 / 4001.0, i * 31 % 40 - 20));
    values.push_back(double{x} * x);
  }
  const auto sum = [](auto first, auto last) {
    imatrix::entry e(1, 1);
    e.rest.resize(2);
    for (; first != last; ++first) imatrix::add_exactly(*first, e.sums[0], e.rest.data());
    imatrix::settle(e);
    return e;
  };
  const auto forward = sum(values.begin(), values.end()), backward = sum(values.rbegin(), values.rend());
  EXPECT_TRUE(forward == backward);
  double plain = 0;
  for (const double v : values) plain += v;
  EXPECT_NEAR(forward.sums[0], plain, 1e-12 * plain);
  for (const std::ptrdiff_t at : {1, 1000, 3999}) {
    imatrix::store first, second;
    first.entries.emplace("blk.0.a", sum(values.begin(), values.begin() + at));
    second.entries.emplace("blk.0.a", sum(values.begin() + at, values.end()));
    ASSERT_TRUE(imatrix::merge(first, second));
    EXPECT_TRUE(first.entries.at("blk.0.a") == forward) << at;
  }
}

TEST(ExactSums, PartsOfATextAddUpToTheBytesOfTheWhole) {
  const auto m = load_model(fixture_stem + "v3-ik-bf16.gguf");
  ASSERT_TRUE(m);
  const auto whole = text_of(*m);
  const auto collect_part = [&](std::int64_t first, std::int64_t last) {
    auto part = whole;
    part.tokens.erase(part.tokens.begin(), part.tokens.begin() + first * part.size);
    part.chunks = last - first;
    collector c({.exact = true});
    c.statistics().datasets = {"text"};
    c.statistics().chunks = imatrix::chunk_range{first, last};
    serial_executor serial;
    EXPECT_TRUE(collect(*m, part, c, nullptr, serial, {}));
    return c.statistics();
  };
  const test::temp_dir dir;
  const auto bytes = [&](const imatrix::store& s) {
    EXPECT_TRUE(imatrix::save_gguf(s, dir / "s.gguf"));
    return test::read_file(dir / "s.gguf");
  };
  auto merged = collect_part(0, 2);
  ASSERT_TRUE(imatrix::save_gguf(merged, dir / "first.gguf"));
  merged = *imatrix::load(dir / "first.gguf");
  for (const auto& [first, last] : {std::pair{2, 3}, std::pair{3, 4}})
    ASSERT_TRUE(imatrix::merge(merged, collect_part(first, last)));
  EXPECT_TRUE(bytes(merged) == bytes(collect_part(0, 4)));
  auto apart = collect_part(0, 1);
  ASSERT_TRUE(imatrix::merge(apart, collect_part(2, 3)));
  EXPECT_FALSE(apart.chunks);
  EXPECT_EQ(apart.datasets.size(), 2u);
}

}  // namespace
}  // namespace quantal::mla
