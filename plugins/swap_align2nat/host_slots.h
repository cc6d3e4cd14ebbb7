// Rows of slots, which the dense forward pass and the one for many windows share. A slot of the pair (v, y)
// (core.h) is worked off in three steps:
//
//   1. bin    one bin (v', u'), its taps along y and x summed: a row in the order of the input
//   2. group  the bins v' = p-1 and p, blended: the same row as slots (x + q, phase) of the pair (u, x)
//   3. the groups u' = q-1 and q, blended, become outputs: see host_dense.h and host_windows.h
//
// Sums of two taps along y or x are not halved in step 1: the weights of step 3 see to it. Rows of several
// slots are done together, a block, so that memory is read and written in longer runs.
#pragma once

#include <vector>

#include "host_tools.h"

namespace swap_align2nat {

// Steps 1 and 2 from the input rows `a` and `b`. `bin` held bin p-1 and holds bin p afterwards; FIRST: bin p-1
// is the padding. With two taps along x there is one sum more than cells.
template <bool FIRST, bool TWO_ROWS, bool TWO_CELLS, class A, class T>
SWAP_APART void take_bin(const T* __restrict a, const T* __restrict b, Index cells, A pad, Blend<A> blend,
                         A* __restrict bin, A* __restrict group) {
  const A outside = TWO_ROWS ? pad + pad : pad, before = TWO_CELLS ? outside + outside : outside;
  const auto column = [&](Index x) { return TWO_ROWS ? A(a[x]) + A(b[x]) : A(a[x]); };
  const auto take = [&](Index i, A sum) {
    group[i] = blend(FIRST ? before : bin[i], sum);
    bin[i] = sum;
  };
  if (TWO_CELLS) {
    take(0, outside + column(0));
    for (Index x = 0; x + 1 < cells; ++x) take(x + 1, column(x) + column(x + 1));
    take(cells, column(cells - 1) + outside);
  } else {
    for (Index x = 0; x < cells; ++x) take(x, column(x));
  }
}

template <class T>
class SlotRows {
 public:
  using A = Acc<T>;

  Index items() const { return s_.N * blocks() * blocks_of_phases(); }

 protected:
  // A block: `phases` of each of `cells` cells i = y + p, fewer if there are too few items for the threads.
  // Groups of the last `kept` taps u' are kept.
  SlotRows(const T* input, const Shape& shape, A pad_value, int threads, Index phases, Index cells, Index kept)
      : s_(shape),
        vy_(shape.vy()),
        ux_(shape.ux()),
        cells_y_(vy_.coarse_cells()),
        cells_x_(ux_.coarse_cells()),
        pad_(pad_value),
        sum_of_pads_(pad_value * A((1 + vy_.half_cell()) * (1 + ux_.half_cell()))),
        input_(input),
        sums_(s_.W + ux_.half_cell()),
        margin_(ux_.slot_of_row(-ux_.half_cell())),
        first_i_(quotient(vy_.slot_of_row(-vy_.half_cell()), s_.lam)),
        end_i_(quotient_up(vy_.slot_of_row(s_.H), s_.lam)),
        phases_(std::min(s_.lam, phases)),
        cells_i_(std::min(end_i_ - first_i_, cells)),
        kept_(kept) {
    while (items() < 2 * threads && phases_ * cells_i_ > 1) (phases_ > 1 ? phases_ : cells_i_) /= 2;
    const A share = A(1) / A((1 + vy_.half_cell()) * (1 + ux_.half_cell()));
    for (Index slot = 0; slot < ux_.slots() + 4; ++slot) {
      const Blend<A> blend = blend_at(slot % s_.lam, s_.lam, share);
      of_lower_.push_back(blend.lower);
      of_upper_.push_back(blend.upper);
    }
  }

