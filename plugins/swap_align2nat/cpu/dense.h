// The dense forward pass on the CPU: step 3 of host_slots.h by tiles of outputs, in which phases become bins
// u and cells stay in order; and the simpler pass for lam = 1.
#pragma once

#include <array>
#include <vector>

#include "pack.h"
#include "slots.h"

namespace swap_align2nat {

template <class T>
class DenseForward : public SlotRows<T> {
  using Base = SlotRows<T>;

 public:
  using A = Acc<T>;

  DenseForward(const T* input, const Shape& shape, A pad_value, int threads, T* out)
      : Base(input, shape, pad_value, threads, 4, 8, 2),
        out_(out),
        past_caches_(is_large<T>(shape.output_size())) {}

  void operator()(Index item) {
    Base::enter(item);
    tile_.resize(s_.lam * std::min(cells_y_, high_ - low_) * cells_x_);
    padded_ = {};
    for (Index p = start_p_; p <= high_p_; ++p)
      for (Index q = 0; q <= s_.U; ++q) {
        if (q < s_.U) Base::read_bins(p, q, p == start_p_);
        for (Index phase = first_phase_; phase < end_phase_ && p >= low_p_; ++phase) write(p, q, phase);
      }
  }

 private:
  using Base::s_, Base::vy_, Base::ux_, Base::cells_y_, Base::cells_x_, Base::pad_, Base::of_lower_,
      Base::of_upper_, Base::n_, Base::first_phase_, Base::end_phase_, Base::first_, Base::end_, Base::low_,
      Base::high_, Base::start_p_, Base::low_p_, Base::high_p_;

  // Step 3 for the outputs (v, u, y, x) of the groups p and q at one phase of the pair (v, y).
  void write(Index p, Index q, Index phase) {
    const Index v = s_.lam * p + phase - vy_.lead();
    const Index low = std::clamp<Index>(low_ - p, 0, cells_y_);
    const Index high = std::clamp<Index>(high_ - p, 0, cells_y_);
    if (!inside(v, vy_.fine_bins()) || low == high) return;
    Index from = std::clamp(first_ - p, low, high), to = std::clamp(end_ - p, low, high);
    while (from < to && !Base::reads(from + p, phase)) ++from;
    while (from < to && !Base::reads(to - 1 + p, phase)) --to;
    const Index first = q == 0 ? ux_.lead() : 0, end = q == s_.U ? ux_.lead() : s_.lam;
    const Index run = (high - low) * cells_x_;
    if (const std::array<Index, 4> rows{low, from, to, high}; rows != padded_) {  // else the pad is there
      for (Index u = 0; u < s_.lam; ++u) {
        std::fill_n(tile_.data() + u * run, (from - low) * cells_x_, pad_);
        std::fill_n(tile_.data() + u * run + (to - low) * cells_x_, (high - to) * cells_x_, pad_);
      }
      padded_ = rows;
    }
    T* plane = out_ + (n_ * vy_.fine_bins() + v) * ux_.fine_bins() * cells_y_ * cells_x_;
    plane += (s_.lam * q - ux_.lead()) * cells_y_ * cells_x_;
    const bool whole = run == cells_y_ * cells_x_;
    for (Index u = first; u < end && past_caches_ && !whole; ++u)
      prefetch_ends_to_write(plane + (u * cells_y_ + low) * cells_x_, run);
    for (Index y = from; y < to; ++y) {
      const Index k = Base::place(y + p, phase);
      const A* const lower = Base::group(q - 1, q == 0 ? 0 : k) + s_.lam * q;
      const A* const upper = Base::group(q, q == s_.U ? 0 : k) + s_.lam * q;
      A* const cells = tile_.data() + (y - low) * cells_x_;
      with_constant_lam<1, 2, 4, 8, 16, 32>(
          s_.lam, [&](auto lam) { turn_row<lam>(lower, upper, first, end, cells, run); });
    }
    if (whole)
      put(tile_.data() + first * run, (end - first) * run, plane + first * run, past_caches_);
    else
      for (Index u = first; u < end; ++u)
        put(tile_.data() + u * run, run, plane + (u * cells_y_ + low) * cells_x_, past_caches_);
  }

