# What a consumer needs: the headers, the library, and how CMake and pkg-config find them.
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/eptx)

install(TARGETS eptx EXPORT eptxTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS eptx_validate RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(EXPORT eptxTargets NAMESPACE eptx:: DESTINATION ${package})

if(EPTX_ONNXRUNTIME_COPY)
  install(PROGRAMS ${EPTX_ONNXRUNTIME_COPY} DESTINATION ${CMAKE_INSTALL_LIBDIR}/eptx RENAME ${EPTX_ONNXRUNTIME_SONAME})
endif()

configure_package_config_file(cmake/eptxConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/eptxConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/eptxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/eptxConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/eptxConfigVersion.cmake
        DESTINATION ${package})

# the path from the .pc file to the prefix, so that an installed tree can be moved
file(RELATIVE_PATH EPTX_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/eptx.pc.in ${CMAKE_CURRENT_BINARY_DIR}/eptx.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/eptx.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
