// swap_align2nat on the CPU: a C interface on raw pointers, compiled by any C++17 compiler at first use.
//
// One unit of work is one row of outputs (n, v, y), or one row of the input gradient; each unit owns what it
// writes, so results do not depend on the number of threads. Rows are first brought into slot order (core.h):
// there the taps of neighbours are neighbours, and every loop runs over contiguous memory.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "core.h"
#include "storage.h"

#if defined(__GNUC__)
#define SWAP_APART __attribute__((noinline))
#else
#define SWAP_APART
#endif

namespace swap_align2nat {
namespace {

// ---------------------------------------------------------------- threads

// Every thread works on its own copy of `worker` (so on its own scratch rows) and takes items in small runs.
// There is one for each hundred thousand of the `elements` written: less is done sooner alone.
template <class Worker>
bool for_all(Index items, int threads, Index elements, const Worker& worker) {
  const Index run = std::clamp<Index>(items / (16 * std::max(threads, 1)), 1, 16);
  std::atomic<Index> next{0};
  std::atomic<bool> complete{true};
  const auto work = [&]() noexcept {
    try {
      Worker own = worker;
      for (Index first; (first = next.fetch_add(run)) < items;)
        for (Index item = first; item < std::min(first + run, items); ++item) own(item);
    } catch (...) {
      complete = false;
    }
  };
  std::vector<std::thread> others;
  const Index wanted = std::min({Index(threads), (items + run - 1) / run, 1 + elements / 100000});
  try {
    for (Index k = 1; k < wanted; ++k) others.emplace_back(work);
  } catch (...) {  // no more threads to be had: fewer do the same work
  }
  work();
  for (auto& other : others) other.join();
  return complete;
}

// Fresh memory in 4 KB pages costs more than the arithmetic: ask for large pages before the first write.
template <class T>
T* large_pages(T* out, Index count) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t start = (reinterpret_cast<uintptr_t>(out) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(out + count) / page * page;
  if (start < end) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // a hint: may fail
#endif
  return out;
}

template <bool WRITE, class T>
void prefetch(const T* from, Index count) {
#if defined(__GNUC__)
  const char *at = reinterpret_cast<const char*>(from), *end = reinterpret_cast<const char*>(from + count);
  for (; at < end; at += 64) __builtin_prefetch(at, WRITE, 3);
  __builtin_prefetch(end - 1, WRITE, 3);
#endif
}

// ---------------------------------------------------------------- weighted sums of rows

template <class A, class T>
struct WeightedRows {
  const T* row[4];
  A weight[4];
  int count = 0;

  void add(const T* pointer, A w) {
    row[count] = pointer;
    weight[count++] = w;
  }

  void advance(Index step) {
    for (int k = 0; k < count; ++k) row[k] += step;
  }

  // to[i] = constant + sum over rows of weight * row[offset + i]
  void sum(Index offset, Index length, A constant, A* to) const {
    switch (count) {
      case 0: std::fill_n(to, length, constant); break;
      case 1: sum_of<1>(row, weight, offset, length, constant, to); break;
      case 2: sum_of<2>(row, weight, offset, length, constant, to); break;
      case 3: sum_of<3>(row, weight, offset, length, constant, to); break;
      default: sum_of<4>(row, weight, offset, length, constant, to);
    }
  }

