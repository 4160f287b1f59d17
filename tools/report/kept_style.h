// The style sheet and the script of the page of `winnow inspect --html`.
#pragma once

namespace winnow::report {

const char* kept_style();
const char* kept_script();

}  // namespace winnow::report
