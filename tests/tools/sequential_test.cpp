// quantal-quantize --sequential below its command line: what is collected, what weights aim at, how errors are measured, and
// whole runs on fixtures.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "file.hpp"
#include "json.hpp"
#include "paired_collector.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/runtime/ops.hpp"
#include "reference_meter.hpp"
#include "reference_target.hpp"
#include "run.hpp"
#include "support/edited_model.hpp"
#include "support/paths.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

constexpr std::int64_t cols = 96, rows = 40, tokens = 600, held = 60;

/// Inputs of neighbours that are alike, and the reference's, which lie beside them in a way that they tell.
struct input_pair {
  std::vector<float> x = std::vector<float>(tokens * cols), r = x;

  input_pair() {
    std::mt19937 random(7);
    std::normal_distribution<float> noise;
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t c = 0; c < cols; ++c) {
        float* at = &x[static_cast<std::size_t>(t * cols + c)];
        *at = noise(random) + (c > 0 ? 0.8f * at[-1] : 0.0f);
        r[static_cast<std::size_t>(t * cols + c)] =
            1.1f * *at - (c > 0 ? 0.2f * at[-1] : 0.0f) + 0.1f * noise(random);
      }
  }
};

mla::matrix_input dense(const std::vector<float>& x, std::int64_t first, std::int64_t n) {
  return {"blk.0.ffn_down.weight", x.data() + first * cols, cols, n, cols};
}

paired_collector collector_of(std::vector<std::string> names, std::int64_t held_out_from,
                              executor_ref threads) {
  return {std::move(names),
          {std::size_t{1} << 30, held_out_from},
          runtime::dispatcher::best().product(),
          threads};
}

paired_moments collected(const input_pair& in, std::int64_t batch, std::int64_t held_out_from,
                         executor_ref threads) {
  auto c = collector_of({"blk.0.ffn_down.weight"}, held_out_from, threads);
  for (std::int64_t at = 0; at < tokens; at += batch) {
    const std::int64_t n = std::min(batch, tokens - at);
    for (const bool reference : {false, true}) {
      auto& side = reference ? c.reference() : c.quantized();
      side.start_at(at);
      EXPECT_FALSE(side.done());
      EXPECT_TRUE(side.on_mul_mat(dense(reference ? in.r : in.x, at, n)));
      EXPECT_TRUE(side.done());
    }
  }
  return c.moments_of("blk.0.ffn_down.weight");
}

std::vector<float> random_weights() {
  std::mt19937 random(3);
  std::normal_distribution<float> noise;
  std::vector<float> w(rows * cols);
  for (auto& v : w) v = noise(random);
  return w;
}

/// Squared distance of q x from w r, mean over tokens [from, to), of row `row`.
double distance(const input_pair& in, const std::vector<float>& w, const std::vector<float>& q,
                std::int64_t row, std::int64_t from, std::int64_t to) {
  double sum = 0;
  for (std::int64_t t = from; t < to; ++t) {
    double y = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      const auto i = static_cast<std::size_t>(row * cols + c), j = static_cast<std::size_t>(t * cols + c);
      y += double{w[i]} * in.r[j] - double{q[i]} * in.x[j];
    }
    sum += y * y;
  }
  return sum / static_cast<double>(to - from);
}

double distance(const input_pair& in, const std::vector<float>& w, const std::vector<float>& q,
                std::int64_t from) {
  double sum = 0;
  for (std::int64_t r = 0; r < rows; ++r) sum += distance(in, w, q, r, from, tokens);
  return sum;
}

TEST(PairedCollector, SumsDoNotDependOnBatchesOrThreads) {
  const input_pair in;
  serial_executor serial;
  thread_pool pool(3);
  const auto a = collected(in, tokens, tokens - held, serial), b = collected(in, 77, tokens - held, pool);
  EXPECT_EQ(a.inputs, b.inputs);
  EXPECT_EQ(a.shift, b.shift);
  EXPECT_EQ(a.held_shift, b.held_shift);
  EXPECT_EQ(a.held_rest, b.held_rest);
  EXPECT_EQ(a.inputs.counts[0], tokens - held);
  double sum = 0;
  for (std::int64_t t = 0; t < tokens - held; ++t) {
    const auto at = static_cast<std::size_t>(t * cols);
    sum += double{in.r[at + 5] - in.x[at + 5]} * in.x[at + 9];
  }
  EXPECT_NEAR(a.shift[5 * cols + 9], sum, 1e-3 * std::fabs(sum));
}

