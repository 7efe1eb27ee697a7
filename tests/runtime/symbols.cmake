# Every function that a variant's object defines must carry its arch in its (mangled) name: a function without it, an
# inline one of a header say, may be merged with another object's copy, and then runs this arch's instructions on
# machines that lack them. Functions of the scalar variant hold no such instructions but are held to the same rule.
# xsimd puts each instruction of NEON's baseline into a function of its own, whose address a table holds: those are
# the same on every arch.
# Usage: cmake -DNM=nm -DLIBRARY=libquantal_runtime.a "-DARCHS=avx2;scalar" -P symbols.cmake
set(tag_scalar "8emulated")
set(tag_avx2 "4fma3IN.*4avx2E")
set(tag_avx2_vnni "9avx2_vnni")
set(tag_avx512 "8avx512bw")
set(tag_avx512_vnni "10avx512vnni")
set(tag_neon64_i8mm "11neon64_i8mm")
set(tag_neon64 "6neon64")
set(tag_neon64_dotprod "14neon64_dotprod")
if(ARCHS MATCHES "neon64")
  foreach(arch ${ARCHS})
    string(APPEND tag_${arch} "|_ZN5xsimd6kernel(4wrap[0-9]+v|6detail).*(Uint|Int|Float)[0-9]+x[0-9]+_t")
  endforeach()
endif()

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
