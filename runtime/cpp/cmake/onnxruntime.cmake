# Finds ONNX Runtime: the targets eptx_onnxruntime and eptx_onnxruntime_any, and ONNXRUNTIME_INCLUDE_DIR for ops/.
#
# It uses a release package that CMake can find. Otherwise the variables (or environment variables)
# ONNXRUNTIME_INCLUDE_DIR and ONNXRUNTIME_LIB_DIR say where the headers and libonnxruntime.so* are; the pip package
# has such a library, under a versioned name.
foreach(name ONNXRUNTIME_INCLUDE_DIR ONNXRUNTIME_LIB_DIR)
  set(${name} "$ENV{${name}}" CACHE PATH "Where ONNX Runtime is, when it is not found as a CMake package")
endforeach()
add_library(eptx_onnxruntime INTERFACE)

function(eptx_soname library result)
  execute_process(COMMAND ${CMAKE_READELF} -d ${library} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "soname: \\[([^]]+)\\]" soname "${dynamic}")
  set(${result} ${CMAKE_MATCH_1} PARENT_SCOPE)
endfunction()

if(NOT ONNXRUNTIME_INCLUDE_DIR)
  find_library(EPTX_ONNXRUNTIME_LIBRARY onnxruntime)
  mark_as_advanced(EPTX_ONNXRUNTIME_LIBRARY)
  if(EPTX_ONNXRUNTIME_LIBRARY) # else find_package fails, in spite of QUIET
    find_package(onnxruntime CONFIG QUIET)
  endif()
  if(TARGET onnxruntime::onnxruntime)
    get_target_property(directories onnxruntime::onnxruntime INTERFACE_INCLUDE_DIRECTORIES)
    find_path(found onnxruntime_c_api.h PATHS ${directories} PATH_SUFFIXES onnxruntime NO_DEFAULT_PATH NO_CACHE)
    set(ONNXRUNTIME_INCLUDE_DIR ${found})
    target_link_libraries(eptx_onnxruntime INTERFACE onnxruntime::onnxruntime)
    set(library ${EPTX_ONNXRUNTIME_LIBRARY})
  endif()
elseif(EPTX_BUILD_RUNTIME)
  file(GLOB libraries ${ONNXRUNTIME_LIB_DIR}/libonnxruntime.so ${ONNXRUNTIME_LIB_DIR}/libonnxruntime.so.[0-9]*)
  foreach(candidate IN LISTS libraries)
    if(EXISTS ${candidate} AND NOT library) # not a broken link
      set(library ${candidate})
    endif()
  endforeach()
  if(NOT library)
    message(FATAL_ERROR "No libonnxruntime.so* in ONNXRUNTIME_LIB_DIR (${ONNXRUNTIME_LIB_DIR})")
  endif()
  target_link_libraries(eptx_onnxruntime INTERFACE ${library})
  # Programs look for the library by its soname, and pip's folder has no file of that name. So there is a link to it in
  # a folder beside libeptx, where nothing else finds it; an installed tree has a copy there, and can be moved.
  file(REAL_PATH ${library} EPTX_ONNXRUNTIME_COPY)
  eptx_soname(${library} EPTX_ONNXRUNTIME_SONAME)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/eptx)
  file(CREATE_LINK ${EPTX_ONNXRUNTIME_COPY} ${CMAKE_CURRENT_BINARY_DIR}/eptx/${EPTX_ONNXRUNTIME_SONAME} SYMBOLIC)
endif()

if(NOT EXISTS ${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_c_api.h)
  message(FATAL_ERROR "ONNX Runtime not found: set ONNXRUNTIME_INCLUDE_DIR (onnxruntime_c_api.h) and ONNXRUNTIME_LIB_DIR")
endif()

# ONNX Runtime's one function carries the version of the release (OrtGetApiBase@VERS_1.x.y). A library that is linked to
# it loads with no other release, although the function is the same in all of them. So libeptx is linked to a stand-in
# of the same soname that has the function without a version. libeptx then loads with any release of that soname, and
# Api() in src/session/ort.cc refuses a release that is older than the headers.
if(EPTX_BUILD_RUNTIME)
  eptx_soname(${library} soname)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/any/onnxruntime.c
       CONTENT "const void* OrtGetApiBase(void) { return 0; }\n")
  add_library(eptx_onnxruntime_stand_in SHARED ${CMAKE_CURRENT_BINARY_DIR}/any/onnxruntime.c)
  set_target_properties(eptx_onnxruntime_stand_in PROPERTIES
    C_VISIBILITY_PRESET default LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/any NO_SONAME ON
    LINK_OPTIONS "-Wl,-soname,${soname}")
  add_library(eptx_onnxruntime_any INTERFACE)
  target_link_libraries(eptx_onnxruntime_any INTERFACE eptx_onnxruntime_stand_in)
  target_include_directories(eptx_onnxruntime_any SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE_DIR})
endif()
target_include_directories(eptx_onnxruntime SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE_DIR})