/// The quantized model's router decides for both.
TEST(PairedCollector, ExpertsOfTheReferenceAreThoseOfTheQuantizedModel) {
  const input_pair in;
  std::vector<std::int32_t> ids(tokens);
  for (std::size_t t = 0; t < ids.size(); ++t) ids[t] = t % 3 == 0 ? 2 : 0;
  serial_executor serial;
  auto c = collector_of({"blk.1.ffn_down_exps.weight"}, tokens, serial);
  c.quantized().start_at(0);
  EXPECT_TRUE(c.quantized().other_experts().empty());
  const auto input = [&](const std::vector<float>& x) {
    return mla::expert_input{"blk.1.ffn_down_exps.weight", x.data(), cols, tokens, cols, 0, ids.data(), 1, 4};
  };
  EXPECT_TRUE(c.quantized().on_mul_mat_id(input(in.x)));
  c.reference().start_at(0);
  const auto wanted = c.reference().other_experts();
  EXPECT_EQ(std::vector<std::int32_t>(wanted.begin(), wanted.end()), ids);
  EXPECT_TRUE(c.reference().on_mul_mat_id(input(in.r)));
  EXPECT_EQ(c.moments_of("blk.1.ffn_down_exps.weight").inputs.counts, (std::vector<double>{400, 0, 200, 0}));
}

TEST(PairedCollector, BadInputsNameTheTensor) {
  input_pair in;
  in.r[77] = std::numeric_limits<float>::infinity();
  serial_executor serial;
  auto c = collector_of({"blk.0.ffn_down.weight"}, tokens, serial);
  c.quantized().start_at(0), c.reference().start_at(0);
  EXPECT_TRUE(c.quantized().on_mul_mat(dense(in.x, 0, tokens)));
  const auto r = c.reference().on_mul_mat(dense(in.r, 0, tokens));
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("blk.0.ffn_down.weight"), std::string::npos);
}

output_metric metric_of(const paired_moments& m) {
  serial_executor serial;
  output_metric metric;
  EXPECT_EQ(
      metric.prepare({cols, m.inputs.counts[0], m.inputs.matrix(0)}, serial, {.kappa = 0, .damping = 1e-6}),
      status::ok);
  return metric;
}

/// Without shrinkage it is the least-squares answer: no small change of a weight does better on the tokens that it saw.
TEST(ReferenceTarget, IsTheLeastSquaresAnswer) {
  const input_pair in;
  thread_pool pool(3);
  const auto m = collected(in, tokens, tokens, pool);
  const auto metric = metric_of(m);
  const auto w = random_weights();
  auto moved = w;
  EXPECT_EQ(reference_target(m, 0, metric, pool).move(moved, rows, 1.0), 1.0);
  for (const std::int64_t row : {0, 23, 24, 39}) {
    const double best = distance(in, w, moved, row, 0, tokens);
    EXPECT_LT(best, 0.5 * distance(in, w, w, row, 0, tokens));
    for (const std::int64_t c : {0, 63, 64, 95})
      for (const float step : {-0.02f, 0.02f}) {
        auto other = moved;
        other[static_cast<std::size_t>(row * cols + c)] += step;
        EXPECT_GT(distance(in, w, other, row, 0, tokens), best) << row << " " << c;
      }
  }
  auto stays = w;
  EXPECT_EQ(reference_target(m, 0, metric, pool).move(stays, rows, 0.0), 0.0);
  EXPECT_EQ(stays, w);
}

TEST(ReferenceTarget, HeldOutInputsDecideHowFarItGoes) {
  const input_pair in;
  serial_executor serial;
  thread_pool pool(3);
  const auto m = collected(in, tokens, tokens - held, pool);
  const auto metric = metric_of(m);
  const auto w = random_weights();
  auto moved = w, again = w;
  const double share = reference_target(m, 0, metric, pool).move(moved, rows, 0.0);
  EXPECT_EQ(reference_target(m, 0, metric, serial).move(again, rows, 0.0), share);
  EXPECT_EQ(moved, again);
  EXPECT_GT(share, 0.5);
  const double best = distance(in, w, moved, tokens - held);
  EXPECT_LT(best, 0.5 * distance(in, w, w, tokens - held));
  for (const float other : {0.9f, 1.1f}) {
    auto q = w;
    for (std::size_t i = 0; i < q.size(); ++i) q[i] += other * (moved[i] - w[i]);
    if (share < 1 || other < 1) {
      EXPECT_GT(distance(in, w, q, tokens - held), best);
    }
  }
}

TEST(ReferenceMeter, MeasuresWhatTokensSay) {
  const input_pair in;
  serial_executor serial;
  const auto m = collected(in, tokens, tokens - held, serial);
  const auto w = random_weights();
  auto q = w, e = w;
  for (std::size_t i = 0; i < w.size(); ++i) q[i] = std::round(w[i]), e[i] = w[i] - q[i];
  const std::vector<float> nothing(w.size());
  std::vector<double> signal(rows), error(rows);
  reference_meter::scratch s;
  const reference_meter meter(m.inputs, 0, &m);
  meter.measure_signal(w.data(), rows, s, signal.data());
  meter.measure_error(e.data(), rows, s, error.data());
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto i = static_cast<std::size_t>(r);
    EXPECT_NEAR(signal[i], distance(in, w, nothing, r, tokens - held, tokens), 1e-3 * signal[i]);
    EXPECT_NEAR(error[i], distance(in, w, q, r, tokens - held, tokens), 1e-3 * error[i]);
  }
}

