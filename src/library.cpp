// The shared library is made of winnow_core; a source of its own gives CMake a language.
