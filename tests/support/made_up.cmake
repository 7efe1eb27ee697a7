# quantal_made_up: the made-up formats on every arch of the runtime, for tests and benchmarks.
if(TARGET quantal_made_up)
  return()
endif()
set(units ${CMAKE_CURRENT_BINARY_DIR}/made_up)
set(QUANTAL_MADE_UP_DECLARATIONS "")
set(QUANTAL_MADE_UP_CALLS "")
set(sources "")
foreach(QUANTAL_ARCH ${quantal_archs})
  configure_file(${CMAKE_CURRENT_LIST_DIR}/made_up_unit.cpp.in ${units}/made_up_${QUANTAL_ARCH}.cpp @ONLY)
  list(APPEND sources ${units}/made_up_${QUANTAL_ARCH}.cpp)
  set_source_files_properties(${units}/made_up_${QUANTAL_ARCH}.cpp PROPERTIES
    COMPILE_OPTIONS "${QUANTAL_KERNEL_OPTIMIZATION};-ffp-contract=off;${quantal_flags_${QUANTAL_ARCH}};$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
  string(APPEND QUANTAL_MADE_UP_DECLARATIONS
    "const runtime::format_ops* made_up_ops_of_${QUANTAL_ARCH}(std::uint32_t gguf_id) noexcept;\n")
  string(APPEND QUANTAL_MADE_UP_CALLS "  if (arch == \"${QUANTAL_ARCH}\") return made_up_ops_of_${QUANTAL_ARCH}(gguf_id);\n")
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/made_up_ops.cpp.in ${units}/made_up_ops.cpp @ONLY)
add_library(quantal_made_up OBJECT ${sources} ${units}/made_up_ops.cpp)
target_link_libraries(quantal_made_up PUBLIC quantal::runtime PRIVATE quantal_warnings)
target_include_directories(quantal_made_up PRIVATE ${PROJECT_SOURCE_DIR}/tests ${quantal_units})
# They call the product kernels of the library, by the library's names.
target_compile_definitions(quantal_made_up PRIVATE QUANTAL_UNIT=library QUANTAL_NO_CONTRACTION)
