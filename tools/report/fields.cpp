#include "report/fields.h"

namespace winnow::report {

const Json* find(const Json& object, const std::string& path) {
    const Json* at = &object;
    for (std::size_t begin = 0; begin <= path.size();) {
        const std::size_t end = std::min(path.find('.', begin), path.size());
        if (!at->is_object()) return nullptr;
        const auto found = at->find(path.substr(begin, end - begin));
        if (found == at->end()) return nullptr;
        at = &*found;
        begin = end + 1;
    }
    return at->is_null() ? nullptr : at;
}

double number_or(const Json& object, const std::string& path, double other) {
    const Json* value = find(object, path);
    if (value == nullptr) return other;
    if (value->is_boolean()) return value->get<bool>() ? 1 : 0;
    if (!value->is_number()) throw BadField("\"" + path + "\" is not a number");
    return value->get<double>();
}

double number(const Json& object, const std::string& path) {
    if (find(object, path) == nullptr) throw BadField("\"" + path + "\" is missing");
    return number_or(object, path, kNone);
}

std::string text_or(const Json& object, const std::string& path, const std::string& other) {
    const Json* value = find(object, path);
    if (value == nullptr) return other;
    if (value->is_string()) return value->get<std::string>();
    if (value->is_number() || value->is_boolean()) return value->dump();
    throw BadField("\"" + path + "\" is not a text");
}

std::string text(const Json& object, const std::string& path) {
    if (find(object, path) == nullptr) throw BadField("\"" + path + "\" is missing");
    return text_or(object, path, "");
}

}  // namespace winnow::report
