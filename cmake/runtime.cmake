# quantal::runtime: one object file per arch, chosen at run time (include/quantal/runtime/).
if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/cmake/variants.cmake)
  include(variants)
endif()
