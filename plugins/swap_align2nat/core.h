// The arithmetic of swap_align2nat, for host and device alike. Twin: tensormask_edu/reference/swap_align2nat.py
//
//   x:   (N, V, U, H, W)                                contiguous; `input` below, where x is an index
//   out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))    contiguous
//   out[n,v,u,y,x] = sum over v' u' y' x' of hat(ov-v') hat(ou-u') hat(oy-y') hat(ox-x') * x[n,v',u',y',x'],
//   ov = (v+1/2)/lam - 1/2,   oy = lam*y + v - lam*V/2 + 1/2,   ou and ox alike; pad_value outside x.
//
// In integers, for the pair of axes (v, y); the pair (u, x) is the same with U and W:
//
//   v   = lam*p + phase - lead,  lead = (lam+1)/2      taps v' = p-1 and p, weights 1-w and w,
//                                                      w = (2*phase + 1 - lam%2) / (2*lam)
//   row = lam*y + v - lam*V/2    (integer division)    tap y' = row if lam*V is odd,
//                                                      taps y' = row and row+1, 1/2 each, if it is even
//
// Hence row + lam*V/2 + lead = lam*(y+p) + phase, the `slot`: outputs that read one input row share their phase,
// and so their weights. All outputs (v, y) of a slot are its groups p = 0..V, and a group reads the bins p-1 and p.
// The fast forms in host.cpp and kernels.cu rest on these lines.
#pragma once

#if defined(__CUDACC__)
#define SWAP_HD __host__ __device__ __forceinline__
#else
#define SWAP_HD inline
#endif

namespace swap_align2nat {

using Index = long long;

// Sums are formed in float, of doubles in double.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulator<T>::type;

// a / b for a >= 0 and b > 0, in 32 bits where they suffice: devices divide 64 bits in many steps.
SWAP_HD Index quotient(Index a, Index b) {
  return ((a | b) >> 32) == 0 ? Index(unsigned(a) / unsigned(b)) : a / b;
}

SWAP_HD Index quotient_up(Index a, Index b) { return quotient(a + b - 1, b); }

SWAP_HD bool inside(Index i, Index extent) { return i >= 0 && i < extent; }

// The pair of axes (v, y) with bins = V and cells = H, or (u, x) with bins = U and cells = W.
struct Axis {
  Index bins, cells, lam;

  SWAP_HD Index fine_bins() const { return lam * bins; }
  SWAP_HD Index coarse_cells() const { return quotient_up(cells, lam); }
  SWAP_HD Index lead() const { return (lam + 1) / 2; }
  SWAP_HD Index half_cell() const { return (lam * bins + 1) % 2; }  // 1: two taps of 1/2 along y
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

// Weights of the bins p-1 and p that group p reads at one phase. A tap of weight zero is not read, so that it adds
// nothing whatever it holds; only the upper one can be zero.
template <class A>
struct Blend {
  A lower, upper;

  SWAP_HD A operator()(A of_lower, A of_upper) const {
    A sum = lower * of_lower;
    if (upper != 0) sum += upper * of_upper;
    return sum;
  }
};

template <class A, class Integer>
SWAP_HD Blend<A> blend_at(Integer phase, Integer lam, A share = 1) {
  const A unit = share / A(2 * lam);
  const Integer upper = 2 * phase + 1 - lam % 2;
  return {unit * A(2 * lam - upper), unit * A(upper)};
}

// ---------------------------------------------------------------- one output element

// The taps of one output pair (v, y): two bins, two cells, and their weights.
template <class A>
struct Taps {
  Index bin[2], cell[2];
  A bin_weight[2], cell_weight[2];
};

template <class A>
SWAP_HD Taps<A> taps(const Axis& axis, Index v, Index y) {
  const Index p = quotient(v + axis.lead(), axis.lam);
  const Blend<A> w = blend_at<A>(v + axis.lead() - axis.lam * p, axis.lam);
  const Index row = axis.row_of_slot(axis.lam * y + v + axis.lead());
  const A half = A(axis.half_cell()) / 2;
  return {{p - 1, p}, {row, row + 1}, {w.lower, w.upper}, {1 - half, half}};
}

template <class A, class T>
SWAP_HD A output_element(const T* input, const Shape& s, A pad_value, Index n, Index v, Index u, Index y, Index x) {
  const Taps<A> a = taps<A>(s.vy(), v, y), b = taps<A>(s.ux(), u, x);
  A sum = 0;
  for (int tap = 0; tap < 16; ++tap) {
    const int i = tap >> 3 & 1, j = tap >> 2 & 1, k = tap >> 1 & 1, l = tap & 1;
    const A weight = a.bin_weight[i] * b.bin_weight[j] * a.cell_weight[k] * b.cell_weight[l];
    if (weight == 0) continue;
    const bool there = inside(a.bin[i], s.V) && inside(b.bin[j], s.U) && inside(a.cell[k], s.H) && inside(b.cell[l], s.W);
    const Index place = (((n * s.V + a.bin[i]) * s.U + b.bin[j]) * s.H + a.cell[k]) * s.W + b.cell[l];
    sum += weight * (there ? A(input[place]) : pad_value);
  }
  return sum;
}

// ---------------------------------------------------------------- one element of the input gradient

// The outputs (v, y) that read the input pair (v', y'): at most four, each with its weight (0: none).
template <class A>
struct Readers {
  Index bin[4], cell[4];
  A weight[4];
};

template <class A>
SWAP_HD Readers<A> readers(const Axis& axis, Index v, Index y) {
  Readers<A> found;
  for (int k = 0; k < 4; ++k) {
    const Index p = v + (k & 1), back = k >> 1;  // v' is the upper bin of group v' and the lower bin of group v'+1
    const Index slot = axis.slot_of_row(y) - back, i = quotient(slot, axis.lam), phase = slot - axis.lam * i;
    const Blend<A> w = blend_at(phase, axis.lam, A(1) / A(1 + axis.half_cell()));
    found.bin[k] = axis.lam * p + phase - axis.lead();
    found.cell[k] = i - p;
    const bool real = back <= axis.half_cell() && inside(found.bin[k], axis.fine_bins()) &&
                      inside(found.cell[k], axis.coarse_cells());
    found.weight[k] = !real ? A(0) : p == v ? w.upper : w.lower;
  }
  return found;
}

template <class A, class T>
SWAP_HD A input_gradient(const T* grad, const Shape& s, Index n, Index v, Index u, Index y, Index x) {
  const Readers<A> a = readers<A>(s.vy(), v, y), b = readers<A>(s.ux(), u, x);
  const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells();
  A sum = 0;
  for (int pair = 0; pair < 16; ++pair) {
    const int i = pair >> 2, j = pair & 3;
    if (a.weight[i] == 0 || b.weight[j] == 0) continue;
    const Index window_bin = (n * s.lam * s.V + a.bin[i]) * s.lam * s.U + b.bin[j];
    sum += a.weight[i] * b.weight[j] * A(grad[(window_bin * cells_y + a.cell[i]) * cells_x + b.cell[j]]);
  }
  return sum;
}

}  // namespace swap_align2nat
