// The forward pass for chosen windows on the CPU: the three steps of host_slots.h for what the windows read.
#pragma once

#include <new>
#include <utility>
#include <vector>

#include "dense.h"
#include "pack.h"
#include "slots.h"

namespace swap_align2nat {

// A window at the cell x of its grid row; k is its position in the index.
struct Window {
  Index x, k;

  bool operator<(const Window& other) const { return x != other.x ? x < other.x : k < other.k; }
};

// Windows of one grid row (n, y): a stretch of `order`.
struct GridRow {
  Index n, y, first, end;
};

// The windows by grid row, in a row by x and then by their position in the index.
class SortedWindows {
 public:
  std::vector<Window> order;
  std::vector<GridRow> rows;  // those that have windows
  bool all_inside;            // else nothing is sorted

  SortedWindows(const int64_t* index, Index count, const Shape& s, int threads)
      : cells_y_(s.vy().coarse_cells()),
        place_(s.N * cells_y_ + 1) {
    const Index parts = count < SHARED ? 1 : threads;
    const Index grid_rows = s.N * cells_y_, cells_x = s.ux().coarse_cells();
    const auto for_part = [&](Index part, auto body) {
      const Index first = part * count / parts, end = (part + 1) * count / parts;
      for (Index k = first; k < end; ++k) body(index[3 * k], index[3 * k + 1], index[3 * k + 2], k);
    };
    std::vector<Index> next(parts * grid_rows);  // of each part and row: how many windows, then where
    std::vector<char> inside_of(parts);
    for_all(parts, threads, [&](Index part) {
      bool all = true;
      for_part(part, [&](Index n, Index y, Index x, Index) {
        const bool is_inside = inside(n, s.N) & inside(y, cells_y_) & inside(x, cells_x);
        ++next[part * grid_rows + (is_inside ? n * cells_y_ + y : 0)];
        all &= is_inside;
      });
      inside_of[part] = all;
    });
    all_inside = std::all_of(inside_of.begin(), inside_of.end(), [](char all) { return all; });
    if (!all_inside) return;
    for (Index r = 0; r < grid_rows; ++r) {
      Index end = place_[r];
      for (Index part = 0; part < parts; ++part)
        end += std::exchange(next[part * grid_rows + r], end);
      if (place_[r] < end) rows.push_back({r / cells_y_, r % cells_y_, place_[r], end});
      place_[r + 1] = end;
    }
    order.resize(count);
    for_all(parts, threads, [&](Index part) {
      Index* const to = next.data() + part * grid_rows;
      for_part(part, [&](Index n, Index y, Index x, Index k) { order[to[n * cells_y_ + y]++] = {x, k}; });
    });
    const bool few = count < 8 * Index(rows.size());
    const bool complete = for_all(
        rows.size(), few ? 1 : threads,
        [&, sorted = std::vector<Window>(), first = std::vector<Index>()](Index r) mutable {
          Window* const windows = order.data() + rows[r].first;
          const Index length = rows[r].end - rows[r].first;
          if (few) return std::sort(windows, windows + length);
          first.assign(cells_x + 1, 0);
          sorted.resize(length);
          for (Index i = 0; i < length; ++i) ++first[windows[i].x + 1];
          for (Index x = 0; x < cells_x; ++x) first[x + 1] += first[x];
          for (Index i = 0; i < length; ++i) sorted[first[windows[i].x]++] = windows[i];
          std::copy(sorted.begin(), sorted.end(), windows);
        });
    if (!complete) throw std::bad_alloc();
  }

  GridRow find(Index n, Index y) const {
    const Index r = n * cells_y_ + y;
    return {n, y, place_[r], place_[r + 1]};
  }

 private:
  static constexpr Index SHARED = 4096;  // from so many windows on, more than one thread pays

