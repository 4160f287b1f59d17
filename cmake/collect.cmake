# One addition = one file: collects the stems of a folder and writes the table of what they define.
#
#   winnow_collect(<out-var> KIND policy TYPE Policy HEADER prune/policy.h DIR src/prune/policies)
#
# Each <stem>.cpp defines `const <NAMESPACE>::<TYPE> <kind>_<stem>`; NAMESPACE is winnow unless
# given. The table is in name order.
function(winnow_collect out)
    cmake_parse_arguments(arg "" "KIND;TYPE;HEADER;DIR;PLURAL;NAMESPACE" "" ${ARGN})
    if(NOT arg_NAMESPACE)
        set(arg_NAMESPACE winnow)
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${arg_DIR}/*.cpp")
    list(SORT sources)
    set(declarations "")
    set(entries "")
    foreach(source IN LISTS sources)
        get_filename_component(stem "${source}" NAME_WE)
        string(APPEND declarations "extern const ${arg_TYPE} ${arg_KIND}_${stem};\n")
        string(APPEND entries "        &${arg_KIND}_${stem},\n")
    endforeach()
    set(table "${PROJECT_BINARY_DIR}/generated/${arg_KIND}_table.cpp")
    file(CONFIGURE OUTPUT "${table}" @ONLY CONTENT
"// Generated from the files of @arg_DIR@.
#include \"@arg_HEADER@\"

namespace @arg_NAMESPACE@ {

@declarations@
std::span<const @arg_TYPE@* const> @arg_PLURAL@() {
    static const @arg_TYPE@* const table[] = {
@entries@    };
    return table;
}

}  // namespace @arg_NAMESPACE@
")
    set(${out} ${sources} "${table}" PARENT_SCOPE)
endfunction()
