# Finds ONNX Runtime: the target eptx_onnxruntime, and ONNXRUNTIME_INCLUDE_DIR for ops/.
#
# A release package that CMake can find is used as it is. Else the variables (or environment variables)
# ONNXRUNTIME_INCLUDE_DIR and ONNXRUNTIME_LIB_DIR say where the headers and libonnxruntime.so* are; the pip package
# has such a library, under a versioned name.
foreach(name ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIB_DIR)
  set(${name} "$ENV{${name}}" CACHE PATH "Where ONNX Runtime is, when it is not found as a CMake package")
endforeach()
add_library(eptx_onnxruntime INTERFACE)

if(NOT ONNXRUNTIME_INCLUDE_DIR)
  find_library(EPTX_ONNXRUNTIME_LIBRARY onnxruntime)
  mark_as_advanced(EPTX_ONNXRUNTIME_LIBRARY)
  if(EPTX_ONNXRUNTIME_LIBRARY) # a package without its library would end this with an error, for all that QUIET says
    find_package(onnxruntime CONFIG QUIET)
  endif()
  if(TARGET onnxruntime::onnxruntime)
    get_target_property(directories onnxruntime::onnxruntime INTERFACE_INCLUDE_DIRECTORIES)
    find_path(found onnxruntime_c_api.h PATHS ${directories} PATH_SUFFIXES onnxruntime NO_DEFAULT_PATH NO_CACHE)
    set(ONNXRUNTIME_INCLUDE_DIR ${found})
    target_link_libraries(eptx_onnxruntime INTERFACE onnxruntime::onnxruntime)
  endif()
elseif(EPTX_BUILD_RUNTIME)
  file(GLOB libraries ${ONNXRUNTIME_LIB_DIR}/libonnxruntime.so ${ONNXRUNTIME_LIB_DIR}/libonnxruntime.so.[0-9]*)
  foreach(candidate IN LISTS libraries)
    if(EXISTS ${candidate} AND NOT library) # not a link to nothing
      set(library ${candidate})
    endif()
  endforeach()
  if(NOT library)
    message(FATAL_ERROR "No libonnxruntime.so* in ONNXRUNTIME_LIB_DIR (${ONNXRUNTIME_LIB_DIR})")
  endif()
  target_link_libraries(eptx_onnxruntime INTERFACE ${library})
  # Programs look for the library by its soname, under which pip's folder does not have it: a link then stands beside
  # libeptx, in a folder of its own, so that it is found by nobody else.
  execute_process(COMMAND ${CMAKE_READELF} -d ${library} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "soname: \\[([^]]+)\\]" soname "${dynamic}")
  set(soname ${CMAKE_MATCH_1})
  if(EXISTS ${ONNXRUNTIME_LIB_DIR}/${soname})
    set(EPTX_ONNXRUNTIME_RPATH ${ONNXRUNTIME_LIB_DIR})
  else()
    set(EPTX_ONNXRUNTIME_LINK ${CMAKE_CURRENT_BINARY_DIR}/eptx/${soname})
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/eptx)
    file(CREATE_LINK ${library} ${EPTX_ONNXRUNTIME_LINK} SYMBOLIC)
    set(EPTX_ONNXRUNTIME_RPATH "$ORIGIN/eptx")
  endif()
endif()

if(NOT EXISTS ${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_c_api.h)
  message(FATAL_ERROR "ONNX Runtime not found: set ONNXRUNTIME_INCLUDE_DIR (onnxruntime_c_api.h) and ONNXRUNTIME_LIB_DIR")
endif()
target_include_directories(eptx_onnxruntime SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE_DIR})
