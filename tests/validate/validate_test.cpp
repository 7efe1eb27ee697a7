// quantal-validate on models of an architecture it cannot run, and on the shipped one's small relatives.
#include <gtest/gtest.h>

#include <cmath>

#include "html.hpp"
#include "json.hpp"
#include "quantal/dequantize.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/imatrix/moments.hpp"
#include "quantal/quantize/quantize.hpp"
#include "run.hpp"
#include "shell.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"
#include "synthetic.hpp"

namespace quantal::validate {
namespace {

constexpr std::int64_t cols = 256, rows = 40;

gguf::metadata named(const char* architecture) {
  gguf::metadata m;
  m.set("general.architecture", std::string(architecture));
  return m;
}

std::vector<gguf::tensor_info> tensors(std::uint32_t type) {
  return {test::tensor("blk.0.ffn_up.weight", type, {cols, rows, 1, 1}),
          test::tensor("blk.0.ffn_up_exps.weight", type, {cols, rows, 2, 1}),
          test::tensor("output_norm.weight", f32::gguf_id, {cols, 1, 1, 1})};
}

/// The reference's weights as `type`; `damage` may change bytes.
void write_quantized(const std::filesystem::path& from, const std::filesystem::path& to, std::uint32_t type,
                     const std::function<void(std::vector<std::byte>&)>& damage = {}) {
  const auto r = gguf::reader::open(from);
  ASSERT_TRUE(r);
  auto w = gguf::writer::create(to, r->meta(), tensors(type));
  ASSERT_TRUE(w);
  for (const auto& t : tensors(type)) {
    const auto source = *r->data(*r->find(t.name));
    std::vector<std::byte> out(t.nbytes);
    const auto* f = find_format(t.type);
    for (std::int64_t i = 0; i < t.rows() * t.slices(); ++i)
      ASSERT_EQ(quantize_row(t.type, reinterpret_cast<const float*>(source.data()) + i * cols, nullptr,
                             out.data() + i * f->row_bytes(cols), cols),
                status::ok);
    if (damage && t.type == type) damage(out);
    ASSERT_TRUE(w->append(out));
  }
  ASSERT_TRUE(w->finish());
}

class Validate : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_model(dir / "reference.gguf", named("llama"), tensors(f32::gguf_id));
    write_quantized(dir / "reference.gguf", dir / "model.gguf", q4_0::gguf_id);
    o.model = dir / "model.gguf", o.reference = dir / "reference.gguf";
    o.threads = 2;
  }
  void write_statistics(float second_half) {
    imatrix::store s;
    imatrix::entry plain(cols, 1), experts(cols, 2);
    for (auto* e : {&plain, &experts}) {
      for (std::size_t i = 0; i < e->sums.size(); ++i)
        e->sums[i] = i % cols < cols / 2 ? 512 : 512 * second_half;
      for (auto& c : e->counts) c = 512;
    }
    s.entries = {{"blk.0.ffn_up.weight", plain}, {"blk.0.ffn_up_exps.weight", experts}};
    const auto saved = imatrix::save_gguf(s, dir / "im.gguf");
    ASSERT_TRUE(saved) << saved.error().message;
    o.imatrix = (dir / "im.gguf").string();
  }
  const metrics& of(const findings& f, const std::string& name) {
    for (const auto& t : f.tensors)
      if (t.name == name) return t.values;
    ADD_FAILURE() << name;
    return f.whole;
  }
  std::string program(const std::string& options) {
    return std::string(QUANTAL_VALIDATE) + " " + o.model.string() + " --reference " + o.reference.string() +
           " " + options;
  }
  test::temp_dir dir;
  run_options o;
};