  Index cells_y_;
  std::vector<Index> place_;  // of the first window of each grid row
};

// Steps 1 and 2 at once: sums[x] for the cells x, whose taps are all inside. COUNT: the count if it is known.
template <bool TWO_ROWS, bool TWO_CELLS, Index COUNT, class A, class T>
inline void sum_taps(const T* a, const T* b, const T* c, const T* d, Blend<A> blend, Index count,
                     A* __restrict sums) {
  if (COUNT) count = COUNT;
  const A lower = blend.lower, upper = blend.upper;
  const auto column = [&](Index x) {
    return TWO_ROWS ? lower * (A(a[x]) + A(b[x])) + upper * (A(c[x]) + A(d[x]))
                    : lower * A(a[x]) + upper * A(c[x]);
  };
  for (Index x = 0; x < count; ++x) sums[x] = TWO_CELLS ? column(x) + column(x + 1) : column(x);
}

template <Index COUNT, class A, class T>
inline void blend_phases(const A* __restrict of_lower, const A* __restrict lower,
                         const A* __restrict of_upper, const A* __restrict upper, T* __restrict to) {
  for (Index phase = 0; phase < COUNT; ++phase)
    to[phase] = T(of_lower[phase] * lower[phase] + of_upper[phase] * upper[phase]);
}

// Step 3 for the row v of a window: group q blends the phases at `lower` and `upper`, each q * step further.
template <Index LAM, class A, class T>
inline void write_window(Index bins, Index lam, const A* __restrict of_lower, const A* __restrict of_upper,
                         const A* __restrict lower, const A* __restrict upper, Index step,
                         T* __restrict to) {
  if constexpr (LAM > 0) {  // even: no weight is zero
    constexpr Index half = LAM / 2;
    blend_phases<half>(of_lower + half, lower + half, of_upper + half, upper + half, to);
    for (Index q = 1; q < bins; ++q)
      blend_phases<LAM>(of_lower, lower + q * step, of_upper, upper + q * step, to + LAM * q - half);
    blend_phases<half>(of_lower, lower + bins * step, of_upper, upper + bins * step, to + LAM * bins - half);
  } else {
    for_groups(bins, lam, [&](Index q, Index first, Index end) {
      const A *__restrict below = lower + q * step, *__restrict above = upper + q * step;
      T* __restrict group = to + lam * q - (lam + 1) / 2;
      if (first < end && of_upper[first] == 0) group[first] = T(of_lower[first] * below[first]), ++first;
      for (Index phase = first; phase < end; ++phase)
        group[phase] = T(of_lower[phase] * below[phase] + of_upper[phase] * above[phase]);
    });
  }
}

// Cells x of a row of sums; all taps of those from `low` to `high`, counted from the first, are inside.
struct Stretch {
  Index first, count, low, high;
};

// Few windows, each by itself. One item are the windows of a grid row and their outputs v of some groups p.
template <class T>
class FewWindows {
 public:
  using A = Acc<T>;

  FewWindows(const T* input, const Shape& shape, A pad_value, int threads, const SortedWindows& windows,
             T* out)
      : s_(shape),
        vy_(shape.vy()),
        ux_(shape.ux()),
        half_y_(vy_.half_cell()),
        half_x_(ux_.half_cell()),
        input_(input),
        windows_(&windows),
        out_(out),
        pad_(pad_value),
        sum_of_pads_(pad_value * A((1 + half_y_) * (1 + half_x_))),
        parts_(parts(8 * threads, windows.rows.size())) {}

  Index items() const { return Index(windows_->rows.size()) * parts_; }

  void operator()(Index item) {
    if (outside_.empty()) make_scratch();
    row_ = windows_->rows[item / parts_];
    const Index part = item % parts_, groups = s_.V + 1;
    const Index first_p = part * groups / parts_, end_p = (part + 1) * groups / parts_;
    with_constant_lam<2, 4, 8, 16, 32>(s_.lam, [&](auto lam) {
      if constexpr (lam != 0)
        write_windows<lam, true, true>(first_p, end_p);
      else
        with_constants(
            [&](auto two_rows, auto two_cells) { write_windows<0, two_rows, two_cells>(first_p, end_p); },
            half_y_ == 1, half_x_ == 1);
    });
  }

