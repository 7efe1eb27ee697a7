// The floating-point settings under which the library computes, whatever its host has set for a thread.
//
// Engines flush subnormals to zero (-ffast-math at link time does it for a whole program), choose another
// rounding mode or trap exceptions. Entry points and parallel tasks hold a float_environment while they run:
// results do not depend on such settings, and the host finds its own as it left them.
#pragma once

#include <cstdint>

#include "quantal/config.hpp"

namespace quantal {

/// Round to nearest even, subnormals kept, no traps, from construction to destruction.
class float_environment {
 public:
  QUANTAL_INLINE constexpr float_environment() noexcept {
    if (!__builtin_is_constant_evaluated()) enter();
  }
  float_environment(const float_environment&) = delete;
  float_environment& operator=(const float_environment&) = delete;
  QUANTAL_INLINE constexpr ~float_environment() {
    if (!__builtin_is_constant_evaluated()) leave();
  }

 private:
  // Accesses to memory stay on their side of the assembly, so no result is computed under the wrong settings.
#if defined(__x86_64__) && !defined(__CUDA_ARCH__)
  using word = std::uint32_t;
  static constexpr word wanted = 0x1f80, settings = 0xffc0;  // of MXCSR; below are the flags
  QUANTAL_INLINE static word read() noexcept {
    word w;
    asm volatile("stmxcsr %0" : "=m"(w) : : "memory");
    return w;
  }
  QUANTAL_INLINE static void write(word w) noexcept { asm volatile("ldmxcsr %0" : : "m"(w) : "memory"); }
#elif defined(__aarch64__) && !defined(__CUDA_ARCH__)
  using word = std::uint64_t;
  static constexpr word wanted = 0, settings = ~word{0};  // of FPCR
  QUANTAL_INLINE static word read() noexcept {
    word w;
    asm volatile("mrs %0, fpcr" : "=r"(w) : : "memory");
    return w;
  }
  QUANTAL_INLINE static void write(word w) noexcept { asm volatile("msr fpcr, %0" : : "r"(w) : "memory"); }
#else
  using word = std::uint32_t;
  static constexpr word wanted = 0, settings = 0;
  QUANTAL_HD static word read() noexcept { return 0; }
  QUANTAL_HD static void write(word) noexcept {}
#endif

  QUANTAL_INLINE void enter() noexcept {
    found_ = read();
    if ((found_ & settings) != wanted) write(wanted);
  }
  QUANTAL_INLINE void leave() noexcept {
    if ((found_ & settings) != wanted) write(found_);
  }

  word found_ = wanted;
};

}  // namespace quantal