TEST_F(Validate, MeasuresWhatTheDefinitionsSay) {
  write_statistics(0.25f);
  const auto f = validate(o);
  ASSERT_TRUE(f) << f.error().message;
  const auto model = gguf::reader::open(o.model), reference = gguf::reader::open(o.reference);
  for (const char* name : {"blk.0.ffn_up.weight", "blk.0.ffn_up_exps.weight"}) {
    const auto& t = *model->find(name);
    const auto* x = reinterpret_cast<const float*>(reference->data(*reference->find(name))->data());
    std::vector<float> y(static_cast<std::size_t>(t.elements()));
    for (std::int64_t i = 0; i < t.elements() / cols; ++i)
      dequantize_row<q4_0>(model->data(t)->data() + i * row_bytes<q4_0>(cols), y.data() + i * cols, cols);
    double e = 0, n = 0, we = 0, wn = 0, dot = 0, norm = 0, largest = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double d = double{x[i]} - y[i], w = i % cols < cols / 2 ? 1 : 0.25;
      e += d * d, n += double{x[i]} * x[i], we += w * d * d, wn += w * x[i] * x[i];
      dot += double{x[i]} * y[i], norm += double{y[i]} * y[i], largest = std::max(largest, std::abs(d));
    }
    const auto& m = of(*f, name);
    EXPECT_NEAR(m.at("nmse"), e / n, 1e-9);
    EXPECT_NEAR(m.at("wnmse"), we / wn, 1e-6);
    EXPECT_NEAR(m.at("cosine"), dot / std::sqrt(n * norm), 1e-9);
    EXPECT_EQ(m.at("max_error"), largest);
    // Expected error of products with uncorrelated activations, up to chance and the rounding of the
    // activations.
    EXPECT_NEAR(m.at("output_nmse") / m.at("wnmse"), 1, 0.35);
  }
  EXPECT_EQ(of(*f, "output_norm.weight").at("nmse"), 0);
}

/// Moments of inputs whose neighbours are correlated; those held out are others.
imatrix::moments correlated(std::int64_t columns, double held_out) {
  imatrix::moments m(columns, 1);
  for (auto* part : {&m.sums, &m.held_out}) {
    const double near = part == &m.sums ? 0.1 : 0.9;
    auto v = part->begin();
    for (std::int64_t i = 0; i < columns; ++i)
      for (std::int64_t j = 0; j <= i; ++j)
        *v++ = static_cast<float>(8 * std::pow(near, static_cast<double>(i - j)));
  }
  m.counts = {8}, m.held_counts = {held_out};
  if (held_out == 0) m.held_out.assign(m.held_out.size(), 0.0f);
  return m;
}

TEST_F(Validate, MeasuresOutputErrorsBySecondMoments) {
  o.hessian = (dir / "moments.gguf").string();
  const char* name = "blk.0.ffn_up.weight";
  for (const double held_out : {8.0, 0.0}) {
    imatrix::moments_store s;
    s.entries[name] = correlated(cols, held_out);
    ASSERT_TRUE(imatrix::save_moments(s, o.hessian));
    o.gates = {"ffn_up.weight: hessian_nmse<=1", "ffn_up.weight: hessian_nmse<=1e-9"};
    const auto f = validate(o);
    ASSERT_TRUE(f) << f.error().message;
    EXPECT_EQ(f->count(verdict::passed), 1u);
    EXPECT_EQ(f->count(verdict::failed), 1u);
    EXPECT_FALSE(of(*f, "blk.0.ffn_up_exps.weight").contains("hessian_nmse"));
    const auto model = gguf::reader::open(o.model), reference = gguf::reader::open(o.reference);
    const auto* x = reinterpret_cast<const float*>(reference->data(*reference->find(name))->data());
    double error = 0, signal = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      float y[cols];
      dequantize_row<q4_0>(model->data(*model->find(name))->data() + r * row_bytes<q4_0>(cols), y, cols);
      for (std::int64_t i = 0; i < cols; ++i)
        for (std::int64_t j = 0; j < cols; ++j) {
          const double h = std::pow(held_out > 0 ? 0.9 : 0.1, static_cast<double>(std::abs(i - j)));
          const float* w = x + r * cols;
          signal += h * w[i] * w[j], error += h * (w[i] - y[i]) * (w[j] - y[j]);
        }
    }
    EXPECT_NEAR(of(*f, name).at("hessian_nmse"), error / signal, 1e-4 * error / signal);
  }
}