  // The cells of one row for the phases `first` to `end`.
  template <Index LAM>
  SWAP_APART void turn_row(const A* lower, const A* upper, Index first, Index end, A* to, Index run) const {
    const Index lam = LAM ? LAM : s_.lam;
    constexpr int wide = 32 / sizeof(A);
    if (lam % 2 == 0 && cells_x_ >= wide) {
      Index x = 0;
      for (; x + wide <= cells_x_; x += wide) turn_cells<LAM, wide>(lower, upper, first, end, to, run, x);
      if (cells_x_ - x > 4)
        turn_cells<LAM, wide>(lower, upper, first, end, to, run, cells_x_ - wide);
      else if (x < cells_x_)
        turn_cells<LAM, 4>(lower, upper, first, end, to, run, cells_x_ - 4);
    } else {
      for (Index phase = first; phase < end; ++phase) {
        const Blend<A> blend{of_lower_[phase], of_upper_[phase]};
        for (Index x = 0; x < cells_x_; ++x)
          to[phase * run + x] = blend(lower[lam * x + phase], upper[lam * x + phase]);
      }
    }
  }

  // WIDTH cells of one row; an even lam, so no weight is zero.
  template <Index LAM, int WIDTH>
  void turn_cells(const A* lower, const A* upper, Index first, Index end, A* to, Index run, Index x) const {
    using P = Pack<A, WIDTH>;
    const Index lam = LAM ? LAM : s_.lam;
    lower += lam * x, upper += lam * x, to += x;
    const A *of_lower = of_lower_.data(), *of_upper = of_upper_.data();
    const auto blended = [&](Index slot, Index half, P low, P up) {
      return low * load<P>(lower + slot, half) + up * load<P>(upper + slot, half);
    };
    if (lam == 2) {  // a pack holds both phases of two cells, twice
      const P low = load<P>(of_lower, 0), up = load<P>(of_upper, 0);
      const P a = blended(0, WIDTH, low, up), b = blended(4, WIDTH, low, up);
      if (first == 0) even(a, b).store(to);
      if (end == 2) odd(a, b).store(to + run);
    } else {  // four phases; what is written outside `first`..`end` is not put
      for (Index from = first / 4 * 4; from < end; from += 4) {
        const Index phase = std::min(from, lam - 4);
        const P low = load<P>(of_lower + phase, 0), up = load<P>(of_upper + phase, 0);
        const auto cell = [&](Index k) { return blended(phase + k * lam, 4 * lam, low, up); };
        P a = cell(0), b = cell(1), c = cell(2), d = cell(3);
        turn(a, b, c, d);
        A* const at = to + phase * run;
        a.store(at);
        b.store(at + run);
        c.store(at + 2 * run);
        d.store(at + 3 * run);
      }
    }
  }

  T* out_;
  bool past_caches_;
  std::vector<A> tile_;          // (lam, cells of some y and all x)
  std::array<Index, 4> padded_;  // the rows y of the tile: some of padding, some of sums, some of padding
};

// lam = 1, V and U odd: every output plane is the input plane of the same bins, shifted.
template <class T>
class ShiftForward {
 public:
  ShiftForward(const T* input, const Shape& shape, Acc<T> pad_value, T* out)
      : s_(shape),
        input_(input),
        out_(out),
        past_caches_(is_large<T>(shape.output_size())),
        pad_(pad_value) {}

  static bool fits(const Shape& s) { return s.lam == 1 && s.V % 2 && s.U % 2; }

  Index items() const { return s_.N * s_.V * s_.U; }

  void operator()(Index item) {
    const Index down = item / s_.U % s_.V - s_.V / 2, right = item % s_.U - s_.U / 2;
    const Index low = std::clamp<Index>(-right, 0, s_.W), high = std::clamp<Index>(s_.W - right, low, s_.W);
    const T* const plane = input_ + item * s_.H * s_.W;
    row_.assign(s_.W, T(pad_));
    for (Index y = 0; y < s_.H; ++y) {
      T* const to = out_ + (item * s_.H + y) * s_.W;
      if (!inside(y + down, s_.H)) {
        std::fill_n(to, s_.W, T(pad_));
        continue;
      }
      const T* const from = plane + (y + down) * s_.W + right;
      std::copy(from + low, from + high, row_.begin() + low);
      put(row_.data(), s_.W, to, past_caches_);
    }
  }

 private:
  Shape s_;
  const T* input_;
  T* out_;
  bool past_caches_;
  Acc<T> pad_;
  std::vector<T> row_;
};

}  // namespace swap_align2nat