 private:
  // How many items a grid row makes, so that there are at least so many in all.
  Index parts(Index items, Index rows) const {
    return rows == 0 ? 1 : std::clamp<Index>(quotient_up(items, rows), 1, s_.V + 1);
  }

  void make_scratch() {
    weights_along_u(s_, s_.lam, of_lower_, of_upper_);
    outside_.assign(s_.W + 1, T(pad_));
    taps_.resize((s_.U + 2) * 2 * s_.lam);
    stretches_.resize(s_.U);
  }

  // Finds the input rows that a slot of the pair (v, y) reads at u' = 0; false: all is padding.
  bool find_rows(Index p, Index phase) {
    const Index row = vy_.row_of_slot(s_.lam * (row_.y + p) + phase);
    if (row < -half_y_ || row >= s_.H) return false;
    blend_ = blend_at<A>(phase, s_.lam);
    for (int k = 0; k < 4; ++k) {
      const Index v = p - 1 + k / 2, y = row + (k % 2) * half_y_;
      const bool reads = inside(v, s_.V) && inside(y, s_.H) && (k < 2 || blend_.upper != 0);
      from_[k] = reads ? input_ + ((row_.n * s_.V + v) * s_.U * s_.H + y) * s_.W : outside_.data();
      step_[k] = reads ? s_.H * s_.W : 0;
    }
    return true;
  }

  // The sums of a stretch of tap u'; to[0] is its first cell. Cells outside the input stay what they are.
  template <bool TWO_ROWS, bool TWO_CELLS>
  void sum_stretch(Index u, const Stretch& cells, A* to) const {
    const T *a = from_[0] + u * step_[0], *b = from_[1] + u * step_[1];
    const T *c = from_[2] + u * step_[2], *d = from_[3] + u * step_[3];
    const Index x = cells.first + cells.low;
    if (const Index count = cells.high - cells.low) {
      prefetch(b + s_.W + x, count + TWO_CELLS);  // of the next phase
      prefetch(d + s_.W + x, count + TWO_CELLS);
      sum_taps<TWO_ROWS, TWO_CELLS, 0>(a + x, b + x, c + x, d + x, blend_, count, to + cells.low);
    }
    if (!TWO_CELLS) return;
    const auto edge = [&](Index place, Index cell) {  // one of its two cells is outside
      if (!inside(place, cells.count)) return;
      sum_taps<TWO_ROWS, false, 1>(a + cell, b + cell, c + cell, d + cell, blend_, 1, to + place);
      to[place] += pad_ * A(1 + TWO_ROWS);
    };
    edge(-1 - cells.first, 0);
    edge(s_.W - 1 - cells.first, s_.W - 1);
  }

  Stretch stretch(Index first, Index count) const {
    const Index low = std::clamp<Index>(-first, 0, count);
    return {first, count, low, std::clamp<Index>(s_.W - half_x_ - first, low, count)};
  }

  T* output(Index i, Index v) const {
    return out_ + (windows_->order[i].k * vy_.fine_bins() + v) * ux_.fine_bins();
  }

