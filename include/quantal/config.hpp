// Version and the few attributes every header needs.
#pragma once

#define QUANTAL_VERSION_MAJOR 0
#define QUANTAL_VERSION_MINOR 1
#define QUANTAL_VERSION_PATCH 0

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "quantal reads and writes little-endian files in place and needs a little-endian machine"
#endif

// Format decoders run on host and device and must vanish into the kernel that calls them: a decoder that
// stays out of line could be emitted with one arch's instructions and linked into another arch's variant.
#if defined(__CUDACC__)
#define QUANTAL_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define QUANTAL_HD __forceinline
#else
#define QUANTAL_HD inline __attribute__((always_inline))
#endif

#if defined(_MSC_VER)
#define QUANTAL_INLINE __forceinline
#define QUANTAL_LAMBDA
#else
#define QUANTAL_INLINE inline __attribute__((always_inline))
#define QUANTAL_LAMBDA __attribute__((always_inline))
#endif

// A constexpr table that decoders index at run time on either side. In device code a namespace-scope constexpr array
// has no address, so under nvcc the table is a __device__ constexpr variable; it stays usable in host code and in
// constant expressions there.
#if defined(__CUDA_ARCH__)
#define QUANTAL_TABLE static constexpr __device__ const
#else
#define QUANTAL_TABLE inline constexpr
#endif
