# What is installed, or what scripts/setup put into .deps; pinned FetchContent last.
find_package(Threads REQUIRED)

# quantal_host_headers(TARGET FOLDER): a header-only library of the build machine, for a cross build. Only its own
# folder is linked into the build tree; /usr/include itself would hide the headers of the target machine.
function(quantal_host_headers target folder)
  find_path(QUANTAL_HOST_${folder} ${folder} PATHS /usr/include /usr/local/include NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  if(QUANTAL_HOST_${folder})
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/host_include)
    file(CREATE_LINK ${QUANTAL_HOST_${folder}}/${folder} ${PROJECT_BINARY_DIR}/host_include/${folder} SYMBOLIC)
    add_library(${target} INTERFACE IMPORTED GLOBAL)
    target_include_directories(${target} INTERFACE ${PROJECT_BINARY_DIR}/host_include)
  endif()
endfunction()

set(quantal_deps ${CMAKE_CURRENT_LIST_DIR}/../.deps/usr/include)
if(NOT CMAKE_CROSSCOMPILING)
  include(quantalXsimd)
  quantal_find_xsimd(${quantal_deps})
elseif(EXISTS ${quantal_deps}/xsimd)
  add_library(xsimd INTERFACE IMPORTED GLOBAL)
  target_include_directories(xsimd INTERFACE ${quantal_deps})
else()
  quantal_host_headers(xsimd xsimd)
endif()
if(NOT TARGET xsimd)
  include(FetchContent)
  FetchContent_Declare(xsimd
    GIT_REPOSITORY https://github.com/xtensor-stack/xsimd.git GIT_TAG 13.2.0 GIT_SHALLOW TRUE)
  FetchContent_MakeAvailable(xsimd)
endif()