  // A window needs 2 * lam sums of every tap u': for the groups q = u' and q = u' + 1.
  template <Index LAM, bool TWO_ROWS, bool TWO_CELLS>
  void write_windows(Index first_p, Index end_p) {
    const Index lam = LAM ? LAM : s_.lam;
    for (Index i = row_.first; i < row_.end; ++i) {
      const Index cell = ux_.row_of_slot(lam * windows_->order[i].x);
      const bool inner = cell >= 0 && cell + lam * (s_.U + 1) <= s_.W - TWO_CELLS;
      std::fill_n(taps_.begin(), 2 * lam, sum_of_pads_);
      std::fill_n(taps_.end() - 2 * lam, 2 * lam, sum_of_pads_);
      if (!inner) {
        std::fill(taps_.begin(), taps_.end(), sum_of_pads_);
        for (Index u = 0; u < s_.U; ++u) stretches_[u] = stretch(cell + lam * u, 2 * lam);
      }
      for_phases(first_p, end_p, [&](Index p, Index phase, Index v) {
        T* const to = output(i, v);
        if (!find_rows(p, phase)) return (void)std::fill_n(to, ux_.fine_bins(), T(pad_));
        A* sums = taps_.data() + 2 * lam;
        if (inner) {
          const T *a = from_[0] + cell, *b = from_[1] + cell, *c = from_[2] + cell, *d = from_[3] + cell;
          for (Index u = 0; u < s_.U; ++u, sums += 2 * lam) {
            prefetch(b + s_.W, 2 * lam + TWO_CELLS);  // of the next phase
            prefetch(d + s_.W, 2 * lam + TWO_CELLS);
            sum_taps<TWO_ROWS, TWO_CELLS, 2 * LAM>(a, b, c, d, blend_, 2 * lam, sums);
            a += step_[0] + lam, b += step_[1] + lam, c += step_[2] + lam, d += step_[3] + lam;
          }
        } else {
          for (Index u = 0; u < s_.U; ++u, sums += 2 * lam)
            sum_stretch<TWO_ROWS, TWO_CELLS>(u, stretches_[u], sums);
        }
        write_window<LAM>(s_.U, lam, of_lower_.data(), of_upper_.data(), taps_.data() + lam,
                          taps_.data() + 2 * lam, 2 * lam, to);
      });
    }
  }

  template <class Body>
  void for_phases(Index first_p, Index end_p, Body body) const {
    for (Index p = first_p; p < end_p; ++p) {
      const Index first = p == 0 ? vy_.lead() : 0, end = p == s_.V ? vy_.lead() : s_.lam;
      for (Index phase = first; phase < end; ++phase) body(p, phase, s_.lam * p + phase - vy_.lead());
    }
  }

  Shape s_;
  Axis vy_, ux_;
  Index half_y_, half_x_;
  const T* input_;
  const SortedWindows* windows_;
  T* out_;
  A pad_, sum_of_pads_;
  Index parts_;  // of the groups p of a grid row

  GridRow row_;
  const T* from_[4];  // of the bins p-1 and p: two rows each
  Index step_[4];     // to the next tap u': 0 where the row is padding
  Blend<A> blend_;    // along v
  std::vector<T> outside_;
  std::vector<A> of_lower_, of_upper_;
  std::vector<A> taps_;  // (U+2, 2*lam)
  std::vector<Stretch> stretches_;
};

// Many windows share the sums of their slots: the walk of the dense pass, whose groups they read.
template <class T>
class ManyWindows : public SlotRows<T> {
  using Base = SlotRows<T>;

 public:
  using A = Acc<T>;

  ManyWindows(const T* input, const Shape& shape, A pad_value, int threads, const SortedWindows& windows,
              T* out)
      : Base(input, shape, pad_value, threads, 4, shape.lam < 4 ? 4 : 1, shape.U),
        windows_(&windows),
        out_(out) {}

  // Whether it takes less time than each window by itself (measured).
  static bool pays(const Shape& s, const SortedWindows& windows) {
    return 50 * Index(windows.order.size()) > Index(windows.rows.size()) * s.W;
  }

  void operator()(Index item) {
    Base::enter(item);
    for (Index p = start_p_; p <= high_p_; ++p) {
      const bool wanted = p >= low_p_ && any(p);
      if (wanted || (p < high_p_ && any(p + 1)))
        for (Index u = 0; u < s_.U; ++u) Base::read_bins(p, u, p == start_p_);
      if (!wanted) continue;
      for (Index i = std::max(low_, p); i < std::min(high_, p + cells_y_); ++i)
        with_constant_lam<2, 4, 8>(s_.lam,
                                   [&](auto lam) { write<lam>(windows_->find(n_, i - p), p, i); });
    }
  }