 private:
  // A function of its own, so that all its pointers and weights stay in registers.
  template <int COUNT>
  SWAP_APART static void sum_of(const T* const* row, const A* weight, Index offset, Index length, A constant, A* __restrict to) {
    const T* from[COUNT];
    A w[COUNT];
    for (int k = 0; k < COUNT; ++k) from[k] = row[k] + offset, w[k] = weight[k];
    for (Index i = 0; i < length; ++i) {
      A sum = constant;
      for (int k = 0; k < COUNT; ++k) sum += w[k] * A(from[k][i]);
      to[i] = sum;
    }
  }
};

template <class T>
struct Rows {
  T* first;
  Index step;
};

// The functions of their own keep their loops' pointers and weights in registers.
template <class A, class S>
SWAP_APART void add(const S* a, const S* b, A* __restrict to, Index length) {
  for (Index i = 0; i < length; ++i) to[i] = A(a[i]) + A(b[i]);
}

template <class A, class S>
SWAP_APART void add_constant(const S* from, A constant, A* __restrict to, Index length) {
  for (Index i = 0; i < length; ++i) to[i] = A(from[i]) + constant;
}

template <class A, class T>
SWAP_APART void blend_rows(Blend<A> blend, Rows<const A> lower, Rows<const A> upper, Rows<T> to, Index rows,
                           Index length) {
  const A low = blend.lower, up = blend.upper;
  for (Index r = 0; r < rows; ++r) {
    const A* __restrict const below = lower.first + r * lower.step;
    const A* __restrict const above = upper.first + r * upper.step;
    T* __restrict const sum = to.first + r * to.step;
    if (r + 1 < rows) prefetch<true>(sum + to.step, length);
    if (up != 0)
      for (Index i = 0; i < length; ++i) sum[i] = T(low * below[i] + up * above[i]);
    else
      for (Index i = 0; i < length; ++i) sum[i] = T(low * below[i]);
  }
}

template <class A>
SWAP_APART void blend_slots(const A* __restrict of_lower, const A* __restrict lower, const A* __restrict of_upper,
                            const A* __restrict upper, A* __restrict to, Index length) {
  for (Index i = 0; i < length; ++i) to[i] = of_lower[i] * lower[i] + of_upper[i] * upper[i];
}

struct Run {
  Index first, last;  // cells x, both included
};

// The weights of every slot of a row; `share` multiplies them.
template <class A>
std::vector<Blend<A>> slot_blends(const Axis& axis, A share = 1) {
  std::vector<Blend<A>> blends(axis.slots());
  for (Index slot = 0; slot < axis.slots(); ++slot) blends[slot] = blend_at(slot % axis.lam, axis.lam, share);
  return blends;
}

// Calls `body` with lam as a constant where that lets the compiler unroll, else with 0.
template <class Body>
void with_constant_lam(Index lam, Body body) {
  switch (lam) {
    case 1: return body(std::integral_constant<Index, 1>());
    case 2: return body(std::integral_constant<Index, 2>());
    case 4: return body(std::integral_constant<Index, 4>());
    case 8: return body(std::integral_constant<Index, 8>());
    default: return body(std::integral_constant<Index, 0>());
  }
}

// Calls `body(p, first, end)` for the phases of every group p = 0..U that belong to an output u.
template <class Body>
void for_groups(Index bins, Index lam, Body body) {
  const Index lead = (lam + 1) / 2;
  body(Index(0), lead, lam);
  for (Index p = 1; p < bins; ++p) body(p, Index(0), lam);
  body(bins, Index(0), lead);
}

// ---------------------------------------------------------------- slot order and phase order

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SWAP_SHUFFLES
#endif
#endif

#ifdef SWAP_SHUFFLES
template <class A>
struct Quad {
  typedef A Values __attribute__((vector_size(4 * sizeof(A))));

