// The dense forward pass on the CPU. An item is a block of slots of the pair (v, y): some cells
// i = y + p at some phases (core.h). Its lines, one per slot, are worked off together, bin
// after bin along p and u':
//
//   1. sum     one bin (v', u'), its taps along y and x: a line in the order of the input
//   2. group   the bins v' = p-1 and p, blended, and dealt out to the phases of the pair (u, x)
//   3. output  the groups u' = q-1 and q, blended: cells beside each other, as in the output
//
// Every pair of taps is summed, not halved: the weights of step 3 see to it. Where an axis has
// one tap only (lam*V odd), it is counted twice.
#pragma once

#include <array>
#include <vector>

#include "tools.h"

namespace swap_align2nat {

// Four numbers of each of eight rows become eight of each of four columns.
template <class A>
inline void turn(const A* from, Index step, A* to, Index pitch) {
#if defined(__AVX__)
  if constexpr (std::is_same_v<A, float>) {
    const auto two = [&](Index row) {  // row and row + 4
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + row * step)),
                                  _mm_loadu_ps(from + (row + 4) * step), 1);
    };
    const __m256 a = two(0), b = two(1), c = two(2), d = two(3);
    const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
    const __m256 ab_high = _mm256_unpackhi_ps(a, b), cd_high = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps(to, _mm256_shuffle_ps(ab, cd, 0x44));
    _mm256_storeu_ps(to + pitch, _mm256_shuffle_ps(ab, cd, 0xee));
    _mm256_storeu_ps(to + 2 * pitch, _mm256_shuffle_ps(ab_high, cd_high, 0x44));
    _mm256_storeu_ps(to + 3 * pitch, _mm256_shuffle_ps(ab_high, cd_high, 0xee));
    return;
  }
#endif
  for (Index row = 0; row < 8; ++row)
    for (Index column = 0; column < 4; ++column)
      to[column * pitch + row] = from[row * step + column];
}

template <class T>
class DenseForward {
 public:
  using A = Acc<T>;

  DenseForward(const T* input, const Shape& shape, A pad_value, int threads, T* out)
      : s_(shape),
        vy_(shape.vy()),
        ux_(shape.ux()),
        cells_y_(vy_.coarse_cells()),
        cells_x_(ux_.coarse_cells()),
        pitch_(cells_x_ + s_.U),
        input_(input),
        out_(out),
        pad_(pad_value),
        sums_(s_.W + ux_.half_cell()),
        first_slot_(ux_.slot_of_row(-ux_.half_cell())),
        first_j_(quotient(first_slot_, s_.lam)),
        end_j_(quotient_up(first_slot_ + sums_, s_.lam)),
        reading_i_(quotient(vy_.slot_of_row(-vy_.half_cell()), s_.lam)),
        end_reading_i_(quotient_up(vy_.slot_of_row(s_.H), s_.lam)),
        phases_(std::min<Index>(s_.lam, 4)),
        cells_(8),
        past_caches_(shape.output_size() * Index(sizeof(T)) > LARGE_BYTES),
        along_u_(slot_blends<A>(s_.lam, s_.lam, A(1) / 4)) {
    while (cells_ > 1 && items() < 4 * threads) cells_ /= 2;
  }

  Index items() const { return s_.N * blocks() * blocks_of_phases(); }

  void operator()(Index item) {
    enter(item);
    // The groups p that have outputs: some y = i - p is inside. The one before them fills the
    // bins.
    const Index low_p = std::max<Index>(low_i_ - cells_y_ + 1, 0),
                high_p = std::min(high_i_ - 1, s_.V);
    for (Index p = std::max<Index>(low_p - 1, 0); p <= high_p; ++p)
      for (Index q = 0; q <= s_.U; ++q) {
        if (q < s_.U) read_bin(p, q);
        for (Index phase = first_phase_; phase < end_phase_ && p >= low_p; ++phase)
          write(p, q, phase);
      }
  }

