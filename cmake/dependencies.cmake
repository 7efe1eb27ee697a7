# find_package first, the headers that scripts/setup put into .deps second, pinned FetchContent last.
find_package(Threads REQUIRED)

if(NOT TARGET xsimd)
  find_package(xsimd 13 CONFIG QUIET)
endif()
if(NOT TARGET xsimd)
  find_path(QUANTAL_XSIMD_INCLUDE xsimd/xsimd.hpp
    PATHS ${CMAKE_CURRENT_LIST_DIR}/../.deps/usr/include NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  if(QUANTAL_XSIMD_INCLUDE)
    add_library(xsimd INTERFACE IMPORTED GLOBAL)
    target_include_directories(xsimd INTERFACE ${QUANTAL_XSIMD_INCLUDE})
  else()
    include(FetchContent)
    FetchContent_Declare(xsimd
      GIT_REPOSITORY https://github.com/xtensor-stack/xsimd.git GIT_TAG 13.2.0 GIT_SHALLOW TRUE)
    FetchContent_MakeAvailable(xsimd)
  endif()
endif()
