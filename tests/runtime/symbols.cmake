# Every function that a variant's object defines must carry its arch in its (mangled) name, as the library's units name it
# (quantal::simd::library::avx2): a function without it, an
# inline one of a header say, may be merged with another object's copy, and then runs this arch's instructions on
# machines that lack them. Functions of the scalar variant hold no such instructions but are held to the same rule.
# xsimd puts each instruction of NEON's baseline into a function of its own, whose address a table holds: those are
# the same on every arch.
# Usage: cmake -DNM=nm -DLIBRARY=libquantal_runtime.a "-DARCHS=avx2;scalar" -P symbols.cmake
foreach(arch ${ARCHS})
  string(LENGTH ${arch} length)
  set(tag_${arch} "7library.*${length}${arch}E")
  if(ARCHS MATCHES "neon64")
    string(APPEND tag_${arch} "|_ZN5xsimd6kernel(4wrap[0-9]+v|6detail).*(Uint|Int|Float)[0-9]+x[0-9]+_t")
  endif()
endforeach()

execute_process(COMMAND ${NM} -A --defined-only ${LIBRARY} OUTPUT_VARIABLE symbols RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${LIBRARY}")
endif()

foreach(arch ${ARCHS})
  # libquantal_runtime.a:avx2_0.cpp.o:0000000000000000 W _ZN...; W and T are functions that other objects can see.
  string(REGEX MATCHALL "[:/]${arch}(_kernels_[a-z]|_quantizers_[0-9]+|_[0-9]+)\\.cpp\\.(o|obj):[0-9a-f]* [WT] [^\n]*" functions "${symbols}")
  list(LENGTH functions count)
  if(count EQUAL 0)
    message(FATAL_ERROR "no functions of ${arch} in ${LIBRARY}")
  endif()
  set(strays "")
  foreach(function ${functions})
    if(NOT function MATCHES "${tag_${arch}}")
      string(APPEND strays "\n  ${function}")
    endif()
  endforeach()
  if(strays)
    message(SEND_ERROR "functions of ${arch} that do not name it:${strays}")
  endif()
  message(STATUS "${arch}: ${count} functions")
endforeach()
