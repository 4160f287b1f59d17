// The one exception type of the library.
#pragma once

#include <stdexcept>
#include <string>

#define WINNOW_API __attribute__((visibility("default")))

namespace winnow {

/// What kind of mistake an Error reports; the command line maps it to its exit code.
enum class ErrorKind {
    usage,    ///< an option or argument is wrong (exit code 2)
    failure,  ///< a file, a model or a resource is wrong (exit code 1)
    stopped,  ///< the caller asked to stop through a callback (exit code 130)
};

/// Thrown by every function of the library. what() is a sentence that names the file, flag or
/// field, the value found and what would be right.
class WINNOW_API Error : public std::runtime_error {
  public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const noexcept { return kind_; }

  private:
    ErrorKind kind_;
};

/// Shorthands: `throw usage_error("...")`.
inline Error usage_error(const std::string& message) {
    return {ErrorKind::usage, message};
}
inline Error failure(const std::string& message) {
    return {ErrorKind::failure, message};
}

}  // namespace winnow
