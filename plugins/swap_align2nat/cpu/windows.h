// The forward pass for chosen windows on the CPU. One item is one window, which owns what it
// writes.
//
// A row v of a window is made in the steps of dense.h, for the cells that the window reads:
//
//   1. column  the taps along v and y of one cell: two bins, two rows each
//   2. sum     two columns beside each other, the taps along x
//   3. output  the bins u' = q-1 and q of a group q, blended
//
// Every pair of taps is summed, not halved: the weights of step 3 see to it. Where an axis has
// one tap only (lam*V odd), it is counted twice.
#pragma once

#include <vector>

#include "tools.h"

namespace swap_align2nat {

template <class T>
class WindowsForward {
 public:
  using A = Acc<T>;

  // index: (count, 3), the cells (n, y, x); out: (count, lam*V, lam*U)
  WindowsForward(const T* input, const Shape& shape, A pad_value, const int64_t* index, T* out)
      : s_(shape),
        vy_(shape.vy()),
        ux_(shape.ux()),
        input_(input),
        index_(index),
        out_(out),
        pad_(pad_value),
        pad_row_(s_.W, T(pad_value)),
        columns_(2 * s_.lam + 1),
        sums_(2 * s_.lam * (s_.U + 2), 4 * pad_value),
        along_u_(slot_blends<A>(s_.lam, s_.lam, A(1) / 4)) {}

  void operator()(Index k) {
    const Index n = index_[3 * k], y = index_[3 * k + 1], x = index_[3 * k + 2];
    T* const window = out_ + k * s_.window_size();
    for_groups(s_.V, s_.lam, [&](Index p, Index first, Index end) {
      for (Index phase = first; phase < end; ++phase) {
        T* const to = window + (s_.lam * p + phase - vy_.lead()) * ux_.fine_bins();
        const Index row = vy_.row_of_slot(s_.lam * (y + p) + phase);
        if (row < -vy_.half_cell() || row >= s_.H) {
          std::fill_n(to, ux_.fine_bins(), T(pad_));  // nothing but padding
          continue;
        }
        sum_taps(n, p, row, ux_.row_of_slot(s_.lam * x), blend_at<A>(phase, s_.lam));
        write_row(to);
      }
    });
  }

 private:
  // Steps 1 and 2 for all bins u': the 2*lam cells that the groups q = u' and u'+1 read.
  // `cell`: the first.
  void sum_taps(Index n, Index p, Index row, Index cell, Blend<A> along_v) {
    const Index width = 2 * s_.lam, half_x = ux_.half_cell();
    const T* from[4];  // bin p-1: two rows; bin p: two rows
    Index step[4];     // to the next bin u': 0 where the row is padding
    for (int k = 0; k < 4; ++k) {
      const Index v = p - 1 + k / 2, y = row + k % 2 * vy_.half_cell();
      const bool there = inside(v, s_.V) && inside(y, s_.H) && (k < 2 || along_v.upper != 0);
      from[k] = there ? input_ + ((n * s_.V + v) * s_.U * s_.H + y) * s_.W : pad_row_.data();
      step[k] = there ? s_.H * s_.W : 0;
    }
    for (Index u = 0; u < s_.U; ++u, cell += s_.lam) {
      const Index low = std::clamp<Index>(-cell, 0, width + half_x);
      const Index high = std::clamp<Index>(s_.W - cell, low, width + half_x);
      const T *a = from[0] + u * step[0] + cell, *b = from[1] + u * step[1] + cell;
      const T *c = from[2] + u * step[2] + cell, *d = from[3] + u * step[3] + cell;
      A* __restrict const column = columns_.data();
      A* __restrict const sum = sums_.data() + (u + 1) * width;
      std::fill_n(column, low, 2 * pad_);
      for (Index j = low; j < high; ++j)
        column[j] = along_v.lower * (A(a[j]) + A(b[j])) + along_v.upper * (A(c[j]) + A(d[j]));
      std::fill(column + high, column + width + half_x, 2 * pad_);
      for (Index j = 0; j < width; ++j) sum[j] = column[j] + column[j + half_x];
    }
  }

  // Step 3. The cells of group q follow those of group q-1.
  void write_row(T* __restrict to) const {
    for_groups(s_.U, s_.lam, [&](Index q, Index first, Index end) {
      const A* const lower = sums_.data() + (2 * q + 1) * s_.lam;
      const A* const upper = sums_.data() + (2 * q + 2) * s_.lam;
      T* const group = to + s_.lam * q - ux_.lead();
      for (Index phase = first; phase < end; ++phase)
        group[phase] = T(along_u_[phase](lower[phase], upper[phase]));
    });
  }

  Shape s_;
  Axis vy_, ux_;
  const T* input_;
  const int64_t* index_;
  T* out_;
  A pad_;
  std::vector<T> pad_row_;         // (W)
  std::vector<A> columns_;         // (2*lam + 1)
  std::vector<A> sums_;            // (U + 2, 2*lam), the first and the last hold the pad
  std::vector<Blend<A>> along_u_;  // (lam)
};

}  // namespace swap_align2nat
