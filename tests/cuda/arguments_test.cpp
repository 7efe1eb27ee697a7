// What moe_ffn() and the sizes of workspaces answer to arguments that are wrong: nothing is launched, no device is
// needed.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/device_formats.hpp"
#include "quantal/formats.hpp"

namespace quantal::cuda {
namespace {

constexpr std::int64_t experts = 4, width = 512, inner = 256, tokens = 3, used = 2;

/// Memory for all arguments; it is never read.
struct moe_memory {
  const operations& ops = *all_operations().front();
  std::int64_t gate_row, down_row;
  std::vector<std::byte> gate, up, down, workspace;
  std::vector<float> x, shares, out, bias;
  std::vector<std::int32_t> ids;
  device_info device;

  moe_memory() {
    device.multiprocessors = 132, device.major = 9;
    gate_row = (find_format(ops.gguf_id)->row_bytes(width) + 15) / 16 * 16;
    down_row = (find_format(ops.gguf_id)->row_bytes(inner) + 15) / 16 * 16;
    gate.resize(bytes(experts * 2 * inner * gate_row)), up.resize(bytes(experts * 2 * inner * gate_row));
    down.resize(bytes(experts * width * down_row));
    x.resize(bytes(tokens * width)), shares.resize(bytes(tokens * used)), out.resize(bytes(tokens * width));
    bias.resize(bytes(experts * width)), ids.resize(bytes(tokens * used));
    workspace.resize(size(arguments()));
  }
  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(n); }

  moe_ffn_args arguments() {
    moe_ffn_args a{};
    a.gate = gate.data(), a.up = up.data(), a.down = down.data();
    a.experts = experts, a.width = width, a.inner = inner;
    a.gate_row_stride = gate_row, a.gate_expert_stride = 2 * inner * gate_row;
    a.down_row_stride = down_row, a.down_expert_stride = width * down_row;
    a.activations = x.data(), a.tokens = tokens, a.activation_stride = width;
    a.ids = ids.data(), a.used = used, a.ids_stride = used;
    a.shares = shares.data(), a.shares_stride = used;
    a.out = out.data(), a.out_stride = width;
    return a;
  }
  std::size_t size(const moe_ffn_args& a) const {
    return moe_ffn_workspace(ops.moe_hidden, ops.moe_output, a, precision::q8, device);
  }
  status call(const moe_ffn_args& a, void* memory, std::size_t most) const {
    return moe_ffn(ops.moe_hidden, ops.moe_output, a, precision::q8, device, memory, most, nullptr);
  }
  /// Without any workspace: what is found before its size.
  status call(const moe_ffn_args& a) const { return call(a, nullptr, 0); }
  /// With all of it.
  status whole(const moe_ffn_args& a) { return call(a, workspace.data(), workspace.size()); }
};

TEST(MoeArguments, AreCheckedBeforeTheWorkspace) {
  moe_memory m;
  const auto with = [&](auto change) {
    moe_ffn_args a = m.arguments();
    change(a);
    return m.call(a);
  };
  EXPECT_EQ(with([](auto&) {}), status::small_workspace);
  EXPECT_EQ(with([](auto& a) { a.tokens = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.used = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.experts = 9000; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.width = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.gate = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.down = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.out = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.gate_row_stride = 0; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.down_row_stride = -16; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.shares_stride = 1; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_stride = std::numeric_limits<std::int64_t>::max() / 2; }),
            status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.down += 8; }), status::bad_alignment);
}

TEST(MoeArguments, MergedGatesNeedRoomForBoth) {
  moe_memory m;
  moe_ffn_args a = m.arguments();
  a.up = nullptr;
  EXPECT_EQ(m.call(a), status::small_workspace);
  a.gate_expert_stride = inner * m.gate_row;
  EXPECT_EQ(m.call(a), status::bad_stride);
}

TEST(MoeArguments, WhatIsWrittenLiesApart) {
  moe_memory m;
  const auto with = [&](auto change) {
    moe_ffn_args a = m.arguments();
    change(a);
    return m.whole(a);
  };
  EXPECT_EQ(with([&](auto& a) { a.out = reinterpret_cast<float*>(m.gate.data()); }), status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.out = reinterpret_cast<float*>(m.up.data()); }), status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.out = reinterpret_cast<float*>(m.down.data()); }), status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.shares = m.out.data(); }), status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.ids = reinterpret_cast<const std::int32_t*>(m.out.data()); }),
            status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.activations = m.out.data(); }), status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.down_bias = m.out.data(); }), status::overlap);
  // Behind the first token's part of the intermediate results.
  EXPECT_EQ(with([&](auto& a) { a.out = reinterpret_cast<float*>(m.workspace.data()) + tokens * inner; }),
            status::overlap);
  EXPECT_EQ(with([&](auto& a) { a.gate_bias = reinterpret_cast<const float*>(m.workspace.data()); }),
            status::overlap);
}

TEST(WorkspaceSizes, OfStridesAndColumnsThatAreWrong) {
  const moe_memory m;
  mul_mat_args a{};
  a.rows = 64, a.cols = 512, a.n = 1, a.out_stride = 64, a.activation_stride = 512;
  EXPECT_NO_FATAL_FAILURE(m.ops.mul_mat_workspace(a, precision::q8, m.device));
  a.weight_row_stride = m.gate_row, a.cols = 0;
  EXPECT_NO_FATAL_FAILURE(m.ops.mul_mat_workspace(a, precision::q8, m.device));
}

}  // namespace
}  // namespace quantal::cuda
