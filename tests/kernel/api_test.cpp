#include "kernel_case.hpp"

namespace quantal::test {
namespace {

struct product {
  std::vector<std::byte> weights = std::vector<std::byte>(4 * 144);
  std::vector<float> x = std::vector<float>(2 * 256), out = std::vector<float>(2 * 4);
  std::vector<std::int32_t> ids = {0, 1};
  serial_executor serial;
  const runtime::format_ops& ops = *runtime::dispatcher::best().find(q4_K::gguf_id);

  mul_mat_args args() { return {weights.data(), 4, 256, 144, x.data(), 2, 256, out.data(), 4}; }
  mul_mat_id_args id_args() {
    return {weights.data(), 2, 2, 256, 144, 288, x.data(), 2, 256, 0, ids.data(), 1, 1, out.data(), 2, 2};
  }
  status run(const mul_mat_args& a, std::size_t missing = 0) {
    std::vector<std::byte> w(ops.mul_mat_workspace(a, activation::q8));
    return ops.mul_mat(a, activation::q8, serial, std::span(w).first(w.size() - std::min(missing, w.size())));
  }
  status run(const mul_mat_id_args& a, std::size_t missing = 0) {
    std::vector<std::byte> w(ops.mul_mat_id_workspace(a, activation::exact));
    return ops.mul_mat_id(a, activation::exact, serial,
                          std::span(w).first(w.size() - std::min(missing, w.size())));
  }
};

TEST(MulMatApi, RefusesBadArguments) {
  product p;
  EXPECT_EQ(p.run(p.args()), status::ok);
  const auto with = [&](auto change) {
    auto a = p.args();
    change(a);
    return p.run(a);
  };
  EXPECT_EQ(with([](auto& a) { a.cols = 255; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.cols = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.rows = -1; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.n = -1; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.n = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.rows = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.weight_row_stride = 143; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.activation_stride = 255; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_stride = 3; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.weights = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.activations = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.out = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.activation_stride = -256; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_stride = std::int64_t{1} << 61; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.weight_row_stride = std::int64_t{1} << 62; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.n = 1, a.activation_stride = -1, a.out_stride = 0; }), status::ok);
  EXPECT_EQ(p.run(p.args(), 1), status::small_workspace);
}

TEST(MulMatIdApi, RefusesBadArguments) {
  product p;
  EXPECT_EQ(p.run(p.id_args()), status::ok);
  p.ids[1] = 2;
  EXPECT_EQ(p.run(p.id_args()), status::bad_expert_id);
  p.ids[1] = -1;
  EXPECT_EQ(p.run(p.id_args()), status::bad_expert_id);
  p.ids[1] = 1;
  const auto with = [&](auto change) {
    auto a = p.id_args();
    change(a);
    return p.run(a);
  };
  EXPECT_EQ(with([](auto& a) { a.experts = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.tokens = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.ids = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.expert_stride = 287; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.slot_stride = 3; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_token_stride = 0; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_token_stride = 1; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.token_stride = -256; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.ids_stride = 0; }), status::bad_stride);
  EXPECT_EQ(p.run(p.id_args(), 1), status::small_workspace);
}

TEST(MulMatIdApi, OneOfAKindTakesAnyStride) {
  product p;
  auto a = p.id_args();
  a.tokens = 1, a.token_stride = a.ids_stride = a.out_token_stride = -5;
  EXPECT_EQ(p.run(a), status::ok);
  a = p.id_args();
  p.ids[1] = 0;
  a.experts = 1, a.expert_stride = 0;
  EXPECT_EQ(p.run(a), status::ok);
}

TEST(MulMatIdApi, ResultsOfTokensAndSlotsLieApart) {
  product p;
  p.out.resize(8);
  auto a = p.id_args();
  a.used = 2, a.ids_stride = 2, a.rows = 2;
  p.ids = {0, 1, 1, 0};
  a.ids = p.ids.data(), a.out = p.out.data();
  const auto with = [&](std::int64_t token, std::int64_t slot) {
    a.out_token_stride = token, a.out_slot_stride = slot;
    return p.run(a);
  };
  EXPECT_EQ(with(4, 2), status::ok);
  EXPECT_EQ(with(2, 4), status::ok);  // slots outside
  EXPECT_EQ(with(2, 2), status::bad_stride);
  EXPECT_EQ(with(3, 2), status::bad_stride);
}

TEST(ProductsApi, SizesDoNotWrap) {
  product p;
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::vector<std::byte> little(64);
  for (const int bits : {31, 40, 56, 58, 60, 62}) {
    const std::int64_t n = std::int64_t{1} << bits;
    auto a = p.args();
    a.n = n;
    auto b = p.id_args();
    b.tokens = n;
    auto c = p.id_args();
    c.tokens = c.used = std::int64_t{1} << (bits / 2);
    for (const activation policy : {activation::exact, activation::q8}) {
      EXPECT_EQ(p.ops.mul_mat_workspace(a, policy), none) << bits;
      EXPECT_EQ(p.ops.mul_mat(a, policy, p.serial, little), status::bad_shape) << bits;
      EXPECT_EQ(p.ops.mul_mat_id_workspace(b, policy), none) << bits;
      EXPECT_EQ(p.ops.mul_mat_id(b, policy, p.serial, little), status::bad_shape) << bits;
      EXPECT_NE(p.ops.mul_mat_id(c, policy, p.serial, little), status::ok) << bits;
    }
    EXPECT_EQ(p.ops.packed_bytes(n, 256, 2), none) << bits;
    packed_weights packed;
    EXPECT_EQ(p.ops.pack({p.weights.data(), 2, n, 256, 144, n}, little, p.serial, packed), status::bad_shape)
        << bits;
  }
}

TEST(ProductsApi, OverlapIsRefused) {
  product p;
  std::vector<float> shared(2 * 256 + 8);
  auto a = p.args();
  a.activations = shared.data();
  for (const std::ptrdiff_t at : {0, 1, 255, 256, 508, 511}) {
    a.out = shared.data() + at;
    EXPECT_EQ(p.run(a), status::overlap) << at;
  }
  a.out = shared.data() + 512;
  EXPECT_EQ(p.run(a), status::ok);
  // Results in the gaps between the activations are apart from them.
  std::vector<float> woven(2 * 260);
  a.activations = woven.data(), a.activation_stride = a.out_stride = 260;
  a.out = woven.data() + 256;
  EXPECT_EQ(p.run(a), status::ok);
  a.out = woven.data() + 255;
  EXPECT_EQ(p.run(a), status::overlap);
  a = p.args();
  a.out = reinterpret_cast<float*>(p.weights.data()) + 16;
  EXPECT_EQ(p.run(a), status::overlap);

  auto b = p.id_args();
  b.out = const_cast<float*>(b.activations) + 3;
  EXPECT_EQ(p.run(b), status::overlap);

  a = p.args();
  std::vector<float> memory(4096);
  a.activations = memory.data();
  const std::span<std::byte> workspace = std::as_writable_bytes(std::span(memory));
  EXPECT_EQ(p.ops.mul_mat(a, activation::q8, p.serial, workspace.subspan(256 * 4)), status::overlap);
  EXPECT_EQ(p.ops.mul_mat(a, activation::q8, p.serial, workspace.subspan(2 * 256 * 4)), status::ok);

  std::vector<float> row(256);
  EXPECT_EQ(runtime::quantize_row(q4_K::gguf_id, row.data(), nullptr,
                                  reinterpret_cast<std::byte*>(row.data()), 256),
            status::overlap);
}

TEST(Dispatcher, FindsVariantsByName) {
  EXPECT_FALSE(runtime::dispatcher::named("avx1024"));
  EXPECT_EQ(runtime::dispatcher::best().find(9999), nullptr);
  const auto last = runtime::dispatcher::compiled().back();
  EXPECT_TRUE(runtime::dispatcher::named(last)) << "every machine runs " << last;
#if defined(__aarch64__)
  if (last == "neon64") return;  // the baseline there; a list of variants may end in it
#endif
  EXPECT_EQ(last, "scalar");
}

}  // namespace
}  // namespace quantal::test
