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

#include "tools.h"

namespace swap_align2nat {

// Where steps 1 and 2 read and write for COUNT slots whose input rows follow one another.
template <class A, int COUNT>
struct Rows {
  const A* input[COUNT + 1];
  const A* ahead[COUNT + 1];  // what to prefetch meanwhile
  Blend<A> blend[COUNT];
  A *bin[COUNT], *group[COUNT];
};

// Steps 1 and 2. `bin` held bin p-1 and holds bin p afterwards; FIRST: bin p-1 is the padding. With two taps
// along x there is one sum more than cells.
template <bool FIRST, bool TWO_ROWS, bool TWO_CELLS, class A, int COUNT>
SWAP_APART void take_bins(const Rows<A, COUNT> rows, Index cells, A pad) {
  const A outside = TWO_ROWS ? pad + pad : pad, before = TWO_CELLS ? outside + outside : outside;
  const auto take = [&](Index to, const A* cell_sums) {
    for (int k = 0; k < COUNT; ++k) {
      const A sum = TWO_ROWS ? cell_sums[k] + cell_sums[k + 1] : cell_sums[k];
      rows.group[k][to] = rows.blend[k](FIRST ? before : rows.bin[k][to], sum);
      rows.bin[k][to] = sum;
    }
  };
  const auto edge = [&](Index to, Index x) {
    A sums[COUNT + 1];
    for (int k = 0; k < COUNT + TWO_ROWS; ++k) sums[k] = pad + rows.input[k][x];
    take(to, sums);
  };
  if (TWO_CELLS) edge(0, 0), edge(cells, cells - 1);
  const auto inner = [&](Index from, Index to) {
    SWAP_INDEPENDENT
    for (Index x = from; x < to; ++x) {
      A sums[COUNT + 1];
      for (int k = 0; k < COUNT + TWO_ROWS; ++k)
        sums[k] = TWO_CELLS ? rows.input[k][x] + rows.input[k][x + 1] : rows.input[k][x];
      take(x + TWO_CELLS, sums);
    }
  };
  constexpr Index line = 64 / sizeof(A);
  Index x = 0;
  for (; x + line <= cells - TWO_CELLS; x += line) {
    for (int k = 0; k < COUNT + TWO_ROWS; ++k) prefetch_line(rows.ahead[k] + x);
    inner(x, x + line);
  }
  inner(x, cells - TWO_CELLS);
}

// The weights of step 3 for the first `slots` slots of a row.
template <class A>
void weights_along_u(const Shape& s, Index slots, std::vector<A>& of_lower, std::vector<A>& of_upper) {
  const A share = A(1) / A((1 + s.vy().half_cell()) * (1 + s.ux().half_cell()));
  for (Index slot = 0; slot < slots; ++slot) {
    const Blend<A> blend = blend_at(slot % s.lam, s.lam, share);
    of_lower.push_back(blend.lower);
    of_upper.push_back(blend.upper);
  }
}

// The walk: an item is a block of slots, worked off bin by bin along p.
template <class T>
class SlotRows {
 public:
  using A = Acc<T>;

  Index items() const { return s_.N * blocks_ * blocks_of_phases(); }

 protected:
  // A block has `phases` phases of each of `cells` cells i = y + p, or fewer, so that all threads have as
  // much to do. The groups of the last `kept` taps u' are kept.
  SlotRows(const T* input, const Shape& shape, A pad_value, int threads, Index phases, Index cells,
           Index kept)
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
        blocks_(quotient_up(end_i_ - first_i_, cells)),
        kept_(kept) {
    const auto uneven = [&] { return items() < 8 * threads && items() % threads != 0; };
    while (phases_ > 1 && items() < 2 * threads) phases_ /= 2;
    while (blocks_ < end_i_ - first_i_ && (items() < 2 * threads || uneven())) ++blocks_;
    cells_i_ = quotient_up(end_i_ - first_i_, blocks_);
    weights_along_u(s_, ux_.slots() + 4, of_lower_, of_upper_);
  }

  // Sets the block of an item.
  void enter(Index item) {
    if (bins_.empty()) {
      bins_.resize(s_.U * rows() * sums_);
      groups_.assign((kept_ + 2) * step(), sum_of_pads_);
      outside_.assign(s_.W, A(T(pad_)));
      if (!std::is_same_v<T, A>) converted_.resize(3 * s_.W);
    }
    const Index block = item / blocks_of_phases() % blocks_, cells = end_i_ - first_i_;
    n_ = item / blocks_of_phases() / blocks_;
    first_phase_ = item % blocks_of_phases() * phases_;
    end_phase_ = std::min(first_phase_ + phases_, s_.lam);
    first_ = first_i_ + block * cells / blocks_;
    end_ = first_i_ + (block + 1) * cells / blocks_;
    low_ = block == 0 ? 0 : first_;
    high_ = block + 1 == blocks_ ? cells_y_ + s_.V : end_;
    low_p_ = std::max<Index>(low_ - cells_y_ + 1, 0);
    high_p_ = std::min(high_ - 1, s_.V);
    start_p_ = std::max<Index>(low_p_ - 1, 0);
  }

