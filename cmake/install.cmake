# Headers and the CMake package: find_package(lazyllm) gives lazyllm::lazyllm and lazyllm::lazy,
# find_package(lazyllm COMPONENTS lazy) gives lazyllm::lazy and looks for nothing else.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_directory ${CMAKE_INSTALL_DATADIR}/cmake/lazyllm)
set_target_properties(lazyllm_lazy PROPERTIES EXPORT_NAME lazy)
set_target_properties(lazyllm_lazyllm PROPERTIES EXPORT_NAME lazyllm)

install(DIRECTORY include/lazyllm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT lazyllm_development)
foreach(part IN ITEMS lazy lazyllm)
  install(TARGETS lazyllm_${part} EXPORT ${part}_targets COMPONENT lazyllm_development)
  install(EXPORT ${part}_targets NAMESPACE lazyllm:: FILE lazyllm_${part}_targets.cmake
          DESTINATION ${package_directory} COMPONENT lazyllm_development)
endforeach()

configure_package_config_file(cmake/lazyllmConfig.cmake.in ${PROJECT_BINARY_DIR}/lazyllmConfig.cmake
                              INSTALL_DESTINATION ${package_directory} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lazyllmConfigVersion.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/lazyllmConfig.cmake ${PROJECT_BINARY_DIR}/lazyllmConfigVersion.cmake
              cmake/lazyllm_dependencies.cmake
        DESTINATION ${package_directory} COMPONENT lazyllm_development)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT lazyllm_development)
