# `cmake --install`: the program, the shared library, its headers, a CMake package, and the
# licences of everything that is inside.
include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/winnow")

target_compile_features(winnow INTERFACE cxx_std_20)
target_link_options(winnow PRIVATE
    "LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/winnow.map")
set_property(TARGET winnow APPEND PROPERTY LINK_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/winnow.map")

install(TARGETS winnow_cli RUNTIME)
install(TARGETS winnow EXPORT winnowTargets LIBRARY)
install(DIRECTORY include/winnow TYPE INCLUDE)
install(EXPORT winnowTargets NAMESPACE winnow:: DESTINATION "${package_dir}")

configure_package_config_file(cmake/winnowConfig.cmake.in
    "${PROJECT_BINARY_DIR}/winnowConfig.cmake" INSTALL_DESTINATION "${package_dir}")
# While the major version is 0, a new minor version may change the API.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/winnowConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/winnowConfig.cmake"
    "${PROJECT_BINARY_DIR}/winnowConfigVersion.cmake" DESTINATION "${package_dir}")

install(FILES LICENSE README.md CHANGELOG.md TYPE DOC)
function(winnow_install_licence name file)
    install(FILES "${file}" DESTINATION "${CMAKE_INSTALL_DOCDIR}/licences" RENAME "${name}")
endfunction()
winnow_install_licence(llama.cpp-and-ggml "${llama_dir}/LICENSE")
winnow_install_licence(nlohmann-json "${llama_dir}/licenses/LICENSE-jsonhpp")
winnow_install_licence(sha256 "${llama_dir}/vendor/hash/sha256/LICENSE")
winnow_install_licence(rotate-bits "${llama_dir}/vendor/hash/rotate-bits/LICENSE.md")
winnow_install_licence(xxhash "${llama_dir}/vendor/hash/xxhash/LICENSE")
winnow_install_licence(highway "${highway_dir}/LICENSE-BSD3")
winnow_install_licence(wonderwords "${words_dir}/LICENSE")
if(EXISTS /usr/share/doc/libcli11-dev/copyright)
    winnow_install_licence(cli11 /usr/share/doc/libcli11-dev/copyright)
endif()