 private:
  using Base::s_, Base::vy_, Base::ux_, Base::cells_y_, Base::cells_x_, Base::pad_, Base::of_lower_,
      Base::of_upper_, Base::n_, Base::first_phase_, Base::end_phase_, Base::low_, Base::high_,
      Base::start_p_, Base::low_p_, Base::high_p_;

  bool any(Index p) const {
    for (Index i = std::max(low_, p); i < std::min(high_, p + cells_y_); ++i)
      if (const GridRow row = windows_->find(n_, i - p); row.first < row.end) return true;
    return false;
  }

  template <Index LAM>
  void write(const GridRow& row, Index p, Index i) {
    const Index lam = LAM ? LAM : s_.lam;
    const Index first = std::max(first_phase_, p == 0 ? vy_.lead() : 0);
    const Index end = std::min(end_phase_, p == s_.V ? vy_.lead() : lam);
    if (first >= end || row.first == row.end) return;
    const Index v = lam * p + first - vy_.lead();
    if constexpr (LAM == 2 && std::is_same_v<A, float>) {
      const bool nearly_all = 4 * (row.end - row.first) > 3 * cells_x_;
      if (nearly_all && cells_x_ >= SPAN && s_.U >= 3) return write_pairs(row, i, first, end, v);
    }
    const Index step = Base::step() + lam, fine_u = ux_.fine_bins();
    for (Index k = row.first; k < row.end; ++k) {
      const Index slot = lam * windows_->order[k].x;
      T* to = output(k, v);
      if (k + AHEAD < row.end) prefetch<TO_WRITE>(output(k + AHEAD, v), (end - first) * fine_u);
      for (Index phase = first; phase < end; ++phase, to += fine_u) {
        const Index place = Base::place(i, phase);
        if (!Base::reads(i, phase))
          std::fill_n(to, fine_u, T(pad_));
        else
          write_window<LAM>(s_.U, lam, of_lower_.data(), of_upper_.data(), Base::group(-1, place) + slot,
                            Base::group(0, place) + slot, step, to);
      }
    }
  }

  // lam = 2: the rows of SPAN cells are made together, those that no window asks for too.
  void write_pairs(const GridRow& row, Index i, Index first, Index end, Index v) {
    const Index fine_u = ux_.fine_bins(), pitch = fine_u + 2;  // the first and the last are no outputs
    pairs_.resize(2 * SPAN * pitch);
    for (Index from = 0, k = row.first; k < row.end; from += SPAN) {
      const Index left = std::min(from, cells_x_ - SPAN);
      for (Index next = k; next < row.end && windows_->order[next].x < left + SPAN; ++next)
        prefetch<TO_WRITE>(output(next, v), (end - first) * fine_u);
      for (Index phase = first; phase < end; ++phase)
        for (Index cell = 0; cell < SPAN; cell += 4)
          turn_cells(i, phase, 2 * (left + cell), pitch, pairs_.data() + (phase * SPAN + cell) * pitch);
      for (; k < row.end && windows_->order[k].x < left + SPAN; ++k) {
        T* to = output(k, v);
        for (Index phase = first; phase < end; ++phase, to += fine_u)
          put_short(pairs_.data() + (phase * SPAN + windows_->order[k].x - left) * pitch + 1, fine_u, to);
      }
    }
  }

  // Of four cells: a pair of each group q becomes to[cell][q].
  void turn_cells(Index i, Index phase, Index slot, Index pitch, A* to) {
    if (!Base::reads(i, phase)) return (void)std::fill_n(to, 4 * pitch, pad_);
    using P = Pack<A, 8>;
    const P low = load<P>(of_lower_.data(), 4), up = load<P>(of_upper_.data(), 4);
    const A* const lower = Base::group(-1, Base::place(i, phase)) + slot;
    const A* const upper = Base::group(0, Base::place(i, phase)) + slot;
    const Index step = Base::step() + 2;
    const auto blended = [&](Index q) {
      return low * load<P>(lower + q * step, 4) + up * load<P>(upper + q * step, 4);
    };
    for (Index at = 0; at <= s_.U; at += 4) {
      const Index q = std::min(at, s_.U - 3);
      P a = blended(q), b = blended(q + 1), c = blended(q + 2), d = blended(q + 3);
      turn_pairs(a, b, c, d);
      A* const pairs = to + 2 * q;
      a.store(pairs);
      b.store(pairs + pitch);
      c.store(pairs + 2 * pitch);
      d.store(pairs + 3 * pitch);
    }
  }