  // Steps 1 and 2 for the tap u' and all rows of the block.
  void read_bins(Index p, Index u, bool is_first) {
    const T* const plane = input_ + ((n_ * s_.V + p) * s_.U + u) * s_.H * s_.W;
    for (Index i = first_; i < end_; ++i)
      for (Index phase = first_phase_; phase < end_phase_; ++phase) {
        if (!reads(i, phase)) continue;
        if (p == s_.V) {
          read_padding(i, phase, u);
        } else if (vy_.half_cell() && phase + 1 < end_phase_ && reads(i, phase + 1)) {
          read_rows<2>(plane, i, phase, u, is_first);
          ++phase;
        } else {
          read_rows<1>(plane, i, phase, u, is_first);
        }
      }
  }

  // Whether a slot of the block reads more than padding.
  bool reads(Index i, Index phase) const {
    const Index row = vy_.row_of_slot(s_.lam * i + phase);
    return first_ <= i && i < end_ && row >= -vy_.half_cell() && row < s_.H;
  }

  // The row of a slot in the block.
  Index place(Index i, Index phase) const { return (phase - first_phase_) * cells_i_ + i - first_; }

  // Row k of the tap u' = -1..U; the first and the last hold the pad.
  A* group(Index u, Index k) {
    const Index set = u < 0 ? 0 : u == s_.U ? kept_ + 1 : 1 + u % kept_;
    return groups_.data() + set * step() + k * ux_.slots();
  }

  // From a row to the same row of the next tap u', where all are kept.
  Index step() const { return rows() * ux_.slots(); }

  Shape s_;
  Axis vy_, ux_;
  Index cells_y_, cells_x_;
  A pad_, sum_of_pads_;
  std::vector<A> of_lower_, of_upper_;  // weights along u per slot

  Index n_, first_phase_, end_phase_, first_, end_;  // of the block
  Index low_, high_;  // cells i whose outputs are its own: those beside it, which read padding, too
  // The groups p that have outputs: some y = i - p is inside. The one before them fills the bins.
  Index start_p_, low_p_, high_p_;

 private:
  template <int COUNT>
  void read_rows(const T* plane, Index i, Index phase, Index u, bool is_first) {
    const Index half = vy_.half_cell(), row = vy_.row_of_slot(s_.lam * i + phase);
    Rows<A, COUNT> rows;
    for (int k = 0; k < COUNT + 1; ++k) {
      rows.input[k] = rows.ahead[k] = outside_.data();
      if (k >= COUNT + half || !inside(row + k, s_.H)) continue;
      const T *const from = plane + (row + k) * s_.W, *const of_next_u = from + s_.H * s_.W;
      if constexpr (std::is_same_v<T, A>) {
        rows.input[k] = from;
        // The first row is the last one of the slot before.
        if (k > 0 || phase == first_phase_) rows.ahead[k] = of_next_u;
      } else {
        rows.input[k] = converted(from, k);
        prefetch(of_next_u, s_.W);
      }
    }
    for (int k = 0; k < COUNT; ++k) {
      rows.blend[k] = blend_at<A>(phase + k, s_.lam);
      rows.bin[k] = bin(u, place(i, phase + k));
      rows.group[k] = group(u, place(i, phase + k)) + margin_;
    }
    const auto run = [&](auto first, auto two_rows, auto two_cells) {
      take_bins<first, two_rows, two_cells>(rows, s_.W, pad_);
    };
    with_constants(run, is_first, half == 1, ux_.half_cell() == 1);
  }

  // A row in the type of the sums.
  const A* converted(const T* from, int k) {
    A* __restrict const to = converted_.data() + k * s_.W;
    for (Index x = 0; x < s_.W; ++x) to[x] = A(from[x]);
    return to;
  }

  // Bin p = V is outside.
  void read_padding(Index i, Index phase, Index u) {
    const A* const from = bin(u, place(i, phase));
    A* const to = group(u, place(i, phase)) + margin_;
    const Blend<A> blend = blend_at<A>(phase, s_.lam);
    for (Index x = 0; x < sums_; ++x) to[x] = blend(from[x], sum_of_pads_);
  }

  A* bin(Index u, Index k) { return bins_.data() + (u * rows() + k) * sums_; }
  Index rows() const { return phases_ * cells_i_; }
  Index blocks_of_phases() const { return quotient_up(s_.lam, phases_); }

  const T* input_;
  Index sums_, margin_;            // sums of a bin's row; the slot of the first
  Index first_i_, end_i_;          // cells i that read the input
  Index phases_, blocks_, kept_;
  Index cells_i_;                  // of a block at most
  std::vector<A> bins_, groups_;   // (U, rows, sums); (kept + 2, rows, slots)
  std::vector<A> outside_, converted_;
};

}  // namespace swap_align2nat
