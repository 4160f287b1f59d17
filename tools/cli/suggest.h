// "Did you mean": the nearest of some names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace winnow::cli {

/// The member of `names` with the fewest edits to `name`, case ignored; "" when there is none.
std::string nearest(std::string_view name, std::span<const std::string> names);

/// "'a', 'b' or 'c'".
std::string quoted_list(std::span<const std::string> names);

}  // namespace winnow::cli
