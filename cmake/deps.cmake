# Every dependency, its version and its hash, in one place. scripts/setup reads the same pins from
# scripts/pins.sh and puts the sources where WINNOW_DEPS says; nothing is fetched while building.

set(WINNOW_LLAMA_VERSION 0.3.36) # sdist llama-cpp-python, carries llama.cpp with ggml 0.25.3
set(WINNOW_HIGHWAY_VERSION 2.2.6) # sdist numpy, carries Google Highway 1.2.0

if(DEFINED ENV{XDG_CACHE_HOME})
    set(winnow_cache "$ENV{XDG_CACHE_HOME}/winnow")
else()
    set(winnow_cache "$ENV{HOME}/.cache/winnow")
endif()
set(WINNOW_DEPS "${winnow_cache}/src" CACHE PATH "Folder of the unpacked third-party sources")

set(llama_dir "${WINNOW_DEPS}/llama_cpp_python-${WINNOW_LLAMA_VERSION}/vendor/llama.cpp")
set(highway_dir "${WINNOW_DEPS}/numpy-${WINNOW_HIGHWAY_VERSION}/numpy/_core/src/highway")
foreach(dir IN ITEMS "${llama_dir}" "${highway_dir}")
    if(NOT EXISTS "${dir}/CMakeLists.txt")
        message(FATAL_ERROR "The source ${dir} is missing. Run scripts/setup, which fetches it by version and hash.")
    endif()
endforeach()

# ggml and libllama: plain, never sanitised; hidden inside our shared library.
set(BUILD_SHARED_LIBS OFF)
foreach(option IN ITEMS LLAMA_OPENSSL LLAMA_BUILD_COMMON LLAMA_BUILD_TESTS LLAMA_BUILD_TOOLS
        LLAMA_BUILD_EXAMPLES LLAMA_BUILD_SERVER LLAMA_BUILD_APP GGML_BUILD_TESTS
        GGML_BUILD_EXAMPLES GGML_CCACHE)
    set(${option} OFF CACHE BOOL "" FORCE)
endforeach()
set(GGML_OPENMP ${WINNOW_OPENMP} CACHE BOOL "" FORCE)
set(saved_build_type "${CMAKE_BUILD_TYPE}")
set(CMAKE_BUILD_TYPE Release)
# Debian's git must not stamp our commit into ggml.
set(ENV{GIT_CEILING_DIRECTORIES} "${WINNOW_DEPS}")
add_subdirectory("${llama_dir}" third_party/llama EXCLUDE_FROM_ALL SYSTEM)

# Chat templates: only the Jinja engine of llama.cpp's common library.
file(GLOB jinja_sources CONFIGURE_DEPENDS "${llama_dir}/common/jinja/*.cpp")
add_library(llama_jinja STATIC EXCLUDE_FROM_ALL ${jinja_sources}
    "${llama_dir}/common/unicode.cpp" "${llama_dir}/common/json.cpp"
    "${llama_dir}/common/json-schema.cpp" "${llama_dir}/common/json-schema-to-grammar.cpp"
    "${llama_dir}/common/trie.cpp")
target_include_directories(llama_jinja SYSTEM PUBLIC "${llama_dir}/common" "${llama_dir}/vendor")
target_link_libraries(llama_jinja PUBLIC llama)

# Highway: two small sources beside the headers.
add_library(highway STATIC EXCLUDE_FROM_ALL "${highway_dir}/hwy/targets.cc"
    "${highway_dir}/hwy/per_target.cc" "${highway_dir}/hwy/abort.cc" "${highway_dir}/hwy/print.cc")
target_include_directories(highway SYSTEM PUBLIC "${highway_dir}")
# One target per generation: SSE2 (the baseline), SSE4, AVX2, AVX3 (AVX-512), AVX3_DL (with VNNI).
target_compile_definitions(highway PUBLIC HWY_STATIC_DEFINE
    "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_AVX3_ZEN4|HWY_AVX3_SPR)")
set(CMAKE_BUILD_TYPE "${saved_build_type}")

find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)
if(WINNOW_OPENMP)
    find_package(OpenMP REQUIRED)
endif()
