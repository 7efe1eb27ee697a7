# quantal::runtime: the kernels once per arch, each in its own object files with that arch's flags, behind a
# dispatcher. An arch's product kernels, one set per form of format, have units of their own; the formats' units hold only
# their decoders.
include(archs)

set(QUANTAL_KERNEL_OPTIMIZATION -O3 CACHE STRING "Optimization of the kernels, whatever the build type")
set(QUANTAL_PARTS 2)  # as runtime/parts.hpp
set(QUANTAL_QUANTIZER_PARTS 3)

# What block formats look like to the product kernels: weights per scale, offset, bias, kind of byte (kernel/slice.hpp).
# A form missing here is compiled in every unit that uses it; tests/runtime sees to that.
set(quantal_common_forms "16,false,true" "32,false,true" "128,false,true" "16,true,false" "32,true,false")
set(quantal_folded_forms "128,true,false")  # kernel/decode/folded.hpp
set(quantal_signed_forms "16,false,false" "32,false,false" "128,false,false")

# quantal_form_instances(ARCH OUT_A OUT_B): template names of the arch's form kernels, in two lists of like cost.
function(quantal_form_instances arch out_a out_b)
  set(lists_0 "")
  set(lists_1 "")
  set(turn 0)
  set(kind u7)
  if(arch IN_LIST quantal_u8_archs)
    set(kind u8)
  else()
    foreach(form ${quantal_signed_forms})
      list(APPEND lists_${turn} "q8_products<simd::${arch}, code_form{${form}, simd::code_kind::s8}>")
      math(EXPR turn "1 - ${turn}")
    endforeach()
  endif()
  foreach(form ${quantal_common_forms})
    list(APPEND lists_${turn} "q8_products<simd::${arch}, code_form{${form}, simd::code_kind::${kind}}>")
    math(EXPR turn "1 - ${turn}")
  endforeach()
  if(arch STREQUAL avx512_vnni)
    foreach(form ${quantal_folded_forms})
      list(APPEND lists_${turn} "q8_products<simd::${arch}, code_form{${form}, simd::code_kind::u8, true}>")
    endforeach()
  endif()
  set(${out_a} "${lists_0}" PARENT_SCOPE)
  set(${out_b} "${lists_1}" PARENT_SCOPE)
endfunction()

# quantal_instantiations(OUT PREFIX NAMES...): one explicit instantiation a line.
function(quantal_instantiations out prefix)
  set(text "")
  foreach(name ${ARGN})
    string(APPEND text "${prefix}template struct ${name};\n")
  endforeach()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

set(quantal_exact_math -fno-fast-math -fno-unsafe-math-optimizations -fno-finite-math-only)

add_library(quantal_runtime STATIC)
add_library(quantal::runtime ALIAS quantal_runtime)
set_target_properties(quantal_runtime PROPERTIES EXPORT_NAME runtime)
if(NOT PROJECT_IS_TOP_LEVEL AND NOT QUANTAL_INSTALL)
  set_target_properties(quantal_runtime PROPERTIES EXCLUDE_FROM_ALL ON)  # built where something links it
endif()
target_link_libraries(quantal_runtime PUBLIC quantal PRIVATE $<BUILD_INTERFACE:quantal_warnings>)
# Plug-ins link it too. Hidden symbols: two of them in one process do not meet.
if(NOT DEFINED CMAKE_POSITION_INDEPENDENT_CODE)
  set_target_properties(quantal_runtime PROPERTIES POSITION_INDEPENDENT_CODE ON)
endif()
set_target_properties(quantal_runtime PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
# The library's units meet by the names of tags, and nothing that a program compiles has them (simd/arch.hpp).
target_compile_definitions(quantal_runtime PRIVATE QUANTAL_UNIT=library QUANTAL_NO_CONTRACTION)
# Rounding and the order of sums are part of the results, whatever flags a parent project gives its own code.
target_compile_options(quantal_runtime PRIVATE ${quantal_exact_math})

set(quantal_units ${CMAKE_CURRENT_BINARY_DIR}/runtime)

# quantal_compile_for(ARCH UNITS...): sources of this folder's targets, compiled as the library's are for the arch.
function(quantal_compile_for arch)
  # No contraction: decoded weights are rounded as written; kernels ask for fused multiply-add where they mean it.
  # GCC 12 takes the deliberately undefined registers of its own intrinsics for mistakes.
  set_source_files_properties(${ARGN} PROPERTIES
    COMPILE_OPTIONS "${QUANTAL_KERNEL_OPTIMIZATION};-ffp-contract=off;${quantal_flags_${arch}};$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
endfunction()
# quantal_add_units(ARCH UNITS...): the library's sources for the arch.
function(quantal_add_units arch)
  target_sources(quantal_runtime PRIVATE ${ARGN})
  quantal_compile_for(${arch} ${ARGN})
endfunction()

set(quantal_quantizer_archs "")
foreach(QUANTAL_ARCH ${quantal_archs})
  set(units "")
  quantal_form_instances(${QUANTAL_ARCH} forms_a forms_b)
  list(APPEND forms_b "products<simd::${QUANTAL_ARCH}>" "packed_products<simd::${QUANTAL_ARCH}>")
  quantal_instantiations(QUANTAL_DECLARATIONS "extern " ${forms_a} ${forms_b})
  configure_file(${CMAKE_CURRENT_LIST_DIR}/kernels.hpp.in ${quantal_units}/${QUANTAL_ARCH}_kernels.hpp @ONLY)
  foreach(half a b)
    quantal_instantiations(QUANTAL_DEFINITIONS "" ${forms_${half}})
    configure_file(${CMAKE_CURRENT_LIST_DIR}/kernels.cpp.in ${quantal_units}/${QUANTAL_ARCH}_kernels_${half}.cpp @ONLY)
    list(APPEND units ${quantal_units}/${QUANTAL_ARCH}_kernels_${half}.cpp)
  endforeach()
  math(EXPR last_part "${QUANTAL_PARTS} - 1")
  foreach(QUANTAL_PART RANGE ${last_part})
    configure_file(${CMAKE_CURRENT_LIST_DIR}/variant.cpp.in ${quantal_units}/${QUANTAL_ARCH}_${QUANTAL_PART}.cpp @ONLY)
    list(APPEND units ${quantal_units}/${QUANTAL_ARCH}_${QUANTAL_PART}.cpp)
  endforeach()
  quantal_add_units(${QUANTAL_ARCH} ${units})
  list(APPEND quantal_quantizer_archs ${quantal_quantizers_${QUANTAL_ARCH}})
endforeach()

list(REMOVE_DUPLICATES quantal_quantizer_archs)
math(EXPR last_part "${QUANTAL_QUANTIZER_PARTS} - 1")
foreach(QUANTAL_ARCH ${quantal_quantizer_archs})
  foreach(QUANTAL_PART RANGE ${last_part})
    set(unit ${quantal_units}/${QUANTAL_ARCH}_quantizers_${QUANTAL_PART}.cpp)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/quantizers.cpp.in ${unit} @ONLY)
    quantal_add_units(${QUANTAL_ARCH} ${unit})
  endforeach()
endforeach()

set(QUANTAL_VARIANT_LIST "")
foreach(arch ${quantal_archs})
  string(APPEND QUANTAL_VARIANT_LIST "    variant_of<simd::${arch}>(),\n")
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp.in ${quantal_units}/dispatch.cpp @ONLY)
target_sources(quantal_runtime PRIVATE ${quantal_units}/dispatch.cpp)