TEST_F(Validate, BadSecondMomentsLeaveTheVerdictUnknown) {
  o.hessian = (dir / "moments.gguf").string();
  const auto refuse = [&](const char* part) {
    const auto f = validate(o);
    ASSERT_FALSE(f);
    EXPECT_NE(f.error().message.find("moments.gguf"), std::string::npos) << f.error().message;
    EXPECT_NE(f.error().message.find(part), std::string::npos) << f.error().message;
  };
  refuse("cannot open");
  imatrix::moments_store s;
  s.entries["blk.0.ffn_up.weight"] = correlated(cols / 2, 8);
  ASSERT_TRUE(imatrix::save_moments(s, o.hessian));
  refuse("do not fit tensor 'blk.0.ffn_up.weight'");
  s.entries["blk.0.ffn_up.weight"] = correlated(cols, 8);
  s.entries["blk.0.ffn_up.weight"].held_out[5] = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(imatrix::save_moments(s, o.hessian));
  refuse("not finite");
}

TEST_F(Validate, ThreadsDoNotChangeTheResult) {
  const auto two = validate(o);
  o.threads = 1;
  const auto one = validate(o);
  ASSERT_TRUE(one && two);
  for (std::size_t i = 0; i < one->tensors.size(); ++i)
    EXPECT_EQ(one->tensors[i].values, two->tensors[i].values);
}

TEST_F(Validate, SeesOneDamagedByte) {
  write_quantized(o.reference, o.model, q4_0::gguf_id,
                  [](auto& bytes) { bytes[1] = std::byte{0x5c}; });  // a scale
  o.gates = {"ffn_up: cosine>=0.98"};
  const auto f = validate(o);
  ASSERT_TRUE(f) << f.error().message;
  EXPECT_EQ(f->count(verdict::failed), 2u);
}

TEST_F(Validate, NaNFailsGates) {
  write_quantized(o.reference, o.model, q4_0::gguf_id,
                  [](auto& bytes) { bytes[0] = bytes[1] = std::byte{0x7f}; });
  o.gates = {"ffn_up: nmse<=1e30", "ffn_up: max_error<=1e30", "ffn_up: cosine>=-1"};
  const auto f = validate(o);
  ASSERT_TRUE(f) << f.error().message;
  EXPECT_EQ(f->count(verdict::passed), 0u);
}

TEST_F(Validate, ValuesThatAreNotFiniteFailWithoutGates) {
  write_quantized(o.reference, o.model, q4_0::gguf_id,
                  [](auto& bytes) { bytes[0] = bytes[1] = std::byte{0x7f}; });
  auto f = validate(o);
  ASSERT_TRUE(f) << f.error().message;
  EXPECT_TRUE(f->failed());
  ASSERT_EQ(f->not_finite().size(), 2u);
  EXPECT_EQ(f->not_finite()[0].find("blk.0.ffn_up.weight: "), 0u) << f->not_finite()[0];
  EXPECT_EQ(test::shell(program("")).code, 1);
  EXPECT_EQ(test::shell(program("--gate 'output_norm: nmse<=1'")).code, 1);
  EXPECT_NE(as_table(*f).find("FAIL: blk.0.ffn_up.weight"), std::string::npos);
  EXPECT_NE(as_junit(*f).find("tests=\"2\" failures=\"2\""), std::string::npos);
  EXPECT_NE(as_markdown(*f).find("FAILED: 2 tensors are not finite"), std::string::npos);
  const auto document = json::parse(as_json(*f));
  EXPECT_FALSE(document["passed"].get<bool>());
  EXPECT_EQ(document["not_finite"].size(), 2u);
}

