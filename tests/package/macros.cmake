# Fails if the single header defines a macro that is not QUANTAL_*.
file(STRINGS ${HEADER} defines REGEX "^[ \t]*#[ \t]*define[ \t]")
foreach(line ${defines})
  if(NOT line MATCHES "define[ \t]+QUANTAL_")
    message(SEND_ERROR "foreign macro: ${line}")
  endif()
endforeach()
