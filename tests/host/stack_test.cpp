// The stack that calls take: what the README promises of optimized builds.
#include <gtest/gtest.h>
#include <pthread.h>

#include <cstring>
#include <functional>
#include <memory>

#include "quantal/runtime/ops.hpp"

namespace quantal::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

/// Bytes of a painted stack that a thread changed while it called f.
std::size_t stack_of(const std::function<void()>& f) {
  constexpr std::size_t size = 2 << 20, page = 65536;
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[size + page]);
  auto* const stack = reinterpret_cast<unsigned char*>(
      (reinterpret_cast<std::uintptr_t>(memory.get()) + page - 1) / page * page);
  std::memset(stack, 0xa5, size);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, size);
  pthread_t thread;
  const auto start = [](void* p) -> void* {
    (*static_cast<const std::function<void()>*>(p))();
    return nullptr;
  };
  EXPECT_EQ(pthread_create(&thread, &attributes, start, const_cast<std::function<void()>*>(&f)), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  std::size_t untouched = 0;
  while (untouched < size && stack[untouched] == 0xa5) ++untouched;
  return size - untouched;
}

/// Every function of one format on one arch.
void call_all(const runtime::dispatcher& arch, const format_info& f) {
  constexpr int rows = 65, cols = 512, most = 65;
  const runtime::format_ops& ops = *arch.find(f.gguf_id);
  const std::int64_t stride = f.row_bytes(cols);
  std::vector<std::byte> weights(static_cast<std::size_t>(rows * stride)), workspace,
      memory(ops.packed_bytes(rows, cols));
  std::vector<float> x(most * cols, 0.5f), out(most * rows);
  std::vector<std::int32_t> ids(most);
  serial_executor serial;
  (void)arch.find_quantizer(f.gguf_id)(x.data(), nullptr, weights.data(), cols);
  ops.dequantize_row(weights.data(), out.data(), cols);
  packed_weights packed;
  const status s = ops.pack({weights.data(), 1, rows, cols, stride, 0}, memory, serial, packed);
  for (const std::int64_t n : {1, 2, 3, 5, 8, 9, 17, 64, 65}) {
    const mul_mat_args a{weights.data(), rows, cols, stride, x.data(), n, cols, out.data(), rows};
    const mul_mat_id_args routed{weights.data(), 1, rows,       cols, stride, 0,          x.data(), n,
                                 cols,           0, ids.data(), 1,    1,      out.data(), rows,     rows};
    for (const activation policy : {activation::exact, activation::q8}) {
      workspace.resize(std::max(ops.mul_mat_workspace(a, policy), ops.mul_mat_id_workspace(routed, policy)));
      (void)ops.mul_mat(a, policy, serial, workspace);
      (void)ops.mul_mat_id(routed, policy, serial, workspace);
    }
    if (s != status::ok) continue;
    workspace.resize(
        std::max(ops.packed_mul_mat_workspace(packed, a), ops.packed_mul_mat_id_workspace(packed, routed)));
    (void)ops.packed_mul_mat(packed, a, serial, workspace);
    (void)ops.packed_mul_mat_id(packed, routed, serial, workspace);
  }
}

TEST(Stack, StaysWithinThePromise) {
  if (sanitized) GTEST_SKIP() << "sanitizers have their own frames";
  const std::size_t empty = stack_of([] {});
  std::size_t most = 0;
  for (const std::string_view name : runtime::dispatcher::compiled()) {
    const auto arch = runtime::dispatcher::named(name);
    if (!arch) continue;
    for (const format_info& f : format_table) {
      const std::size_t used = stack_of([&] { call_all(*arch, f); }) - empty;
      EXPECT_LE(used, 128u * 1024) << name << ' ' << f.name;
      most = std::max(most, used);
    }
  }
  RecordProperty("most_bytes", std::to_string(most));
}

}  // namespace
}  // namespace quantal::test
