# Installs the headers, quantal::runtime where it was built, and what find_package and pkg-config need.
include(CMakePackageConfigHelpers)

set(quantal_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quantal)
install(DIRECTORY include/quantal DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.hpp PATTERN *.h)
install(DIRECTORY cuda/include/quantal DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.hpp PATTERN *.cuh)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/quantal)

install(TARGETS quantal EXPORT quantalTargets)
foreach(arch ${quantal_known_archs} native)
  install(TARGETS quantal_${arch} EXPORT quantalTargets)
endforeach()
if(TARGET quantal_runtime)
  install(TARGETS quantal_runtime EXPORT quantalTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET quantal_c)
  install(TARGETS quantal_c quantal_c_static EXPORT quantalTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET quantal_c_cuda)
  install(TARGETS quantal_c_cuda EXPORT quantalTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
foreach(program imatrix quantize perplexity inspect relayout blocks convert validate)
  if(TARGET quantal-${program})
    install(TARGETS quantal-${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} OPTIONAL)
  endif()
endforeach()
if(TARGET quantal_cuda)  # an export of its own: only its users need a CUDA toolkit
  install(TARGETS quantal_cuda quantal_cuda_operations EXPORT quantalCudaTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT quantalCudaTargets NAMESPACE quantal:: DESTINATION ${quantal_package_dir})
endif()
install(EXPORT quantalTargets NAMESPACE quantal:: DESTINATION ${quantal_package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/quantalConfig.cmake.in quantalConfig.cmake
  INSTALL_DESTINATION ${quantal_package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(quantalConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quantalConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/quantalConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/quantalXsimd.cmake DESTINATION ${quantal_package_dir})

# The prefix is found from the place of the file, so that an installed tree can move.
file(RELATIVE_PATH quantal_pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" quantal_pc_prefix ${quantal_pc_prefix})
foreach(module quantal quantal-runtime quantal-c)
  string(REPLACE "-" "_" target ${module})
  if(TARGET ${target})
    configure_file(${CMAKE_CURRENT_LIST_DIR}/${module}.pc.in ${module}.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${module}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  endif()
endforeach()
