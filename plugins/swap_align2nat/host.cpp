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

  // to[i] = constant + sum over rows of weight * row[offset + i]
  void sum(Index offset, Index length, A constant, A* __restrict to) const {
    const auto term = [&](int k, Index i) { return weight[k] * A(row[k][offset + i]); };
    if (count == 4)
      for (Index i = 0; i < length; ++i) to[i] = constant + term(0, i) + term(1, i) + term(2, i) + term(3, i);
    else if (count == 3)
      for (Index i = 0; i < length; ++i) to[i] = constant + term(0, i) + term(1, i) + term(2, i);
    else if (count == 2)
      for (Index i = 0; i < length; ++i) to[i] = constant + term(0, i) + term(1, i);
    else if (count == 1)
      for (Index i = 0; i < length; ++i) to[i] = constant + term(0, i);
    else
      std::fill_n(to, length, constant);
  }
};

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
    for (Index u = 0; u < s_.U; ++u) {
      WeightedRows<A, T> sources;
      A constant = 0;
      for (int k = 0; k < 4; ++k) {
        const Contribution<A> from = tap<A>(s_.vy(), v, y, k);
        if (from.weight == 0) continue;
        if (inside(from.bin, s_.V) && inside(from.cell, s_.H))
          sources.add(input_ + (((n * s_.V + from.bin) * s_.U + u) * s_.H + from.cell) * s_.W, from.weight);
        else
          constant += from.weight * pad_;
      }
      if (sources.count == 0) return false;
      for (Index k = 0; k < run_count; ++k) load_run(sources, constant, u, runs[k]);
    }
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
    for (Index i = 0; i < end - first; ++i) to[i] = (column[first + i] + column[first + i + 1]) / 2;
  }

  const T* input_;
  Shape s_;
  Index slots_;
  A pad_;
  std::vector<A> rows_, columns_;
};

template <class T>
struct DenseForward {
  using A = Acc<T>;
  Shape s;
  A pad_value;
  T* out;
  InputRows<T> rows;

  void operator()(Index item) {
    const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells();
    const Index y = item % cells_y, v = item / cells_y % (s.lam * s.V), n = item / cells_y / (s.lam * s.V);
    const Run all{0, cells_x - 1};
    const bool loaded = rows.load(n, v, y, &all, 1);
    T* to = out + (item / cells_y * s.lam * s.U * cells_y + y) * cells_x;
    const Index step = cells_y * cells_x;
    if (loaded)
      with_constant_lam(s.lam, [&](auto lam) { write<lam>(to, step, cells_x); });
    else
      for (Index u = 0; u < s.lam * s.U; ++u) std::fill_n(to + u * step, cells_x, T(pad_value));
  }

  template <Index LAM>
  void write(T* to, Index step, Index count) const {
    const Index lam = LAM ? LAM : s.lam;
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      for (Index phase = first; phase < end; ++phase)
        write_row<LAM>(p, phase, to + (lam * p + phase - s.ux().lead()) * step, count);
    });
  }

  template <Index LAM>
  void write_row(Index p, Index phase, T* __restrict to, Index count) const {
    const Index lam = LAM ? LAM : s.lam;
    const Blend<A> blend = blend_at<A>(phase, lam);
    const A *lower = rows.row(p - 1) + lam * p + phase, *upper = rows.row(p) + lam * p + phase;
    for (Index x = 0; x < count; ++x) to[x] = T(blend(lower[lam * x], upper[lam * x]));
  }
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
  std::vector<Blend<A>> blends = slot_blends<A>(s.ux());

  void operator()(Index item) {
    const Index fine_v = s.lam * s.V, fine_u = s.lam * s.U, v = item % fine_v;
    const GridRow& row = windows->rows[item / fine_v];
    const bool loaded =
        rows.load(row.n, v, row.y, windows->runs.data() + row.first_run, row.end_run - row.first_run);
    for (Index i = row.first; i < row.end; ++i) {
      T* to = out + (windows->order[i].second * fine_v + v) * fine_u;
      const Index x = windows->order[i].first % s.ux().coarse_cells();
      if (loaded)
        with_constant_lam(s.lam, [&](auto lam) { write<lam>(x, to); });
      else
        std::fill_n(to, fine_u, T(pad_value));
    }
  }

  template <Index LAM>
  void write(Index x, T* __restrict to) const {
    const Index lam = LAM ? LAM : s.lam, lead = s.ux().lead();
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      const A *lower = rows.row(p - 1) + lam * (x + p), *upper = rows.row(p) + lam * (x + p);
      for (Index phase = first; phase < end; ++phase)
        to[lam * p + phase - lead] = T(blends[phase](lower[phase], upper[phase]));
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
    const DenseForward<T> worker{s, pad, to, {static_cast<const T*>(x), s, pad}};
    return for_all(s.N * s.lam * s.V * s.vy().coarse_cells(), threads, s.output_size(), worker);
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
    const WindowsForward<T> worker{s, pad, &windows, to, {static_cast<const T*>(x), s, pad}};
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