  // The block of an item; false: the first time, on this thread.
  void enter(Index item) {
    if (bins_.empty()) {
      bins_.resize(s_.U * phases_ * cells_i_ * sums_);
      groups_.assign((kept_ + 2) * step(), sum_of_pads_);
      outside_.assign(s_.W, T(pad_));
    }
    const Index block = item / blocks_of_phases() % blocks();
    n_ = item / blocks_of_phases() / blocks();
    first_phase_ = item % blocks_of_phases() * phases_;
    end_phase_ = std::min(first_phase_ + phases_, s_.lam);
    first_ = first_i_ + block * cells_i_;
    end_ = std::min(first_ + cells_i_, end_i_);
    low_ = block == 0 ? 0 : first_;
    high_ = block + 1 == blocks() ? cells_y_ + s_.V : end_;
  }

  // Steps 1 and 2 for the tap u' and all rows of the block.
  void read_bins(Index p, Index u, bool is_first) {
    const T* const plane = input_ + ((n_ * s_.V + p) * s_.U + u) * s_.H * s_.W;
    const Index half = vy_.half_cell();
    for (Index i = first_; i < end_; ++i)
      for (Index phase = first_phase_; phase < end_phase_; ++phase) {
        if (!reads(i, phase)) continue;
        const Index row = row_of(i, phase), k = place(i, phase);
        const Blend<A> blend = blend_at<A>(phase, s_.lam);
        A *const bin = bins_.data() + (u * phases_ * cells_i_ + k) * sums_, *const to = group(u, k) + margin_;
        if (p == s_.V) {
          for (Index x = 0; x < sums_; ++x) to[x] = blend(bin[x], sum_of_pads_);
          continue;
        }
        const T* const a = row < 0 ? outside_.data() : plane + row * s_.W;
        const T* const b = row + half == s_.H ? outside_.data() : plane + (row + half) * s_.W;
        prefetch(b + s_.H * s_.W, s_.W);  // of the next tap u'
        if (phase == first_phase_) prefetch(a + s_.H * s_.W, s_.W);
        const auto take = [&](auto first, auto two_rows, auto two_cells) {
          take_bin<first, two_rows, two_cells>(a, b, s_.W, pad_, blend, bin, to);
        };
        with_constants(take, is_first, half == 1, ux_.half_cell() == 1);
      }
  }

  Index blocks() const { return quotient_up(end_i_ - first_i_, cells_i_); }
  Index blocks_of_phases() const { return quotient_up(s_.lam, phases_); }
  Index row_of(Index i, Index phase) const { return vy_.row_of_slot(s_.lam * i + phase); }
  Index place(Index i, Index phase) const { return (phase - first_phase_) * cells_i_ + i - first_; }

  // Whether a slot of the block reads more than padding.
  bool reads(Index i, Index phase) const {
    return first_ <= i && i < end_ && row_of(i, phase) >= -vy_.half_cell() && row_of(i, phase) < s_.H;
  }

  // Row k of the tap u' = -1..U; the first and the last hold the pad.
  A* group(Index u, Index k) {
    const Index set = u < 0 ? 0 : u == s_.U ? kept_ + 1 : 1 + u % kept_;
    return groups_.data() + set * step() + k * ux_.slots();
  }

  // From a row to the same row of the next tap u', where all are kept.
  Index step() const { return phases_ * cells_i_ * ux_.slots(); }

  Shape s_;
  Axis vy_, ux_;
  Index cells_y_, cells_x_;
  A pad_, sum_of_pads_;
  std::vector<A> of_lower_, of_upper_;  // weights along u per slot

  Index n_, first_phase_, end_phase_, first_, end_;  // of the block
  Index low_, high_;  // cells i whose outputs are its own: those beside it, which read padding, too

 private:
  const T* input_;
  Index sums_, margin_;     // sums of a bin's row; the slot of the first
  Index first_i_, end_i_;   // cells i that read the input
  Index phases_, cells_i_;  // of a block
  Index kept_;
  std::vector<A> bins_, groups_;  // (U, rows, sums); (kept + 2, rows, slots)
  std::vector<T> outside_;
};

}  // namespace swap_align2nat