TEST_F(Validate, NoGateHoldsForInfinity) {
  for (const char* text : {"x: max_error>=1", "x: max_error>1", "x: nmse<=1", "x: nmse<1"}) {
    const auto g = parse_gate(text, "test");
    ASSERT_TRUE(g);
    for (const double v : {HUGE_VAL, -HUGE_VAL, std::nan("")}) EXPECT_FALSE(g->holds(v)) << text << " " << v;
  }
}

TEST_F(Validate, MissingTensorsAndOtherShapes) {
  auto fewer = tensors(f32::gguf_id);
  fewer.pop_back();
  test::write_model(dir / "fewer.gguf", named("llama"), fewer);
  o.model = dir / "fewer.gguf";
  auto f = validate(o);
  ASSERT_FALSE(f);
  EXPECT_NE(f.error().message.find("lacks output_norm.weight"), std::string::npos) << f.error().message;
  o.allow_missing = true;
  f = validate(o);
  ASSERT_TRUE(f);
  EXPECT_EQ(f->tensors.size(), 2u);
  EXPECT_EQ(f->notes.size(), 1u);
  fewer[0].ne[1] += 1;
  fewer[0].nbytes += cols * 4;
  test::write_model(dir / "fewer.gguf", named("llama"), fewer);
  f = validate(o);
  ASSERT_FALSE(f);
  EXPECT_NE(f.error().message.find("'blk.0.ffn_up.weight' is [256, 41, 1, 1]"), std::string::npos)
      << f.error().message;
}

TEST_F(Validate, ExitCodes) {
  const auto code = [&](const std::string& options) { return test::shell(program(options)).code; };
  EXPECT_EQ(code("--gate 'weight: nmse<=0.05'"), 0);
  EXPECT_EQ(code("--gate 'weight: nmse<=1e-9'"), 1);
  EXPECT_EQ(code("--gate 'zzz: nmse<=1'"), 2);
  EXPECT_EQ(code("--gate 'kld<=1'"), 2);
  EXPECT_EQ(code("--gate 'weight: frob<=1'"), 2);
  EXPECT_EQ(code("--nope"), 2);
  EXPECT_EQ(code("-o yaml"), 2);
  EXPECT_EQ(code("--text " + (dir / "none.txt").string() + " --gate 'kld<=1'"),
            2);  // llama does not run here
  o.model = dir / "none.gguf";
  EXPECT_EQ(code(""), 2);
}

TEST_F(Validate, EveryOutput) {
  test::write_file(dir / "g.json", R"({"gates": [{"tensors": "up", "metric": "nmse", "max": 1e-9}]})");
  const auto file = [&](const char* name) { return (dir / name).string(); };
  const auto run =
      test::shell(program("--gates " + file("g.json") + " -o json=" + file("o.json") +
                          " -o junit=" + file("o.xml") + " -o markdown=" + file("o.md") + " -o table"));
  EXPECT_EQ(run.code, 1) << run.text;
  EXPECT_NE(run.text.find("FAIL: blk.0.ffn_up.weight: nmse is"), std::string::npos) << run.text;
  const auto document = json::parse(test::read_file(dir / "o.json"));
  EXPECT_FALSE(document["passed"].get<bool>());
  EXPECT_EQ(document["checks"].size(), 2u);
  EXPECT_EQ(document["tensors"].size(), 3u);
  const auto xml = test::read_file(dir / "o.xml");
  EXPECT_NE(xml.find("tests=\"2\" failures=\"2\""), std::string::npos) << xml;
  EXPECT_NE(xml.find("up: nmse&lt;=1e-09"), std::string::npos) << xml;
  EXPECT_NE(test::read_file(dir / "o.md").find("| `up: nmse<=1e-09` | `blk.0.ffn_up.weight` |"),
            std::string::npos);
}

