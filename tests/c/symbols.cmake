# The binary interface: libquantal exports what symbols.txt lists, with that version, and c.h declares just that. Whoever adds a
# function adds a line here and its type to abi_test.cpp; removing or renaming one breaks programs and needs a new SOVERSION
# (docs/versioning.md).
# Usage: cmake -DNM=nm -DLIBRARY=libquantal.so -DLIST=symbols.txt -DTYPES=abi_test.cpp -DHEADER=c.h -P symbols.cmake
cmake_minimum_required(VERSION 3.22)
file(STRINGS ${LIST} listed)
list(SORT listed)

execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY} OUTPUT_VARIABLE symbols RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${LIBRARY}")
endif()
string(REGEX MATCHALL "[0-9a-f]+ [A-Za-z] [^\n]+" exported "${symbols}")
list(TRANSFORM exported REPLACE "^[0-9a-f]+ [A-Za-z] " "")
list(FILTER exported EXCLUDE REGEX "^QUANTAL_[0-9.]+$")  # the names of versions themselves
list(SORT exported)

file(READ ${HEADER} text)
string(REGEX MATCHALL "QUANTAL_API [^;(]*[ *](quantal_[a-z0-9_]+)\\(" declared "${text}")
list(TRANSFORM declared REPLACE ".*[ *](quantal_[a-z0-9_]+)\\($" "\\1")
list(SORT declared)
set(names ${listed})
list(TRANSFORM names REPLACE "@.*" "")

file(READ ${TYPES} text)
string(REGEX MATCHALL "decltype\\((quantal_[a-z0-9_]+)\\)" typed "${text}")
list(TRANSFORM typed REPLACE "decltype\\((.*)\\)" "\\1")
list(FILTER typed EXCLUDE REGEX "^quantal_cuda_")  # of another library
list(SORT typed)

foreach(pair "exported;listed" "declared;names" "typed;names")
  list(GET pair 0 have)
  list(GET pair 1 want)
  if(NOT "${${have}}" STREQUAL "${${want}}")
    set(extra ${${have}})
    list(REMOVE_ITEM extra ${${want}})
    set(lacking ${${want}})
    list(REMOVE_ITEM lacking ${${have}})
    message(SEND_ERROR "${have} but not in symbols.txt: ${extra}; in symbols.txt but not ${have}: ${lacking}")
  endif()
endforeach()
list(LENGTH listed count)
message(STATUS "${count} functions")