  static Values load(const A* from) {
    Values values;
    std::memcpy(&values, from, sizeof values);
    return values;
  }
  static void store(A* to, Values values) { std::memcpy(to, &values, sizeof values); }
};
#endif

// The value at a slot: with PAIRS, the sum of two neighbours.
template <bool PAIRS, class A>
A at_slot(const A* slot) {
  return PAIRS ? slot[0] + slot[1] : slot[0];
}

// Four rows of four become four columns.
template <bool PAIRS, class A>
void turn(const A* from, Index from_step, A* to, Index to_step) {
#ifdef SWAP_SHUFFLES
  using Q = Quad<A>;
  typename Q::Values row[4];
  for (int k = 0; k < 4; ++k) {
    row[k] = Q::load(from + k * from_step);
    if (PAIRS) row[k] += Q::load(from + k * from_step + 1);
  }
  const auto low02 = __builtin_shufflevector(row[0], row[2], 0, 4, 1, 5);
  const auto low13 = __builtin_shufflevector(row[1], row[3], 0, 4, 1, 5);
  const auto high02 = __builtin_shufflevector(row[0], row[2], 2, 6, 3, 7);
  const auto high13 = __builtin_shufflevector(row[1], row[3], 2, 6, 3, 7);
  Q::store(to, __builtin_shufflevector(low02, low13, 0, 4, 1, 5));
  Q::store(to + to_step, __builtin_shufflevector(low02, low13, 2, 6, 3, 7));
  Q::store(to + 2 * to_step, __builtin_shufflevector(high02, high13, 0, 4, 1, 5));
  Q::store(to + 3 * to_step, __builtin_shufflevector(high02, high13, 2, 6, 3, 7));
#else
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 4; ++j) to[j * to_step + k] = at_slot<PAIRS>(from + k * from_step + j);
#endif
}

// even[i], odd[i] = the slots 2i and 2i + 1 for four i.
template <bool PAIRS, class A>
void split(const A* from, A* even, A* odd) {
#ifdef SWAP_SHUFFLES
  using Q = Quad<A>;
  auto first = Q::load(from), second = Q::load(from + 4);
  if (PAIRS) first += Q::load(from + 1), second += Q::load(from + 5);
  Q::store(even, __builtin_shufflevector(first, second, 0, 2, 4, 6));
  Q::store(odd, __builtin_shufflevector(first, second, 1, 3, 5, 7));
#else
  for (int k = 0; k < 4; ++k) even[k] = at_slot<PAIRS>(from + 2 * k), odd[k] = at_slot<PAIRS>(from + 2 * k + 1);
#endif
}

// to[phase * cells + cell] = slots[lam * cell + phase]; `cells` is a multiple of 4.
template <bool PAIRS, Index LAM, class A>
SWAP_APART void to_phases(const A* __restrict slots, Index lam, Index cells, A* __restrict to) {
  if (LAM) lam = LAM;
  if (lam == 1)
    for (Index cell = 0; cell < cells; ++cell) to[cell] = at_slot<PAIRS>(slots + cell);
  else if (lam == 2)
    for (Index cell = 0; cell < cells; cell += 4) split<PAIRS>(slots + 2 * cell, to + cell, to + cells + cell);
  else if (lam % 4 == 0)
    for (Index cell = 0; cell < cells; cell += 4)
      for (Index phase = 0; phase < lam; phase += 4)
        turn<PAIRS>(slots + lam * cell + phase, lam, to + phase * cells + cell, cells);
  else
    for (Index phase = 0; phase < lam; ++phase)
      for (Index cell = 0; cell < cells; ++cell)
        to[phase * cells + cell] = at_slot<PAIRS>(slots + lam * cell + phase);
}

Index whole_quads(Index cells) { return (cells + 3) / 4 * 4; }

// ---------------------------------------------------------------- forward

// What the outputs (n, v, :, y, :) read: per u' one row in slot order, its taps along v, y and x summed.
template <class T>
class InputRows {
 public:
  using A = Acc<T>;

  InputRows(const T* input, const Shape& shape, A pad_value)
      : input_(input),
        s_(shape),
        slots_(shape.ux().slots()),
        pad_(pad_value),
        rows_((shape.U + 2) * slots_, pad_value),
        columns_(shape.W + 2) {}

  // Row of tap u' = -1..U; the first and the last hold the pad value.
  const A* row(Index u) const { return rows_.data() + (u + 1) * slots_; }

  // Fills the slots that the cells x of `runs` read; false: they read nothing but padding, no slot is filled.
  bool load(Index n, Index v, Index y, const Run* runs, Index run_count) {
    WeightedRows<A, T> sources;
    A constant = 0;
    for (int k = 0; k < 4; ++k) {
      const Contribution<A> from = tap<A>(s_.vy(), v, y, k);
      if (from.weight == 0) continue;
      if (inside(from.bin, s_.V) && inside(from.cell, s_.H))
        sources.add(input_ + ((n * s_.V + from.bin) * s_.U * s_.H + from.cell) * s_.W, from.weight);
      else
        constant += from.weight * pad_;
    }
    if (sources.count == 0) return false;
    for (Index u = 0; u < s_.U; ++u, sources.advance(s_.H * s_.W))
      for (Index k = 0; k < run_count; ++k) load_run(sources, constant, u, runs[k]);
    return true;
  }

 private:
  void load_run(const WeightedRows<A, T>& sources, A constant, Index u, Run run) {
    const Axis ux = s_.ux();
    const Index half = ux.half_cell();
    const Index first = std::max(ux.row_of_slot(s_.lam * (run.first + u)), -half);
    const Index end = std::min(ux.row_of_slot(s_.lam * (run.last + u + 2)), s_.W);
    if (first >= end) return;
    A* to = rows_.data() + (u + 1) * slots_ + ux.slot_of_row(first);
    if (!half) return sources.sum(first, end - first, constant, to);
    A* column = columns_.data() + 1;  // column[-1] and column[W] lie outside
    const Index inner = std::max<Index>(first, 0), inner_end = std::min(end + 1, s_.W);
    sources.sum(inner, inner_end - inner, constant, column + inner);
    column[-1] = column[s_.W] = pad_;
    mean(column + first, to, end - first);
  }

