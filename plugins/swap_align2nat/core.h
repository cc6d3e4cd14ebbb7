// The arithmetic of swap_align2nat, for host and device alike. Twin: tensormask_edu/reference/swap_align2nat.py.
//
//   x:   (N, V, U, H, W)                                        contiguous; `input` below, x being an index
//   out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))            contiguous
//   out[n,v,u,y,x] = sum over v' u' y' x' of hat(ov-v') hat(ou-u') hat(oy-y') hat(ox-x') * x[n,v',u',y',x'],
//   ov = (v+1/2)/lam - 1/2,   oy = lam*y + v - lam*V/2 + 1/2,   ou and ox alike; pad_value outside x.
//
// In integers, for the pair of axes (v, y); the pair (u, x) is the same with U and W:
//
//   v   = lam*p + phase - lead,  lead = (lam+1)/2        taps v' = p-1 and p, weights 1-w and w,
//                                                        w = (2*phase + 1 - lam%2) / (2*lam)
//   row = lam*y + v - lam*V/2    (integer division)      tap y' = row if lam*V is odd,
//                                                        taps y' = row and row+1, 1/2 each, if it is even
//
// Hence row + lam*V/2 + lead = lam*(y+p) + phase: outputs that read one input row share their phase, and so
// their weights. Every fast form here and in host.cpp and kernels.cu rests on this line.
#pragma once

#if defined(__CUDACC__)
#define SWAP_HD __host__ __device__ __forceinline__
#else
#define SWAP_HD inline
#endif

namespace swap_align2nat {

using Index = long long;

// The pair of axes (v, y) with bins = V and cells = H, or (u, x) with bins = U and cells = W.
struct Axis {
  Index bins, cells, lam;

  SWAP_HD Index fine_bins() const { return lam * bins; }
  SWAP_HD Index coarse_cells() const { return (cells + lam - 1) / lam; }
  SWAP_HD Index lead() const { return (lam + 1) / 2; }
  SWAP_HD Index half_cell() const { return lam * bins % 2 == 0; }  // 1: two taps of 1/2 along y
  // `slot` = lam*(y+p) + phase counts the input rows that outputs read, those outside x included.
  SWAP_HD Index slots() const { return lam * (coarse_cells() + bins); }
  SWAP_HD Index slot_of_row(Index row) const { return row + lam * bins / 2 + lead(); }
  SWAP_HD Index row_of_slot(Index slot) const { return slot - lam * bins / 2 - lead(); }
};

struct Shape {
  Index N, V, U, H, W, lam;

  SWAP_HD Axis vy() const { return {V, H, lam}; }
  SWAP_HD Axis ux() const { return {U, W, lam}; }
  SWAP_HD Index input_size() const { return N * V * U * H * W; }
  SWAP_HD Index window_size() const { return lam * V * lam * U; }
  SWAP_HD Index output_size() const { return N * window_size() * vy().coarse_cells() * ux().coarse_cells(); }
};

// Weight of tap v' = p; tap v' = p-1 has the rest.
template <class Acc>
SWAP_HD Acc upper_weight(Index phase, Index lam) {
  return Acc(2 * phase + 1 - lam % 2) / Acc(2 * lam);
}

// The taps of one output index pair (v, y).
template <class Acc>
struct Taps {
  Index bin[2], cell[2];
  Acc bin_weight[2], cell_weight[2];
};

template <class Acc>
SWAP_HD Taps<Acc> taps(const Axis& axis, Index v, Index y) {
  const Index p = (v + axis.lead()) / axis.lam;
  const Acc w = upper_weight<Acc>(v + axis.lead() - axis.lam * p, axis.lam);
  const Index row = axis.row_of_slot(axis.lam * y + v + axis.lead());
  const Acc half = Acc(axis.half_cell()) / 2;
  return {{p - 1, p}, {row, row + 1}, {1 - w, w}, {1 - half, half}};
}

SWAP_HD bool inside(Index i, Index extent) { return i >= 0 && i < extent; }

// One output element. A tap of weight zero is not read.
template <class Acc, class T>
SWAP_HD Acc output_element(const T* input, const Shape& s, Acc pad_value, Index n, Index v, Index u, Index y, Index x) {
  const Taps<Acc> a = taps<Acc>(s.vy(), v, y), b = taps<Acc>(s.ux(), u, x);
  Acc sum = 0;
  for (int tap = 0; tap < 16; ++tap) {
    const int i = tap >> 3 & 1, j = tap >> 2 & 1, k = tap >> 1 & 1, l = tap & 1;
    const Acc weight = a.bin_weight[i] * b.bin_weight[j] * a.cell_weight[k] * b.cell_weight[l];
    if (weight == 0) continue;
    const bool in = inside(a.bin[i], s.V) && inside(b.bin[j], s.U) && inside(a.cell[k], s.H) && inside(b.cell[l], s.W);
    sum += weight * (in ? Acc(input[(((n * s.V + a.bin[i]) * s.U + b.bin[j]) * s.H + a.cell[k]) * s.W + b.cell[l]]) : pad_value);
  }
  return sum;
}

// The outputs (v, y) that read the input pair (v', y'): at most four, each with its weight (0: none).
template <class Acc>
struct Readers {
  Index bin[4], cell[4];
  Acc weight[4];
};

template <class Acc>
SWAP_HD Readers<Acc> readers(const Axis& axis, Index v, Index y) {
  Readers<Acc> found;
  for (int k = 0; k < 4; ++k) {
    const Index p = v + (k & 1), back = k >> 1;  // v' is the upper tap of group v', the lower one of v'+1
    const Index slot = axis.slot_of_row(y) - back;
    const Index phase = slot % axis.lam;
    const Acc w = upper_weight<Acc>(phase, axis.lam);
    found.bin[k] = axis.lam * p + phase - axis.lead();
    found.cell[k] = slot / axis.lam - p;
    const bool real = back <= axis.half_cell() && inside(found.bin[k], axis.fine_bins()) &&
                      inside(found.cell[k], axis.coarse_cells());
    found.weight[k] = real ? (p == v ? w : 1 - w) / Acc(1 + axis.half_cell()) : Acc(0);
  }
  return found;
}

}  // namespace swap_align2nat