TEST_F(Validate, AModelAgainstItself) {
  const std::string fixture = test::data_file("/fixtures/fixture-v2lite-ik-bf16.gguf");
  o.model = o.reference = fixture;
  o.text = test::model_file("/validation.txt");
  o.context = 16, o.chunks = 2;
  o.gates = {"weight: nmse<=0", "kld<=1e-3", "same_top>=0.9"};
  const auto f = validate(o);
  ASSERT_TRUE(f) << f.error().message;
  EXPECT_EQ(f->count(verdict::failed), 0u) << as_table(*f);
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Html, EscapesWhatComesFromFiles) {
  const std::string hostile = "\"><script>alert('&')</script>\x1b\xff";
  findings f;
  f.model = f.reference = hostile;
  f.notes = {hostile};
  f.tensors = {{hostile, hostile, hostile, 10, 20, hostile, {{"nmse", std::nan("")}}}};
  f.whole = {{"kld", 0.01}};
  f.bytes = 1000;
  f.points = {{hostile, 2000, 0.1}};
  const auto page = as_html(f);
  for (const char* part : {"<script", "\x1b", "\xff", "alert('", "http:", "https:", "src="})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  EXPECT_GE(occurrences(page, "&#60;script&#62;alert(&#39;&#38;&#39;)"), 5u);
}

TEST(Html, IsOnePageWithAChart) {
  findings f;
  f.whole = {{"kld", 0.02}};
  f.bytes = 4000000;
  f.tensors = {{"a.weight", "q4_0", "bf16", 100, 400, "", {{"nmse", 0.25}}}};
  f.points = {{"IQ3_XXS", 4332800, 0.11}, {"Q4_0", 5807872, 0.027}};
  const auto page = as_html(f);
  EXPECT_EQ(page.find("<!DOCTYPE html>"), 0u);
  for (const char* part : {"IQ3_XXS", "this model", "<svg", "0.25", "q4_0", "</html>"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  EXPECT_EQ(occurrences(page, "<circle"), 3u);
  EXPECT_EQ(occurrences(page, "nan"), 0u);
  f.points.clear();
  EXPECT_EQ(occurrences(as_html(f), "nan"), 0u);
  f.whole.clear();
  EXPECT_EQ(occurrences(as_html(f), "<svg"), 0u);
}

TEST(Html, PointsSayWhatIsWrong) {
  const auto good =
      parse_points(R"([{"name": "a", "bytes": 5, "kld": 0.5}, {"mix": "b", "bytes": 6, "kld": 1}])", "p");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ((*good)[1].name, "b");
  for (const char* text :
       {"", "{}", "[1]", R"([{"name": "a", "bytes": 5}])", R"([{"name": 1, "bytes": 5, "kld": 1}])",
        R"([{"name": "a", "bytes": 0, "kld": 1}])", R"([{"name": "a", "bytes": 5, "kld": -1}])"}) {
    const auto bad = parse_points(text, "points.json");
    ASSERT_FALSE(bad) << text;
    EXPECT_EQ(bad.error().message.find("points.json: "), 0u) << bad.error().message;
  }
}

TEST_F(Validate, WritesHtmlWholeOrNotAtAll) {
  const auto page = (dir / "report.html").string();
  const auto points = (dir / "points.json").string();
  test::write_file(points, R"([{"name": "a", "bytes": 5, "kld": 0.5}])");
  EXPECT_EQ(test::shell(program("-o html=" + page + " --points " + points + " 2>&1")).code, 0);
  EXPECT_NE(test::read_file(page).find("</html>"), std::string::npos);
  std::filesystem::remove(page);
  test::write_file(points, "[");
  const auto bad = test::shell(program("-o html=" + page + " --points " + points + " 2>&1"));
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.text.find("points.json"), std::string::npos) << bad.text;
  EXPECT_FALSE(std::filesystem::exists(page));
}

}  // namespace
}  // namespace quantal::validate