  SWAP_APART static void mean(const A* __restrict column, A* __restrict to, Index length) {
    for (Index i = 0; i < length; ++i) to[i] = (column[i] + column[i + 1]) / 2;
  }

  const T* input_;
  Shape s_;
  Index slots_;
  A pad_;
  std::vector<A> rows_, columns_;
};

// Walks along the groups p of the same slots. What a bin holds there, blended along u and in the order of the
// output, is computed once and serves two groups.
template <class T>
class DenseForward {
 public:
  using A = Acc<T>;

  DenseForward(const T* input, const Shape& shape, A pad_value, T* out)
      : s_(shape),
        vy_(shape.vy()),
        ux_(shape.ux()),
        cells_x_(ux_.coarse_cells()),
        block_(std::clamp<Index>(shape.lam / 4, 1, vy_.coarse_cells())),
        pitch_(whole_quads(cells_x_ + 1)),
        width_(block_ * cells_x_ + 4),
        margin_(ux_.slot_of_row(0)),
        pad_(pad_value),
        input_(input),
        out_(out),
        blends_(slot_blends(ux_, A(1) / A((1 + vy_.half_cell()) * (1 + ux_.half_cell())))),
        row_(margin_ + ux_.lam * (ux_.bins + pitch_) + 1, pad_value * A(1 + vy_.half_cell())),
        phases_((ux_.bins + 2) * ux_.lam * pitch_,
                pad_value * A((1 + vy_.half_cell()) * (1 + ux_.half_cell()))) {
    for (auto& bin : blended_) bin.resize(ux_.fine_bins() * width_);
  }

  Index items() const { return s_.N * blocks() * s_.lam; }

  void operator()(Index item) {
    const Index phase = item % s_.lam, first = item / s_.lam % blocks() * block_, n = item / s_.lam / blocks();
    // The groups that have outputs: some y = i - p of the block's cells i is inside, and so is v.
    const Index low = std::max<Index>(phase < vy_.lead() ? 1 : 0, first - vy_.coarse_cells() + 1);
    const Index high = std::min<Index>(phase < vy_.lead() ? s_.V : s_.V - 1, first + block_ - 1);
    for (Index p = low - 1; p <= high; ++p) {
      load_bin(n, p, phase, first);
      if (p >= low) write_group(n, p, phase, first);
    }
  }

 private:
  // Cells i = y + p that are done together, so that the output is written in longer runs: `block_` of them.
  Index blocks() const { return quotient_up(vy_.coarse_cells() + s_.V, block_); }

  void load_bin(Index n, Index bin, Index phase, Index first) {
    something_[bin & 1] = false;
    for (Index k = 0; k < block_; ++k) {
      const Index row = vy_.row_of_slot(s_.lam * (first + k) + phase);
      A* const to = blended_[bin & 1].data() + k * cells_x_;
      if (inside(bin, s_.V) && row >= -vy_.half_cell() && row < s_.H) {
        something_[bin & 1] = true;
        const T* const plane = input_ + (n * s_.V + bin) * s_.U * s_.H * s_.W;
        with_constant_lam(s_.lam, [&](auto lam) {
          for (Index u = 0; u < s_.U; ++u) load_row<lam>(plane + u * s_.H * s_.W, row, u);
        });
        blend_along_u(to);
      } else {
        for (Index u = 0; u < ux_.fine_bins(); ++u) std::fill_n(to + u * width_, cells_x_, pad_);
      }
    }
  }

