// The arithmetic of swap_align2nat, for CPU and GPU.
// Twins: tensormask_edu/reference/swap_align2nat.py; without the integers: plain.cu
//
//   x:   (N, V, U, H, W)                                contiguous; below `input`
//   out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))    contiguous
//   out[n,v,u,y,x] = sum over v' u' y' x' of
//                    hat(ov-v') hat(ou-u') hat(oy-y') hat(ox-x') * x[n,v',u',y',x']
//   ov = (v+1/2)/lam - 1/2,   oy = lam*y + v - (lam*V-1)/2,   ou and ox alike
//   hat(t) = max(0, 1-|t|),   pad_value outside x
//
// In integers, for the pair of axes (v, y); the pair (u, x) is the same with U and W. p is the
// upper of the two input bins that ov lies between, `phase` which of lam places between them;
// of the places of p = 0 the first `lead` come before v = 0:
//
//   v   = lam*p + phase - lead,  lead = (lam+1)/2     taps v' = p-1 and p, weights 1-w and w,
//                                                     w = (2*phase + 1 - lam%2) / (2*lam)
//   row = lam*y + v - lam*V/2    (integer division)   tap y' = row if lam*V is odd,
//                                                     row and row+1, 1/2 each, if it is even
//
// Hence row + lam*V/2 + lead = lam*(y+p) + phase, the `slot`: outputs that read one input row
// share their phase, and so their weights. The outputs (v, y) of a slot are its groups, from
// p = 0 to V; group p reads the bins p-1 and p. The fast forms in cpu/ and gpu/ rest on this.
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

// a / b for 0 <= a < 2^32, b > 0: positions along an axis are that small, and devices divide 64
// bits slowly.
SWAP_HD Index quotient(Index a, Index b) { return Index(unsigned(a) / unsigned(b)); }

SWAP_HD Index quotient_up(Index a, Index b) { return quotient(a + b - 1, b); }

template <class Integer>
SWAP_HD bool inside(Integer i, Integer extent) {
  return i >= 0 && i < extent;
}

// The pair of axes (v, y) with bins = V and cells = H, or (u, x) with bins = U and cells = W.
struct Axis {
  Index bins, cells, lam;

  SWAP_HD Index fine_bins() const { return lam * bins; }
  SWAP_HD Index coarse_cells() const { return quotient_up(cells, lam); }
  SWAP_HD Index lead() const { return (lam + 1) / 2; }
  // 1: two taps of 1/2 along y; 0: one tap.
  SWAP_HD Index half_cell() const { return (lam * bins + 1) % 2; }
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
  SWAP_HD Index output_size() const {
    return N * window_size() * vy().coarse_cells() * ux().coarse_cells();
  }
};

// Weights of the bins p-1 and p that group p reads at one phase. A bin of weight zero adds
// nothing, whatever it holds; only the upper weight can be zero.
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

// One of the four taps of the output pair (v, y), or one of the four outputs that read an input
// pair.
template <class A>
struct Contribution {
  Index bin, cell;
  A weight;  // 0: none
};

// Tap k of output (v, y), as if x went on forever.
template <class A>
SWAP_HD Contribution<A> tap(const Axis& axis, Index v, Index y, int k) {
  const Index slot = axis.lam * y + v + axis.lead(), p = quotient(v + axis.lead(), axis.lam),
              half = axis.half_cell();
  const Blend<A> blend =
      blend_at<A>(v + axis.lead() - axis.lam * p, axis.lam, A(1) / A(1 + half));
  const Index bin = k & 1, cell = k >> 1;
  const A weight = bin ? blend.upper : blend.lower;
  return {p - 1 + bin, axis.row_of_slot(slot) + cell, cell > half ? A(0) : weight};
}

// Output k that reads the input (v', y'); v' is the upper bin of group v' and the lower one of
// group v' + 1.
template <class A>
SWAP_HD Contribution<A> reader(const Axis& axis, Index v, Index y, int k) {
  const Index p = v + (k & 1), back = k >> 1, half = axis.half_cell();
  const Index slot = axis.slot_of_row(y) - back, i = quotient(slot, axis.lam),
              phase = slot - axis.lam * i;
  const Blend<A> blend = blend_at<A>(phase, axis.lam, A(1) / A(1 + half));
  const Index bin = axis.lam * p + phase - axis.lead(), cell = i - p;
  const bool there =
      back <= half && inside(bin, axis.fine_bins()) && inside(cell, axis.coarse_cells());
  return {bin, cell, !there ? A(0) : p == v ? blend.upper : blend.lower};
}

template <class A, class T>
SWAP_HD A output_element(const T* input, const Shape& s, A pad_value, Index n, Index v, Index u,
                         Index y, Index x) {
  A sum = 0;
  for (int i = 0; i < 4; ++i) {
    const Contribution<A> a = tap<A>(s.vy(), v, y, i);
    const bool row_there = inside(a.bin, s.V) && inside(a.cell, s.H);
    for (int j = 0; j < 4; ++j) {
      const Contribution<A> b = tap<A>(s.ux(), u, x, j);
      if (a.weight == 0 || b.weight == 0) continue;
      const bool there = row_there && inside(b.bin, s.U) && inside(b.cell, s.W);
      const Index place = (((n * s.V + a.bin) * s.U + b.bin) * s.H + a.cell) * s.W + b.cell;
      sum += a.weight * b.weight * (there ? A(input[place]) : pad_value);
    }
  }
  return sum;
}

// One element of the input gradient.
template <class A, class T>
SWAP_HD A input_gradient(const T* grad, const Shape& s, Index n, Index v, Index u, Index y,
                         Index x) {
  const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells();
  A sum = 0;
  for (int i = 0; i < 4; ++i) {
    const Contribution<A> a = reader<A>(s.vy(), v, y, i);
    for (int j = 0; j < 4; ++j) {
      const Contribution<A> b = reader<A>(s.ux(), u, x, j);
      if (a.weight == 0 || b.weight == 0) continue;
      const Index bin = (n * s.lam * s.V + a.bin) * s.lam * s.U + b.bin;
      sum += a.weight * b.weight * A(grad[(bin * cells_y + a.cell) * cells_x + b.cell]);
    }
  }
  return sum;
}

}  // namespace swap_align2nat
