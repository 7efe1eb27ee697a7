# quantal_find_xsimd([HINT]): the target xsimd, at least version 13, where it can be had: from its headers (HINT is a folder
# of headers that goes before the system's), else from its package. Headers first, because package files of some
# distributions insist on xtl, which quantal does not need. Part of the installed package too.
macro(quantal_find_xsimd)
  if(NOT TARGET xsimd)
    find_path(quantal_XSIMD_INCLUDE xsimd/config/xsimd_config.hpp HINTS ${ARGV0})
    set(quantal_xsimd 0)
    if(quantal_XSIMD_INCLUDE)
      file(STRINGS ${quantal_XSIMD_INCLUDE}/xsimd/config/xsimd_config.hpp quantal_xsimd REGEX "VERSION_MAJOR [0-9]+$")
      string(REGEX MATCH "[0-9]+$" quantal_xsimd "${quantal_xsimd}")
    endif()
    if(quantal_xsimd GREATER_EQUAL 13)
      add_library(xsimd INTERFACE IMPORTED GLOBAL)
      set_target_properties(xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${quantal_XSIMD_INCLUDE})
    elseif(NOT quantal_XSIMD_INCLUDE)
      find_package(xsimd 13 CONFIG QUIET)
    endif()
  endif()
endmacro()