  // Fills the phases of tap u'. Sums of two along y and x, not yet halved: the blends along u see to it.
  template <Index LAM>
  void load_row(const T* plane, Index row, Index u) {
    A* const columns = row_.data() + margin_;
    const T* const from = plane + row * s_.W;
    prefetch<false>(from + (s_.H + vy_.half_cell()) * s_.W, s_.W);
    if (!vy_.half_cell())
      add_constant(from, A(0), columns, s_.W);
    else if (row < 0)
      add_constant(from + s_.W, pad_, columns, s_.W);
    else if (row + 1 == s_.H)
      add_constant(from, pad_, columns, s_.W);
    else
      add(from, from + s_.W, columns, s_.W);
    const A* const slots = columns + ux_.row_of_slot(s_.lam * u);
    A* const to = phases_.data() + (u + 1) * s_.lam * pitch_;
    if (ux_.half_cell())
      to_phases<true, LAM>(slots, s_.lam, pitch_, to);
    else
      to_phases<false, LAM>(slots, s_.lam, pitch_, to);
  }

  void blend_along_u(A* to) const {
    for_groups(s_.U, s_.lam, [&](Index p, Index first, Index end) {
      const A* const upper = phases_.data() + (p + 1) * s_.lam * pitch_;  // of tap p; cell i = x + p is its x-th
      const A* const lower = upper - s_.lam * pitch_ + 1;
      for (Index phase = first; phase < end; ++phase)
        blend_rows(blends_[phase], {lower + phase * pitch_, 0}, {upper + phase * pitch_, 0},
                   Rows<A>{to + (s_.lam * p + phase - ux_.lead()) * width_, 0}, 1, whole_quads(cells_x_));
    });
  }

  void write_group(Index n, Index p, Index phase, Index first) const {
    const Index cells_y = vy_.coarse_cells(), fine_u = ux_.fine_bins(), v = s_.lam * p + phase - vy_.lead();
    const Index y = std::max<Index>(first - p, 0), skip = (y - first + p) * cells_x_;
    const Index count = std::min((first - p + block_ - y), cells_y - y) * cells_x_, step = cells_y * cells_x_;
    const Rows<T> to{out_ + (n * vy_.fine_bins() + v) * fine_u * step + y * cells_x_, step};
    const Rows<const A> lower{blended_[(p - 1) & 1].data() + skip, width_};
    const Rows<const A> upper{blended_[p & 1].data() + skip, width_};
    if (something_[0] || something_[1])
      blend_rows(blend_at<A>(phase, s_.lam), lower, upper, to, fine_u, count);
    else
      for (Index u = 0; u < fine_u; ++u) std::fill_n(to.first + u * step, count, T(pad_));
  }

  Shape s_;
  Axis vy_, ux_;
  Index cells_x_, block_, pitch_, width_, margin_;
  A pad_;
  const T* input_;
  T* out_;
  std::vector<Blend<A>> blends_;
  std::vector<A> row_;          // one input row, pad on both sides
  std::vector<A> phases_;       // (U+2, lam, pitch): what tap u' reads of it, per phase; the first and the last tap hold the pad
  std::vector<A> blended_[2];   // (lam*U, width): an even and an odd bin
  bool something_[2] = {};      // but pad in them
};

// ---------------------------------------------------------------- windows, sorted by cell

// Windows of one grid row (n, y): a stretch of `order`, and the runs of cells x that they cover.
struct GridRow {
  Index n, y, first, end, first_run, end_run;
};

class SortedWindows {
 public:
  std::vector<std::pair<Index, Index>> order;  // (cell, k): by cell, then by position in the index
  std::vector<GridRow> rows;
  std::vector<Run> runs;

  SortedWindows(const int64_t* index, Index count, const Shape& s)
      : cells_y_(s.vy().coarse_cells()),
        bridge_(2 + 64 / s.lam) {
    const Index cells_x = s.ux().coarse_cells(), cells = s.N * cells_y_ * cells_x;
    order.reserve(count);
    for (Index k = 0; k < count; ++k)
      order.emplace_back((index[3 * k] * cells_y_ + index[3 * k + 1]) * cells_x + index[3 * k + 2], k);
    if (!std::is_sorted(order.begin(), order.end()))
      cells <= 8 * count ? count_sort(cells) : comparison_sort();
    for (Index i = 0; i < count; ++i) append(i, order[i].first / cells_x, order[i].first % cells_x);
  }

  const GridRow* find(Index n, Index y) const {
    const auto before = [](const GridRow& row, std::pair<Index, Index> key) {
      return std::make_pair(row.n, row.y) < key;
    };
    const auto found = std::lower_bound(rows.begin(), rows.end(), std::make_pair(n, y), before);
    return found != rows.end() && found->n == n && found->y == y ? &*found : nullptr;
  }

