# Which archs of arch_table.cmake quantal::runtime is built for: quantal_archs, from QUANTAL_ARCHS.
set(QUANTAL_ARCHS all CACHE STRING
  "Variants of quantal::runtime: `all`, `native` (the best that this machine runs, and scalar), or a list, best first, that ends in one that every machine runs: scalar, on AArch64 also neon64")

# quantal_native_arch(OUT): the best arch of this machine. The runtime's own check is asked, as the dispatcher does.
function(quantal_native_arch out)
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "QUANTAL_ARCHS=native asks the machine that builds; a cross build needs a list")
  endif()
  set(checks "")
  foreach(arch ${quantal_known_archs})
    string(APPEND checks "  if (quantal::runtime::cpu_supports<quantal::simd::${arch}>()) return std::puts(\"${arch}\") < 0;\n")
  endforeach()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/native_arch/main.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT
    "#include <cstdio>\n\n#include \"quantal/runtime/cpu.hpp\"\n\nint main() {\n@checks@}\n" @ONLY)
  get_target_property(xsimd_include xsimd INTERFACE_INCLUDE_DIRECTORIES)
  unset(quantal_native_ran CACHE)  # a build folder may have come from another machine
  try_run(quantal_native_ran quantal_native_compiled ${CMAKE_CURRENT_BINARY_DIR}/native_arch ${source}
    CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${PROJECT_SOURCE_DIR}/include;${xsimd_include}"
    CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON
    COMPILE_OUTPUT_VARIABLE compiler_output RUN_OUTPUT_VARIABLE arch)
  if(NOT quantal_native_compiled OR NOT quantal_native_ran EQUAL 0)
    message(FATAL_ERROR "QUANTAL_ARCHS=native: the check of this machine failed\n${compiler_output}${arch}")
  endif()
  string(STRIP "${arch}" arch)
  set(${out} ${arch} PARENT_SCOPE)
endfunction()

if(QUANTAL_ARCHS STREQUAL "all")
  set(quantal_archs ${quantal_usual_archs})
elseif(QUANTAL_ARCHS STREQUAL "native")
  quantal_native_arch(quantal_archs)
  list(APPEND quantal_archs scalar)
  list(REMOVE_DUPLICATES quantal_archs)
  message(STATUS "This machine runs ${quantal_archs}")
else()
  set(quantal_archs ${QUANTAL_ARCHS})
endif()
foreach(arch ${quantal_archs})
  if(NOT arch IN_LIST quantal_known_archs)
    message(FATAL_ERROR "QUANTAL_ARCHS: ${arch} is none of ${quantal_known_archs}")
  endif()
endforeach()
list(GET quantal_archs -1 quantal_last_arch)
if(NOT quantal_last_arch IN_LIST quantal_baseline_archs)
  message(FATAL_ERROR "QUANTAL_ARCHS must end in one that every machine runs: ${quantal_baseline_archs}")
endif()