 private:
  // Sets the block of an item; no bin is read yet.
  void enter(Index item) {
    const Index block = item / blocks_of_phases() % blocks();
    n_ = item / blocks_of_phases() / blocks();
    first_phase_ = item % blocks_of_phases() * phases_;
    end_phase_ = std::min(first_phase_ + phases_, s_.lam);
    first_i_ = reading_i_ + block * cells_;
    end_i_ = std::min(first_i_ + cells_, end_reading_i_);
    low_i_ = block == 0 ? 0 : first_i_;
    high_i_ = block + 1 == blocks() ? cells_y_ + s_.V : end_i_;
    padded_ = {};
    pad_row_.assign(s_.W, T(pad_));
    slots_.assign((end_j_ - first_j_) * s_.lam, 4 * pad_);
    tile_.resize(s_.lam * std::min(cells_y_, high_i_ - low_i_) * cells_x_);
    bins_.assign(s_.U * lines() * sums_, 4 * pad_);
    groups_.resize(3 * lines() * s_.lam * pitch_, 4 * pad_);
  }

  // Steps 1 and 2 for the tap u' of all lines.
  void read_bin(Index p, Index u) {
    const Index plane = s_.H * s_.W;
    const T* const bin = input_ + ((n_ * s_.V + p) * s_.U + u) * plane;
    for (Index i = first_i_; i < end_i_; ++i)
      for (Index phase = first_phase_; phase < end_phase_; ++phase) {
        if (!reads(i, phase)) continue;
        const Index y = row(i, phase), below = y + vy_.half_cell();
        const T* const a = p < s_.V && inside(y, s_.H) ? bin + y * s_.W : pad_row_.data();
        const T* const b =
            p < s_.V && inside(below, s_.H) ? bin + below * s_.W : pad_row_.data();
        A* const sums = bins_.data() + (u * lines() + line(i, phase)) * sums_;
        // Of the next tap u': the row `a` of a slot is the row `b` of the slot before.
        const T* const ahead[2] = {(phase == first_phase_ ? a : b) + plane, b + plane};
        sum_taps(a, b, ahead, blend_at<A>(phase, s_.lam), sums);
        with_constant_lam<1, 2, 4, 8, 16, 32>(
            s_.lam, [&](auto lam) { deal<lam>(group(u, i, phase) + first_j_); });
      }
  }

  // `bin` held bin p-1 and holds bin p afterwards. With two taps along x there is one sum more
  // than cells.
  SWAP_NOINLINE void sum_taps(const T* __restrict a, const T* __restrict b,
                              const T* const* ahead, Blend<A> along_v, A* __restrict bin) {
    A* __restrict const slots = slots_.data() + first_slot_ - s_.lam * first_j_;
    const Index half = ux_.half_cell();
    const auto take = [=](Index k, A sum) {
      slots[k] = along_v(bin[k], sum);
      bin[k] = sum;
    };
    if (half) {
      take(0, 2 * pad_ + (A(a[0]) + A(b[0])));
      take(s_.W, (A(a[s_.W - 1]) + A(b[s_.W - 1])) + 2 * pad_);
    }
    const auto take_all = [=](Index from, Index to) {
      SWAP_INDEPENDENT
      for (Index k = from; k < to; ++k)
        take(k, (A(a[k - half]) + A(b[k - half])) + (A(a[k]) + A(b[k])));
    };
    Index k = half;
    for (; k + LINE <= s_.W; k += LINE) {
      prefetch(ahead[0] + k), prefetch(ahead[1] + k);
      take_all(k, k + LINE);
    }
    take_all(k, s_.W);
  }

  // From the order of slots to (phase, cell j).
  template <Index LAM>
  void deal(A* __restrict group) const {
    const Index lam = LAM ? LAM : s_.lam, cells = end_j_ - first_j_;
    const A* const from = slots_.data();
    if constexpr (LAM % 4 == 0 && LAM > 0)
      if (cells >= 8) {
        for (Index j = 0; j < cells; j += 8) {
          const Index at = std::min(j, cells - 8);
          for (Index phase = 0; phase < lam; phase += 4)
            turn(from + lam * at + phase, lam, group + phase * pitch_ + at, pitch_);
        }
        return;
      }
    for (Index phase = 0; phase < lam; ++phase)
      for (Index j = 0; j < cells; ++j) group[phase * pitch_ + j] = from[lam * j + phase];
  }

