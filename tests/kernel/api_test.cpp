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
  EXPECT_EQ(p.run(p.id_args(), 1), status::small_workspace);
}

TEST(Dispatcher, FindsVariantsByName) {
  EXPECT_TRUE(runtime::dispatcher::named("scalar"));
  EXPECT_FALSE(runtime::dispatcher::named("avx1024"));
  EXPECT_EQ(runtime::dispatcher::best().find(9999), nullptr);
  EXPECT_EQ(runtime::dispatcher::compiled().back(), "scalar");
}

}  // namespace
}  // namespace quantal::test