  T* output(Index k, Index v) const {
    return out_ + (windows_->order[k].k * vy_.fine_bins() + v) * ux_.fine_bins();
  }

  static constexpr Index SPAN = 32, AHEAD = 4;  // windows

  std::vector<A> pairs_;  // (2 phases, SPAN, fine bins u and one more at both ends)
  const SortedWindows* windows_;
  T* out_;
};

// lam = 1, V and U odd: a window is a copy of its cells. Some windows are done together, bin by bin, since
// each bin lies in memory pages of its own.
template <class T>
class ShiftWindows {
 public:
  ShiftWindows(const T* input, const Shape& shape, Acc<T> pad_value, const SortedWindows& windows, T* out)
      : s_(shape),
        size_(shape.V * shape.U),
        area_(shape.H * shape.W),
        input_(input),
        windows_(&windows),
        out_(out),
        by_row_(windows.order.size() > 8 * windows.rows.size()),
        past_caches_(is_large<T>(windows.order.size() * shape.window_size())),
        pad_(pad_value) {}

  static bool fits(const Shape& s) { return ShiftForward<T>::fits(s); }

  // A grid row that has many windows, else as many as are done together.
  Index items() const {
    return by_row_ ? windows_->rows.size() : quotient_up(windows_->rows.size(), TOGETHER);
  }

  void operator()(Index item) {
    tiles_.resize((SPAN + 7) * size_);
    row_.resize(s_.U * (SPAN + 7 + s_.U));
    const Index first = by_row_ ? item : item * TOGETHER;
    const Index end = std::min<Index>(first + (by_row_ ? 1 : TOGETHER), windows_->rows.size());
    corners_.resize(windows_->rows[end - 1].end - windows_->rows[first].first);
    Corner* corner = corners_.data();
    for (Index r = first; r < end; ++r) {
      const GridRow& row = windows_->rows[r];
      for (Index i = row.first; i < row.end; ++i, ++corner) {
        const auto [x, k] = windows_->order[i];
        *corner = {row.n, row.y - s_.V / 2, x - s_.U / 2, k};
      }
    }
    for (Index i = 0; i < Index(corners_.size()); i += TOGETHER)
      copy(corners_.data() + i, std::min<Index>(TOGETHER, corners_.size() - i));
  }

 private:
  static constexpr Index TOGETHER = 16, SPAN = 48;
  // Windows beside each other in memory are rarely written one after the other.
  static constexpr bool ALONE = sizeof(T) >= 4;

  // Where the bin (0, 0) of window k reads; it need not be inside.
  struct Corner {
    Index n, y, x, k;
  };

  void copy(const Corner* windows, Index count) {
    if (!ALONE || !past_caches_)
      for (Index i = 0; i < count; ++i) prefetch_ends_to_write(output(windows[i].k), size_);
    const Corner &first = windows[0], &last = windows[count - 1];
    const Index span = last.x - first.x + 1;
    const bool neighbours = first.n == last.n && first.y == last.y && span <= SPAN && 4 * count > span;
    if constexpr (std::is_same_v<T, Acc<T>>)
      if (neighbours && s_.U >= 4) return turn_neighbours(windows, count, span);
    copy_apart(windows, count);
  }

