// The PTX instructions that the kernels are made of, one function each.
#pragma once

#include <cstdint>

namespace quantal::cuda::ptx {

/// Whether the code being compiled may use what only sm_90a has.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool hopper = false;
#else
inline constexpr bool hopper = true;
#endif

/// Ends a kernel that was not compiled for the device it runs on: the stream reports an error.
__device__ inline void trap() noexcept { asm volatile("trap;"); }

/// threadIdx.x, read once: the compiler likes to read the slow special register again and again.
__device__ inline int thread_index() noexcept {
  int i;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(i));
  return i;
}

__device__ inline std::uint32_t shared_address(const void* p) noexcept {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Asynchronous copies of 16 bytes, global to shared memory; `valid` (0..16) bytes are read, the rest become
// zero.
__device__ inline void copy16(std::uint32_t shared, const void* global) noexcept {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
__device__ inline void copy16(std::uint32_t shared, const void* global, int valid) noexcept {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid)
               : "memory");
}
__device__ inline void commit_copies() noexcept { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` committed groups of this thread are under way.
template <int pending>
__device__ inline void wait_copies() noexcept {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

__device__ inline void store_byte(std::uint32_t shared, std::uint32_t value) noexcept {
  asm volatile("st.shared.u8 [%0], %1;" ::"r"(shared), "r"(value) : "memory");
}

/// sum + the dot product of four unsigned bytes and four signed ones.
__device__ inline std::int32_t dot_bytes(std::uint32_t u, std::uint32_t s, std::int32_t sum) noexcept {
  std::int32_t d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(u), "r"(s), "r"(sum));
  return d;
}

// Barriers in shared memory (mbarrier).
__device__ inline void init_barrier(std::uint32_t barrier, int arrivals) noexcept {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void fence_barrier_init() noexcept {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint32_t barrier) noexcept {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives on the barrier at the same place in the block of rank `rank` of the cluster.
__device__ inline void arrive_remote(std::uint32_t barrier, int rank) noexcept {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
__device__ inline void arrive_expecting(std::uint32_t barrier, int bytes) noexcept {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void wait_barrier(std::uint32_t barrier, int parity) noexcept {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// Contiguous bulk copy; size and both addresses are multiples of 16. Completes on the barrier.
__device__ inline void bulk_copy(std::uint32_t shared, const void* global, int bytes,
                                 std::uint32_t barrier) noexcept {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}

/// Contiguous bulk copy from this block's shared memory to the same place in that of rank `rank` of the
/// cluster; completes on the barrier there.
__device__ inline void push_remote(std::uint32_t shared, int bytes, std::uint32_t barrier,
                                   int rank) noexcept {
  asm volatile(
      "{\n"
      ".reg .b32 to, done;\n"
      "mapa.shared::cluster.u32 to, %0, %3;\n"
      "mapa.shared::cluster.u32 done, %2, %3;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [to], [%0], %1, [done];\n"
      "}\n" ::"r"(shared),
      "r"(bytes), "r"(barrier), "r"(rank)
      : "memory");
}
/// This thread's writes to shared memory, for what reads it asynchronously (wgmma, bulk copies) after a barrier.
__device__ inline void fence_async_shared() noexcept {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Barrier `id` (1..15) among `threads` threads of the block.
template <int id, int threads>
__device__ inline void sync_threads() noexcept {
  asm volatile("bar.sync %0, %1;" ::"n"(id), "n"(threads) : "memory");
}

/// The same for numbers known at run time, and without waiting.
__device__ inline void sync_threads(int id, int threads) noexcept {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int id, int threads) noexcept {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// A bulk copy to all blocks of the cluster whose bits are set in `blocks`, each with its barrier at this
/// place.
__device__ inline void bulk_copy(std::uint32_t shared, const void* global, int bytes, std::uint32_t barrier,
                                 std::uint16_t blocks) noexcept {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}

// Warpgroup products.
__device__ inline void wgmma_fence() noexcept { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() noexcept {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ inline void wgmma_wait() noexcept {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
template <int registers>
__device__ inline void more_registers() noexcept {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void fewer_registers() noexcept {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

// Thread block clusters.
__device__ inline int cluster_rank() noexcept {
  std::uint32_t rank = 0;
  if constexpr (hopper) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
__device__ inline int cluster_blocks() noexcept {
  std::uint32_t blocks = 1;
  if constexpr (hopper) asm volatile("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return static_cast<int>(blocks);
}
/// The word at this place in the shared memory of the block of rank `rank` of the cluster.
__device__ inline std::int32_t load_remote(std::uint32_t shared, int rank) noexcept {
  std::int32_t v;
  if constexpr (hopper)
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %1, %2;\n"
        "ld.shared::cluster.s32 %0, [remote];\n"
        "}\n"
        : "=r"(v)
        : "r"(shared), "r"(rank)
        : "memory");
  else
    asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(shared) : "memory");
  return v;
}
__device__ inline void cluster_arrive() noexcept {
  if constexpr (hopper) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() noexcept {
  if constexpr (hopper)
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  else
    __syncthreads();
}
// Programmatic dependent launch: a kernel may start before the one in front of it has ended.
__device__ inline void launch_dependents() noexcept {
  if constexpr (hopper) asm volatile("griddepcontrol.launch_dependents;");
}
__device__ inline void wait_for_prerequisites() noexcept {
  if constexpr (hopper) asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// Four 8 x 8 matrices of 16-bit values, `shared` being the address of row `lane`: a register of each per
/// lane.
__device__ inline void load_matrices(std::uint32_t* r, std::uint32_t shared) noexcept {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}
/// d (16 x 8) += a (16 x 16) * b (16 x 8).
__device__ inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) noexcept {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Pairs of bf16; the first of a pair is the low half.
__device__ inline std::uint32_t pack_bf16(float first, float second) noexcept {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(second), "f"(first));
  return r;
}
__device__ inline std::uint32_t fma_bf16(std::uint32_t a, std::uint32_t b, std::uint32_t c) noexcept {
  std::uint32_t r;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

}  // namespace quantal::cuda::ptx