  // Step 3 for the outputs of the groups p and q at one phase of the pair (v, y).
  void write(Index p, Index q, Index phase_v) {
    const Index v = s_.lam * p + phase_v - vy_.lead(), area = cells_y_ * cells_x_;
    const Index low = std::max(low_i_, p), high = std::min(high_i_, p + cells_y_);
    if (!inside(v, vy_.fine_bins()) || low >= high) return;
    const Index first = q == 0 ? ux_.lead() : 0, end = q == s_.U ? ux_.lead() : s_.lam;
    const Index run = (high - low) * cells_x_;
    T* const plane =
        out_ + ((n_ * vy_.fine_bins() + v) * ux_.fine_bins() + s_.lam * q - ux_.lead()) * area;
    for (Index phase = first; phase < end && past_caches_ && run < area; ++phase) {
      T* const to = plane + phase * area + (low - p) * cells_x_;
      // Lines that are not written whole.
      prefetch<TO_WRITE>(to), prefetch<TO_WRITE>(to + run - 1);
    }
    Index from = low, to = high;  // the cells that read the input; beside them is padding
    while (from < to && !reads(from, phase_v)) ++from;
    while (from < to && !reads(to - 1, phase_v)) --to;
    // The tile keeps its padding from call to call, as long as it lies in the same rows.
    if (const std::array<Index, 4> rows{low, from, to, high}; rows != padded_) {
      for (A* cells = tile_.data(); cells < tile_.data() + s_.lam * run; cells += run) {
        std::fill(cells, cells + (from - low) * cells_x_, pad_);
        std::fill(cells + (to - low) * cells_x_, cells + run, pad_);
      }
      padded_ = rows;
    }
    for (Index phase = first; phase < end; ++phase) {
      const Blend<A> blend = along_u_[phase];
      for (Index i = from; i < to; ++i) {
        A* __restrict const cells = tile_.data() + phase * run + (i - low) * cells_x_;
        const A* __restrict const lower = group(q - 1, i, phase_v) + phase * pitch_ + q;
        const A* __restrict const upper = group(q, i, phase_v) + phase * pitch_ + q;
        SWAP_INDEPENDENT
        for (Index x = 0; x < cells_x_; ++x) cells[x] = blend(lower[x], upper[x]);
      }
    }
    if (run == area)
      put(tile_.data() + first * run, (end - first) * run, plane + first * area, past_caches_);
    else
      for (Index phase = first; phase < end; ++phase)
        put(tile_.data() + phase * run, run, plane + phase * area + (low - p) * cells_x_,
            past_caches_);
  }

  Index row(Index i, Index phase) const { return vy_.row_of_slot(s_.lam * i + phase); }

  // Whether a slot reads more than padding.
  bool reads(Index i, Index phase) const {
    return first_i_ <= i && i < end_i_ && row(i, phase) >= -vy_.half_cell() &&
           row(i, phase) < s_.H;
  }

  Index line(Index i, Index phase) const {
    return (i - first_i_) * phases_ + phase - first_phase_;
  }
  Index lines() const { return cells_ * phases_; }

  // Of the tap u' = -1..U: two are kept, those outside hold the pad.
  A* group(Index u, Index i, Index phase) {
    const Index kept = inside(u, s_.U) ? u % 2 : 2;
    return groups_.data() + (kept * lines() + line(i, phase)) * s_.lam * pitch_;
  }

  Index blocks() const { return quotient_up(end_reading_i_ - reading_i_, cells_); }
  Index blocks_of_phases() const { return quotient_up(s_.lam, phases_); }

  static constexpr Index LINE = 64 / sizeof(A);
  // Results larger than this will not be found in a cache by who reads them.
  static constexpr Index LARGE_BYTES = Index(8) << 20;

  Shape s_;
  Axis vy_, ux_;
  Index cells_y_, cells_x_, pitch_;
  const T* input_;
  T* out_;
  A pad_;
  Index sums_;                       // of a line
  Index first_slot_;                 // of the first sum
  Index first_j_, end_j_;            // cells j = x + q that the sums touch
  Index reading_i_, end_reading_i_;  // cells i that read the input
  Index phases_, cells_;             // of a block
  bool past_caches_;
  std::vector<Blend<A>> along_u_;  // (lam)

  Index n_, first_i_, end_i_, low_i_, high_i_, first_phase_, end_phase_;  // the block
  std::vector<T> pad_row_;                                                // (W)
  std::vector<A> slots_;          // (cells j, lam), the ends hold the pad
  std::vector<A> bins_, groups_;  // (U, lines, sums); (3, lines, lam, pitch)
  std::array<Index, 4> padded_;   // rows of the tile: padding, sums, padding, end
  std::vector<A> tile_;           // (cells y, cells x)
};

}  // namespace swap_align2nat