 private:
  void comparison_sort() { std::sort(order.begin(), order.end()); }

  // In time proportional to the number of cells: for many windows.
  void count_sort(Index cells) {
    std::vector<Index> next(cells + 1);
    for (const auto& window : order) ++next[window.first + 1];
    for (Index cell = 0; cell < cells; ++cell) next[cell + 1] += next[cell];
    std::vector<std::pair<Index, Index>> sorted(order.size());
    for (const auto& window : order) sorted[next[window.first]++] = window;
    order.swap(sorted);
  }

  void append(Index i, Index row, Index x) {
    const Index n = row / cells_y_, y = row % cells_y_, run = Index(runs.size());
    if (rows.empty() || rows.back().n != n || rows.back().y != y) {
      rows.push_back({n, y, i, i, run, run});
    }
    GridRow& last = rows.back();
    if (last.first_run == last.end_run || x > runs.back().last + bridge_) {
      runs.push_back({x, x});
      last.end_run = run + 1;
    }
    runs.back().last = x;
    last.end = i + 1;
  }

  // Cells x that far apart belong to one run: filling a short gap is cheaper than starting anew.
  Index cells_y_, bridge_;
};

template <class T>
struct WindowsForward {
  using A = Acc<T>;
  Shape s;
  A pad_value;
  const SortedWindows* windows;
  T* out;
  InputRows<T> rows;
  std::vector<A> of_lower, of_upper;  // weights per slot
  std::vector<A> blended;             // (U+1, slots): every group of a row that is full of windows

  WindowsForward(const T* input, const Shape& shape, A pad, const SortedWindows* sorted, T* to)
      : s(shape),
        pad_value(pad),
        windows(sorted),
        out(to),
        rows(input, shape, pad) {
    for (const Blend<A>& blend : slot_blends<A>(s.ux())) {
      of_lower.push_back(blend.lower);
      of_upper.push_back(blend.upper);
    }
  }

  void operator()(Index item) {
    const Index fine_v = s.lam * s.V, fine_u = s.lam * s.U, v = item % fine_v;
    const GridRow& row = windows->rows[item / fine_v];
    const bool loaded =
        rows.load(row.n, v, row.y, windows->runs.data() + row.first_run, row.end_run - row.first_run);
    const bool full = row.end - row.first > s.ux().coarse_cells() / 4;
    with_constant_lam(s.lam, [&](auto lam) {
      constexpr bool few_phases = lam == 1 || lam == 2 || lam == 4;
      if (few_phases && full && loaded) blend_groups();
      for (Index i = row.first; i < row.end; ++i) {
        T* const to = out + (windows->order[i].second * fine_v + v) * fine_u;
        const Index x = windows->order[i].first % s.ux().coarse_cells();
        if (!loaded)
          std::fill_n(to, fine_u, T(pad_value));
        else if (few_phases && full)
          copy<lam>(x, to);
        else
          write<lam>(x, to);
      }
    });
  }

  template <Index LAM>
  void write(Index x, T* __restrict to) const {
    const Index lam = LAM ? LAM : s.lam, lead = s.ux().lead();
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      const A *lower = rows.row(p - 1) + lam * (x + p), *upper = rows.row(p) + lam * (x + p);
      T* const group = to + lam * p - lead;
      if (lam % 2 && first == 0) group[0] = T(of_lower[0] * lower[0]), ++first;  // its upper weight is 0
      for (Index phase = first; phase < end; ++phase)
        group[phase] = T(of_lower[phase] * lower[phase] + of_upper[phase] * upper[phase]);
    });
  }

  // For an even lam: no weight is zero. At lam = 1 a group is its lower bin.
  void blend_groups() {
    if (s.lam == 1) return;
    const Index slots = s.ux().slots(), used = s.lam * s.ux().coarse_cells();
    blended.resize((s.U + 1) * slots);
    for (Index p = 0; p <= s.U; ++p)
      blend_slots(of_lower.data(), rows.row(p - 1) + s.lam * p, of_upper.data(), rows.row(p) + s.lam * p,
                  blended.data() + p * slots + s.lam * p, used);
  }

  template <Index LAM>
  void copy(Index x, T* __restrict to) const {
    const Index slots = s.ux().slots(), lead = s.ux().lead();
    const A* const groups = LAM == 1 ? rows.row(-1) : blended.data();
    for_groups(s.U, LAM, [&](Index p, Index first, Index end) {
      const A* const from = groups + p * slots + LAM * (x + p);
      for (Index phase = first; phase < end; ++phase) to[LAM * p + phase - lead] = T(from[phase]);
    });
  }
};