class sequential_runs : public ::testing::Test {
 protected:
  sequential_runs() {
    std::string text;
    for (int i = 0; text.size() < 3000; ++i)
      text += "Item " + std::to_string(i * 7919 % 1000) + " of the list, said the author; see section " +
              std::to_string(i) + ".\n";
    EXPECT_TRUE(file::write(dir / "text.txt", text));
    o.in = fixture("v2lite-mainline"), o.out = dir / "out.gguf", o.type = "Q4_0", o.pure = true,
    o.threads = 2, o.json = true, o.sequential.text = dir / "text.txt", o.sequential.context = 64;
  }
  static std::filesystem::path fixture(const std::string& name) {
    return test::data_file("/fixtures/fixture-") + name + "-bf16.gguf";
  }
  /// Runs with stdout captured; empty or the message.
  std::string failure() {
    ::testing::internal::CaptureStdout();
    const auto r = run(o);
    printed = ::testing::internal::GetCapturedStdout();
    return r ? "" : r.error().message;
  }
  void expect_failure(std::initializer_list<std::string> parts) {
    const auto before = dir.names();
    const auto message = failure();
    for (const auto& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << "\n" << message;
    EXPECT_EQ(dir.names(), before) << "nothing may stay behind";
  }
  /// Error of the outputs of all tensors, of the plain codes and of those of the file; how many were chosen.
  struct sums {
    double plain = 0, kept = 0;
    int chosen = 0, measured = 0;
  };
  sums outputs() const {
    sums s;
    const auto document = json::parse(printed);
    for (const auto& t : document["tensors"]) {
      if (!t.contains("output")) continue;
      const auto& out = t["output"];
      EXPECT_TRUE(out["measured"]) << t["name"];
      EXPECT_GE(out["followed"], 0.0) << t["name"];
      EXPECT_LE(out["followed"], 1.0) << t["name"];
      const double plain = out["plain_nmse"], chosen = out["chosen_nmse"];
      EXPECT_EQ(out["accepted"], chosen < plain) << t["name"];
      s.plain += plain, s.kept += std::min(plain, chosen), s.chosen += chosen < plain, ++s.measured;
    }
    return s;
  }
  test::temporary_folder dir;
  run_options o;
  std::string printed;
};

TEST_F(sequential_runs, lower_the_error_against_the_outputs_of_the_model) {
  ASSERT_EQ(failure(), "");
  const auto all = outputs();
  EXPECT_GT(all.measured, 10);
  EXPECT_GT(all.chosen, all.measured / 2);
  EXPECT_LT(all.kept, 0.9 * all.plain);
  const auto first = *file::read_text(o.out);
  EXPECT_EQ(*gguf::reader::open(o.out)->meta().string("quantize.sequential.dataset"), "text.txt");
  o.threads = 1, o.out = dir / "again.gguf";
  ASSERT_EQ(failure(), "");
  EXPECT_TRUE(first == *file::read_text(o.out)) << "bytes depend on the number of threads";
}

/// Other layouts of the up-projections, a router of another kind, a query without low rank; a type that needs importance.
TEST_F(sequential_runs, take_every_layout_and_need_no_importance_matrix) {
  o.type = "IQ2_XXS", o.sequential.chunks = 4;
  for (const char* name : {"v2lite-ik", "v3-mainline", "v3-ik"}) {
    o.in = fixture(name);
    ASSERT_EQ(failure(), "") << name;
    EXPECT_GT(outputs().chosen, 0) << name;
  }
}

TEST_F(sequential_runs, few_tokens_do_no_harm) {
  o.sequential.chunks = 2;
  ASSERT_EQ(failure(), "");
  const auto all = outputs();
  EXPECT_LE(all.kept, all.plain);
}

TEST_F(sequential_runs, say_what_they_will_do) {
  o.dry_run = true, o.json = false;
  ASSERT_EQ(failure(), "");
  EXPECT_NE(printed.find("chunks of 64 tokens of " + o.sequential.text.string()), std::string::npos)
      << printed;
  EXPECT_FALSE(std::filesystem::exists(o.out));
}

TEST_F(sequential_runs, name_what_is_wrong) {
  o.sequential.text = dir / "none.txt";
  expect_failure({"none.txt"});
  ASSERT_TRUE(file::write(dir / "short.txt", "too short"));
  o.sequential.text = dir / "short.txt";
  expect_failure({"short.txt"});
  o.sequential.text = dir / "text.txt";
  test::edit_model(fixture("v2lite-mainline"), dir / "other.gguf",
                   test::with_key("general.architecture", std::string("llama")));
  o.in = dir / "other.gguf";
  expect_failure({"--sequential runs the model, and this one cannot be run", "other.gguf", "llama"});
  test::edit_model(fixture("v2lite-mainline"), dir / "nan.gguf", test::nan_in("blk.1.attn_output.weight"));
  o.in = dir / "nan.gguf";
  expect_failure({"nan.gguf", "blk.1.attn_output.weight"});
  o.in = fixture("v2lite-mainline"), o.type = "COPY";
  expect_failure({"--sequential has no effect with type COPY"});
  o.type = "Q4_0", o.out = o.sequential.text;
  expect_failure({"--text", "text.txt"});
}

}  // namespace
}  // namespace quantal::plan
