# quantal::runtime: the kernels once per arch, each in its own object files with that arch's flags, behind a
# dispatcher. Splitting by format family keeps units small and builds parallel.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(quantal_known_archs neon64 neon64_dotprod scalar)
else()
  set(quantal_known_archs avx512_vnni avx512 avx2 scalar)
endif()
set(QUANTAL_ARCHS "${quantal_known_archs}" CACHE STRING "Variants of quantal::runtime, best first; must end in scalar")

set(quantal_flags_scalar "")
set(quantal_flags_avx2 -mavx2 -mfma -mf16c)
set(quantal_flags_avx512 ${quantal_flags_avx2} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl)
set(quantal_flags_avx512_vnni ${quantal_flags_avx512} -mavx512ifma -mavx512vbmi -mavx512vnni)
set(quantal_flags_neon64 "")
set(quantal_flags_neon64_dotprod -march=armv8.2-a+dotprod)

set(quantal_family_float f32 f16 bf16)
set(quantal_family_legacy q4_0 q4_1 q5_0 q5_1 q6_0 q8_0)
set(quantal_family_k q2_K q3_K q4_K q5_K q6_K)
set(quantal_family_iq iq4_nl iq4_xs iq2_xxs)
set(quantal_families float legacy k iq)

add_library(quantal_runtime STATIC)
add_library(quantal::runtime ALIAS quantal_runtime)
set_target_properties(quantal_runtime PROPERTIES EXPORT_NAME runtime)
target_link_libraries(quantal_runtime PUBLIC quantal PRIVATE $<BUILD_INTERFACE:quantal_warnings>)

foreach(arch ${QUANTAL_ARCHS})
  foreach(family ${quantal_families})
    set(QUANTAL_ARCH ${arch})
    set(QUANTAL_OPS "")
    foreach(format ${quantal_family_${family}})
      string(APPEND QUANTAL_OPS
        "template <>\nconstinit const format_ops ops_of<quantal::${format}, arch>::value = make_ops<quantal::${format}, arch>;\n")
    endforeach()
    set(unit ${CMAKE_CURRENT_BINARY_DIR}/runtime/${arch}_${family}.cpp)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/variant.cpp.in ${unit} @ONLY)
    target_sources(quantal_runtime PRIVATE ${unit})
    # GCC 12 takes the deliberately undefined registers of its own intrinsics for mistakes.
    set_source_files_properties(${unit} PROPERTIES
      COMPILE_OPTIONS "-O3;${quantal_flags_${arch}};$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")
  endforeach()
endforeach()

set(QUANTAL_VARIANT_LIST "")
foreach(arch ${QUANTAL_ARCHS})
  string(APPEND QUANTAL_VARIANT_LIST "    variant_of<simd::${arch}>(),\n")
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp.in ${CMAKE_CURRENT_BINARY_DIR}/runtime/dispatch.cpp @ONLY)
target_sources(quantal_runtime PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/runtime/dispatch.cpp)