// ---------------------------------------------------------------- backward

// Gradients of the outputs (v, :, y, :) that an input row (n, v', :, y', :) feeds, in slot order per group p.
template <class T>
class GradRows {
 public:
  using A = Acc<T>;

  explicit GradRows(const Shape& shape)
      : s_(shape),
        slots_(shape.ux().slots()),
        groups_((shape.U + 1) * slots_),
        sum_(shape.W + 1),
        blends_(slot_blends(shape.ux(), A(1) / A(1 + shape.ux().half_cell()))) {}

  A* group(Index p) { return groups_.data() + p * slots_; }
  void clear() { std::fill(groups_.begin(), groups_.end(), A(0)); }

  // to[u' * H * W + x'], the gradient of the input row.
  void fold(T* to) {
    const Axis ux = s_.ux();
    const Index half = ux.half_cell(), origin = ux.slot_of_row(-half);
    const Blend<A>* blend = blends_.data() + origin;
    A* __restrict sum = sum_.data();
    for (Index u = 0; u < s_.U; ++u, to += s_.H * s_.W) {
      const A *of_upper = group(u) + origin, *of_lower = group(u + 1) + origin;
      for (Index i = 0; i < s_.W + half; ++i) sum[i] = blend[i](of_lower[i], of_upper[i]);
      if (half)
        for (Index x = 0; x < s_.W; ++x) to[x] = T(sum[x] + sum[x + 1]);
      else
        for (Index x = 0; x < s_.W; ++x) to[x] = T(sum[x]);
    }
  }

 private:
  Shape s_;
  Index slots_;
  std::vector<A> groups_, sum_;
  std::vector<Blend<A>> blends_;
};

template <class T>
void zero_rows(const Shape& s, T* to) {
  for (Index u = 0; u < s.U; ++u, to += s.H * s.W) std::fill_n(to, s.W, T(0.0f));
}

template <class T>
T* input_row(T* input, const Shape& s, Index n, Index v, Index y) {
  return input + (((n * s.V + v) * s.U) * s.H + y) * s.W;
}

template <class T>
struct DenseBackward {
  using A = Acc<T>;
  Shape s;
  const T* grad;
  T* grad_input;
  GradRows<T> rows;
  std::vector<A> sum = std::vector<A>(s.ux().coarse_cells());

  void operator()(Index item) {
    const Index y = item % s.H, v = item / s.H % s.V, n = item / s.H / s.V;
    const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells(), plane = cells_y * cells_x;
    WeightedRows<A, T> sources;
    for (int k = 0; k < 4; ++k) {
      const Contribution<A> source = reader<A>(s.vy(), v, y, k);
      const Index row = (n * s.lam * s.V + source.bin) * s.lam * s.U * cells_y + source.cell;
      if (source.weight != 0) sources.add(grad + row * cells_x, source.weight);
    }
    T* to = input_row(grad_input, s, n, v, y);
    if (sources.count == 0) return zero_rows(s, to);
    with_constant_lam(s.lam, [&](auto lam) { spread<lam>(sources, plane, cells_x); });
    rows.fold(to);
  }

  template <Index LAM>
  void spread(const WeightedRows<A, T>& sources, Index plane, Index cells_x) {
    const Index lam = LAM ? LAM : s.lam;
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      for (Index phase = first; phase < end; ++phase) {
        A* __restrict group = rows.group(p) + lam * p + phase;
        sources.sum((lam * p + phase - s.ux().lead()) * plane, cells_x, 0, sum.data());
        for (Index x = 0; x < cells_x; ++x) group[lam * x] = sum[x];
      }
    });
  }
};

template <class T>
struct WindowsBackward {
  using A = Acc<T>;
  Shape s;
  const SortedWindows* windows;
  const T* grad;
  T* grad_input;
  GradRows<T> rows;

