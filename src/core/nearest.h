// "Did you mean": the nearest known name to one that is not.
#pragma once

#include <span>
#include <string>

namespace winnow {

/// The known name with the fewest edits to `name`, if that is few; else "".
std::string nearest_name(const std::string& name, std::span<const std::string> known);

/// The end of a sentence: "; did you mean 'snapkv'? Known: ..." and a full stop.
std::string did_you_mean(const std::string& name, std::span<const std::string> known);

}  // namespace winnow
