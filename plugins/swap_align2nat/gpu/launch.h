// The forward kernels behind two functions that any C++ compiler can call. Defined in
// launch.cu.
#pragma once

#include "../core.h"

namespace swap_align2nat {

enum class Type { FLOAT, HALF };  // of x and out

// x: (N, V, U, H, W) -> out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)). Returns a
// cudaError_t, 0 if fine.
int launch_forward(Type type, const void* x, void* out, double pad_value, const Shape& s,
                   void* stream);

// index: (K, 3), the cells (n, y, x) -> out: (K, lam*V, lam*U), pad_value where a cell lies
// outside the grid.
int launch_forward_windows(Type type, const void* x, const Index* index, void* out,
                           double pad_value, const Shape& s, Index K, void* stream);

const char* launch_error(int code);  // in words

}  // namespace swap_align2nat
