# An overlay port: the sources are the checkout that holds it.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS features FEATURES runtime QUANTAL_RUNTIME)
if(NOT "runtime" IN_LIST FEATURES)
  set(VCPKG_BUILD_TYPE release)  # headers only
endif()
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}" OPTIONS ${features} -DQUANTAL_INSTALL=ON
  -DQUANTAL_TESTS=OFF -DQUANTAL_BENCH=OFF -DQUANTAL_EXAMPLES=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/quantal)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
