# quantal::runtime: the kernels once per arch, each in its own object files with that arch's flags, behind a
# dispatcher. Splitting the formats over several units keeps them small and builds parallel.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(quantal_known_archs neon64 neon64_dotprod scalar)
else()
  set(quantal_known_archs avx512_vnni avx512 avx2 scalar)
endif()
set(QUANTAL_ARCHS "${quantal_known_archs}" CACHE STRING "Variants of quantal::runtime, best first; must end in scalar")

set(quantal_flags_scalar "")
set(quantal_flags_avx2 -mavx2 -mfma -mf16c)
set(quantal_flags_avx512 ${quantal_flags_avx2} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl
  -mprefer-vector-width=512)
set(quantal_flags_avx512_vnni ${quantal_flags_avx512} -mavx512ifma -mavx512vbmi -mavx512vnni)
set(quantal_flags_neon64 "")
set(quantal_flags_neon64_dotprod -march=armv8.2-a+dotprod)

set(QUANTAL_PARTS 6)  # as runtime/parts.hpp
math(EXPR quantal_last_part "${QUANTAL_PARTS} - 1")

add_library(quantal_runtime STATIC)
add_library(quantal::runtime ALIAS quantal_runtime)
set_target_properties(quantal_runtime PROPERTIES EXPORT_NAME runtime)
target_link_libraries(quantal_runtime PUBLIC quantal PRIVATE $<BUILD_INTERFACE:quantal_warnings>)

foreach(arch ${QUANTAL_ARCHS})
  foreach(part RANGE ${quantal_last_part})
    set(QUANTAL_ARCH ${arch})
    set(QUANTAL_PART ${part})
    set(unit ${CMAKE_CURRENT_BINARY_DIR}/runtime/${arch}_${part}.cpp)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/variant.cpp.in ${unit} @ONLY)
    target_sources(quantal_runtime PRIVATE ${unit})
    # No contraction: decoded weights are rounded as written; kernels ask for fused multiply-add where they mean it.
    # GCC 12 takes the deliberately undefined registers of its own intrinsics for mistakes.
    set_source_files_properties(${unit} PROPERTIES
      COMPILE_OPTIONS "-O3;-ffp-contract=off;${quantal_flags_${arch}};$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
  endforeach()
endforeach()

set(QUANTAL_VARIANT_LIST "")
foreach(arch ${QUANTAL_ARCHS})
  string(APPEND QUANTAL_VARIANT_LIST "    variant_of<simd::${arch}>(),\n")
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp.in ${CMAKE_CURRENT_BINARY_DIR}/runtime/dispatch.cpp @ONLY)
target_sources(quantal_runtime PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/runtime/dispatch.cpp)
