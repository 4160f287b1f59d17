// The Walsh-Hadamard rotation of rows, orthonormal and so its own inverse.
#pragma once

namespace winnow {

/// The width of the rotated pieces of a row: the largest power of two that divides head_dim.
inline int hadamard_width(int head_dim) {
    return head_dim & -head_dim;
}

/// Rotates `rows` rows of x [rows][head_dim] in place, each piece of hadamard_width(head_dim)
/// channels by itself, divided by the root of the width. head_dim is a multiple of 8.
void hadamard(float* x, int rows, int head_dim);

namespace reference {
void hadamard(float* x, int rows, int head_dim);
}  // namespace reference

}  // namespace winnow
