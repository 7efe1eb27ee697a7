// A host's floating-point settings: subnormals flushed to zero, other rounding modes. Every public function
// gives the bits that it gives without, for every format and arch.
#include <gtest/gtest.h>

#include <cfenv>
#include <cstring>

#include "quantal/dequantize.hpp"
#include "quantal/float_environment.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

#if defined(__x86_64__)
unsigned settings() {
  unsigned w;
  asm volatile("stmxcsr %0" : "=m"(w));
  return w;
}
void set(unsigned w) { asm volatile("ldmxcsr %0" : : "m"(w)); }
constexpr unsigned flush = 0x8040;  // flush results, read subnormals as zero
#elif defined(__aarch64__)
std::uint64_t settings() {
  std::uint64_t w;
  asm volatile("mrs %0, fpcr" : "=r"(w));
  return w;
}
void set(std::uint64_t w) { asm volatile("msr fpcr, %0" : : "r"(w)); }
constexpr std::uint64_t flush = 1u << 24;
#endif

/// Settings for as long as it lives.
class under {
 public:
  explicit under(const char* name) : kept_(settings()) {
    if (std::strcmp(name, "flush") == 0) set(kept_ | flush);
    if (std::strcmp(name, "upward") == 0) std::fesetround(FE_UPWARD);
    if (std::strcmp(name, "towards zero") == 0) std::fesetround(FE_TOWARDZERO);
  }
  ~under() {
    std::fesetround(FE_TONEAREST);
    set(kept_);
  }

 private:
  decltype(settings()) kept_;
};

/// Everything that the library computes of one format on one arch, one result after the other.
class results {
 public:
  std::vector<std::byte> bytes;

  results(const runtime::dispatcher& arch, const format_info& f, float magnitude) : arch_(arch), f_(f) {
    rng g(7);
    std::normal_distribution<float> normal(0.0f, magnitude);
    for (int i = 0; i < rows * cols; ++i) x_.push_back(normal(g));
    for (int i = 0; i < cols; ++i) importance_.push_back(std::fabs(normal(g)));
    for (int i = 0; i < n * cols; ++i) activations_.push_back(std::normal_distribution<float>()(g));
    weights_.resize(static_cast<std::size_t>(rows * f.row_bytes(cols)));
  }

  void compute() {
    bytes.clear();
    for (const float* w :
         {static_cast<const float*>(importance_.data()), static_cast<const float*>(nullptr)}) {
      for (int r = 0; r < rows; ++r)
        add(arch_.find_quantizer(f_.gguf_id)(x_.data() + r * cols, w, row(r), cols));
      bytes.insert(bytes.end(), weights_.begin(), weights_.end());
    }
    decode();
    for (auto& b : weights_)
      b = b ^ static_cast<std::byte>((&b - weights_.data()) % 7);  // scales of all sizes
    decode();
    multiply();
  }

 private:
  static constexpr int rows = 3, cols = 512, n = 17;

  std::byte* row(int r) { return weights_.data() + r * f_.row_bytes(cols); }
  void add(status s) { bytes.push_back(static_cast<std::byte>(s)); }
  void add(const std::vector<float>& v) {
    const auto* p = reinterpret_cast<const std::byte*>(v.data());
    bytes.insert(bytes.end(), p, p + 4 * v.size());
  }
  void decode() {
    std::vector<float> y(cols);
    for (int r = 0; r < rows; ++r) {
      add(dequantize_row(f_.gguf_id, row(r), y.data(), cols));
      add(y);
      arch_.find(f_.gguf_id)->dequantize_row(row(r), y.data(), cols);
      add(y);
    }
  }
  void multiply() {
    const runtime::format_ops& ops = *arch_.find(f_.gguf_id);
    const std::int64_t stride = f_.row_bytes(cols);
    serial_executor serial;
    std::vector<float> y(n * rows);
    std::vector<std::byte> workspace;
    const std::int32_t ids[n] = {};
    for (const std::int64_t columns : {1, n}) {
      const mul_mat_args a{weights_.data(), rows, cols,     stride, activations_.data(),
                           columns,         cols, y.data(), rows};
      const mul_mat_id_args routed{
          weights_.data(), 1,    rows, cols, stride, 0, activations_.data(), columns, cols, 0, ids, 1, 1,
          y.data(),        rows, rows};
      for (const activation policy : {activation::exact, activation::q8}) {
        workspace.resize(ops.mul_mat_workspace(a, policy));
        add(ops.mul_mat(a, policy, serial, workspace));
        add(y);
        workspace.resize(ops.mul_mat_id_workspace(routed, policy));
        add(ops.mul_mat_id(routed, policy, serial, workspace));
        add(y);
      }
      std::vector<std::byte> memory(ops.packed_bytes(rows, cols));
      packed_weights packed;
      const status s = ops.pack({weights_.data(), 1, rows, cols, stride, 0}, memory, serial, packed);
      add(s);
      if (s != status::ok) continue;
      workspace.resize(ops.packed_mul_mat_workspace(packed, a));
      add(ops.packed_mul_mat(packed, a, serial, workspace));
      add(y);
    }
  }

  runtime::dispatcher arch_;
  const format_info& f_;
  std::vector<float> x_, importance_, activations_;
  std::vector<std::byte> weights_;
};

struct host_settings : ::testing::TestWithParam<const char*> {};

TEST_P(host_settings, ChangeNoBit) {
  for (const std::string_view name : runtime::dispatcher::compiled()) {
    const auto arch = runtime::dispatcher::named(name);
    if (!arch) continue;
    for (const format_info& f : format_table) {
      for (const float magnitude : {0.02f, 1e-6f, 1e-39f}) {
        if (magnitude < 1e-30f && !f.is_float) continue;
        results r(*arch, f, magnitude);
        r.compute();
        const auto want = r.bytes;
        {
          const under host(GetParam());
          r.compute();
        }
        EXPECT_TRUE(r.bytes == want) << name << ' ' << f.name << ", weights of " << magnitude;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, host_settings, ::testing::Values("flush", "upward", "towards zero"),
                         [](const auto& p) {
                           return std::string(p.param).substr(0, 6) == "toward" ? "TowardsZero" : p.param;
                         });

TEST(FloatEnvironment, GivesTheHostItsSettingsBack) {
  const under host("flush");
  const auto before = settings();
  {
    const float_environment ours;
    EXPECT_EQ(settings() & flush, 0u);
  }
  EXPECT_EQ(settings(), before);
}

TEST(Halves, NeedNoSubnormalFloats) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const float want = detail::half_to_float(static_cast<std::uint16_t>(h));
    const under host("flush");
    ASSERT_EQ(detail::bits_from_float(detail::half_to_float(static_cast<std::uint16_t>(h))),
              detail::bits_from_float(want))
        << h;
  }
}

}  // namespace
}  // namespace quantal::test