  void copy_apart(const Corner* windows, Index count) {
    for (Index v = 0; v < s_.V; ++v)
      for (Index i = 0; i < count; ++i) {
        const auto [n, y, x, k] = windows[i];
        T* __restrict const to = tiles_.data() + i * size_ + v * s_.U;
        const Index low = std::clamp<Index>(-x, 0, s_.U), high = std::clamp<Index>(s_.W - x, low, s_.U);
        if (low > 0 || high < s_.U || !inside(y + v, s_.H)) std::fill_n(to, s_.U, T(pad_));
        if (!inside(y + v, s_.H)) continue;
        const T* const from = input_ + ((n * s_.V + v) * s_.U * s_.H + y + v) * s_.W + x;
        for (Index u = low; u < high; ++u) {
          const T* const at = from + u * (area_ + 1);
          to[u] = *at;
          prefetch_line(at + s_.U * area_ + s_.W);  // of the next v
        }
      }
    for (Index i = 0; i < count; ++i)
      put<ALONE>(tiles_.data() + i * size_, size_, output(windows[i].k), past_caches_);
  }

  // Windows beside each other: the rows of four bins u, eight cells each, become eight windows.
  void turn_neighbours(const Corner* windows, Index count, Index span) {
    const auto [n, y, x, k] = windows[0];
    const Index cells = (span + 7) / 8 * 8, pitch = cells + s_.U;
    const bool inner = x >= 0 && x + cells + s_.U <= s_.W;
    for (Index v = 0; v < s_.V; ++v) {
      T* const tile = tiles_.data() + v * s_.U;
      if (!inside(y + v, s_.H)) {
        for (Index i = 0; i < span; ++i) std::fill_n(tile + i * size_, s_.U, T(pad_));
        continue;
      }
      const T* from = input_ + ((n * s_.V + v) * s_.U * s_.H + y + v) * s_.W + x;
      Index step = area_ + 1;
      for (Index u = 0; u < s_.U; ++u) prefetch(from + u * step + cells, cells);  // of the neighbours to come
      if (!inner) {
        const Index low = std::clamp<Index>(-x, 0, pitch), high = std::clamp<Index>(s_.W - x, low, pitch);
        std::fill(row_.begin(), row_.end(), T(pad_));
        for (Index u = 0; u < s_.U; ++u)
          std::copy(from + u * area_ + low, from + u * area_ + high, row_.begin() + u * pitch + low);
        from = row_.data(), step = pitch + 1;
      }
      for (Index at = 0; at < s_.U; at += 4) {
        const Index u = std::min(at, s_.U - 4);
        for (Index i = 0; i < cells; i += 8) turn_eight(from + u * step + i, step, tile + i * size_ + u);
      }
    }
    for (Index i = 0; i < count; ++i)
      put<ALONE>(tiles_.data() + (windows[i].x - x) * size_, size_, output(windows[i].k), past_caches_);
  }

  T* output(Index k) const { return out_ + k * size_; }

  void turn_eight(const T* rows, Index step, T* to) const {
    constexpr int wide = 32 / sizeof(T);
    using P = Pack<T, wide == 4 ? 4 : 8>;
    for (int from = 0; from < 8; from += P::width, rows += P::width, to += P::width * size_) {
      P a = load<P>(rows, 4), b = load<P>(rows + step, 4);
      P c = load<P>(rows + 2 * step, 4), d = load<P>(rows + 3 * step, 4);
      turn(a, b, c, d);
      T* const last = to + 4 * size_;
      a.store_fours(to, last);
      b.store_fours(to + size_, last + size_);
      c.store_fours(to + 2 * size_, last + 2 * size_);
      d.store_fours(to + 3 * size_, last + 3 * size_);
    }
  }

  Shape s_;
  Index size_, area_;
  const T* input_;
  const SortedWindows* windows_;
  T* out_;
  bool by_row_, past_caches_;
  Acc<T> pad_;
  std::vector<Corner> corners_;
  std::vector<T> tiles_, row_;  // (windows, V, U); (U, cells) with the pad beside them
};

}  // namespace swap_align2nat
