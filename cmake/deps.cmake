# Third-party sources. Every version and hash stands in scripts/pins.sh; scripts/setup puts the
# sources where WINNOW_DEPS says, and nothing is fetched while building.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${CMAKE_CURRENT_SOURCE_DIR}/scripts/pins.sh")
file(STRINGS "${CMAKE_CURRENT_SOURCE_DIR}/scripts/pins.sh" pins REGEX "^[A-Z0-9_]+=")
foreach(pin IN LISTS pins)
    string(REGEX MATCH "^([A-Z0-9_]+)=(.*)$" pin "${pin}")
    set(WINNOW_PIN_${CMAKE_MATCH_1} "${CMAKE_MATCH_2}")
endforeach()

if(DEFINED ENV{XDG_CACHE_HOME})
    set(winnow_cache "$ENV{XDG_CACHE_HOME}/winnow")
else()
    set(winnow_cache "$ENV{HOME}/.cache/winnow")
endif()
set(WINNOW_DEPS "${winnow_cache}/src" CACHE PATH "Folder of the unpacked third-party sources")

set(llama_dir
    "${WINNOW_DEPS}/${WINNOW_PIN_LLAMA_PACKAGE}-${WINNOW_PIN_LLAMA_VERSION}/vendor/llama.cpp")
set(highway_dir
    "${WINNOW_DEPS}/${WINNOW_PIN_HIGHWAY_PACKAGE}-${WINNOW_PIN_HIGHWAY_VERSION}/numpy/_core/src/highway")
set(words_dir "${WINNOW_DEPS}/${WINNOW_PIN_WORDS_PACKAGE}-${WINNOW_PIN_WORDS_VERSION}")
foreach(file IN ITEMS "${llama_dir}/CMakeLists.txt" "${highway_dir}/CMakeLists.txt"
        "${words_dir}/nounlist.txt")
    if(NOT EXISTS "${file}")
        message(FATAL_ERROR "${file} is missing. Run scripts/setup, which fetches it by version and hash.")
    endif()
endforeach()

# ggml and libllama: plain, never sanitised; hidden inside our shared library. They are compiled
# alike in every preset, and with paths relative to the build, so that ccache shares their objects.
set(BUILD_SHARED_LIBS OFF)
foreach(option IN ITEMS LLAMA_OPENSSL LLAMA_BUILD_COMMON LLAMA_BUILD_TESTS LLAMA_BUILD_TOOLS
        LLAMA_BUILD_EXAMPLES LLAMA_BUILD_SERVER LLAMA_BUILD_APP LLAMA_ALL_WARNINGS
        GGML_BUILD_TESTS GGML_BUILD_EXAMPLES GGML_CCACHE GGML_ALL_WARNINGS)
    set(${option} OFF CACHE BOOL "" FORCE)
endforeach()
set(GGML_OPENMP ${WINNOW_OPENMP} CACHE BOOL "" FORCE)
set(saved_build_type "${CMAKE_BUILD_TYPE}")
set(CMAKE_BUILD_TYPE Release)
set(saved_launcher "${CMAKE_CXX_COMPILER_LAUNCHER}")
if(CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
        "CCACHE_BASEDIR=${PROJECT_BINARY_DIR}" "${CCACHE}")
    set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_C_COMPILER_LAUNCHER}")
endif()
# Debian's git must not stamp our commit into ggml.
set(ENV{GIT_CEILING_DIRECTORIES} "${WINNOW_DEPS}")
add_subdirectory("${llama_dir}" third_party/llama EXCLUDE_FROM_ALL SYSTEM)

# Large products of prefill; any BLAS with the C interface (OpenBLAS, BLIS, MKL, Accelerate).
find_package(BLAS)
find_path(WINNOW_CBLAS_DIR cblas.h PATH_SUFFIXES openblas-openmp openblas-pthread openblas)

add_subdirectory(cmake/third_party EXCLUDE_FROM_ALL)
set(CMAKE_BUILD_TYPE "${saved_build_type}")
set(CMAKE_C_COMPILER_LAUNCHER "${saved_launcher}")
set(CMAKE_CXX_COMPILER_LAUNCHER "${saved_launcher}")

find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)
if(WINNOW_OPENMP)
    find_package(OpenMP REQUIRED)
endif()