  void operator()(Index item) {
    const Index y = item % s.H, v = item / s.H % s.V, n = item / s.H / s.V;
    bool any = false;
    for (int k = 0; k < 4; ++k) {
      const Contribution<A> source = reader<A>(s.vy(), v, y, k);
      const GridRow* row = source.weight != 0 ? windows->find(n, source.cell) : nullptr;
      if (!row) continue;
      if (!any) rows.clear();
      any = true;
      with_constant_lam(s.lam, [&](auto lam) {
        for (Index i = row->first; i < row->end; ++i) add<lam>(windows->order[i], source.bin, source.weight);
      });
    }
    T* to = input_row(grad_input, s, n, v, y);
    return any ? rows.fold(to) : zero_rows(s, to);
  }

  template <Index LAM>
  void add(std::pair<Index, Index> window, Index v, A weight) {
    const Index lam = LAM ? LAM : s.lam, lead = s.ux().lead(), x = window.first % s.ux().coarse_cells();
    const T* __restrict from = grad + (window.second * s.lam * s.V + v) * s.lam * s.U;
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      A* __restrict group = rows.group(p) + lam * (x + p);
      for (Index phase = first; phase < end; ++phase)
        group[phase] += weight * A(from[lam * p + phase - lead]);
    });
  }
};

// ---------------------------------------------------------------- C interface

enum Code { OK = 0, UNKNOWN_DTYPE = 1, OUT_OF_MEMORY = 2 };

// Calls `call(T())` for the storage type of `dtype`: 0 double, 1 float, 2 half, 3 bfloat16.
template <class Call>
int dispatch(int dtype, Call call) noexcept {
  try {
    switch (dtype) {
      case 0: return call(double()) ? OK : OUT_OF_MEMORY;
      case 1: return call(float()) ? OK : OUT_OF_MEMORY;
      case 2: return call(Half()) ? OK : OUT_OF_MEMORY;
      case 3: return call(BFloat16()) ? OK : OUT_OF_MEMORY;
      default: return UNKNOWN_DTYPE;
    }
  } catch (...) {
    return OUT_OF_MEMORY;
  }
}

}  // namespace
}  // namespace swap_align2nat

using namespace swap_align2nat;

#if defined(_WIN32)
#define SWAP_API extern "C" __declspec(dllexport)
#else
#define SWAP_API extern "C" __attribute__((visibility("default")))
#endif

// `shape` holds N, V, U, H, W, lam; arguments are checked by the caller; 0 is success.
SWAP_API int swap_forward(int dtype, const int64_t* shape, double pad_value, int threads, const void* x,
                          void* out) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Acc<T> pad(pad_value);
    T* const to = large_pages(static_cast<T*>(out), s.output_size());
    const DenseForward<T> worker(static_cast<const T*>(x), s, pad, to);
    return for_all(worker.items(), threads, s.output_size(), worker);
  });
}

SWAP_API int swap_backward(int dtype, const int64_t* shape, int threads, const void* grad, void* grad_x) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const to = large_pages(static_cast<T*>(grad_x), s.input_size());
    const DenseBackward<T> worker{s, static_cast<const T*>(grad), to, GradRows<T>(s)};
    return for_all(s.N * s.V * s.H, threads, s.input_size(), worker);
  });
}

// `index` holds (n, y, x) for each of `count` windows; out is (count, lam*V, lam*U).
SWAP_API int swap_forward_windows(int dtype, const int64_t* shape, double pad_value, int threads,
                                  const void* x, const int64_t* index, int64_t count, void* out) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Acc<T> pad(pad_value);
    const SortedWindows windows(index, count, s);
    const Index elements = count * s.window_size();
    T* const to = large_pages(static_cast<T*>(out), elements);
    const WindowsForward<T> worker(static_cast<const T*>(x), s, pad, &windows, to);
    return for_all(Index(windows.rows.size()) * s.lam * s.V, threads, elements, worker);
  });
}

SWAP_API int swap_backward_windows(int dtype, const int64_t* shape, int threads, const void* grad,
                                   const int64_t* index, int64_t count, void* grad_x) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const SortedWindows windows(index, count, s);
    T* const to = large_pages(static_cast<T*>(grad_x), s.input_size());
    const WindowsBackward<T> worker{s, &windows, static_cast<const T*>(grad), to, GradRows<T>(s)};
    return for_all(s.N * s.V * s.H, threads, s.input_size(), worker);
  });
}
