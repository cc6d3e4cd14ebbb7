// The backward passes on the CPU: the adjoint of the forward pass, gathered. One item is one
// row of the input gradient, which it owns, so results do not depend on the number of threads.
#pragma once

#include <numeric>
#include <tuple>
#include <vector>

#include "tools.h"

namespace swap_align2nat {

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

  // to[i] = sum over rows of weight * row[offset + i]
  void sum(Index offset, Index length, A* to) const {
    switch (count) {
      case 0:
        std::fill_n(to, length, A(0));
        break;
      case 1:
        sum_of<1>(row, weight, offset, length, to);
        break;
      case 2:
        sum_of<2>(row, weight, offset, length, to);
        break;
      case 3:
        sum_of<3>(row, weight, offset, length, to);
        break;
      default:
        sum_of<4>(row, weight, offset, length, to);
    }
  }

 private:
  // A function of its own, so that all its pointers and weights stay in registers.
  template <int COUNT>
  SWAP_NOINLINE static void sum_of(const T* const* row, const A* weight, Index offset,
                                   Index length, A* __restrict to) {
    const T* from[COUNT];
    A w[COUNT];
    for (int k = 0; k < COUNT; ++k) from[k] = row[k] + offset, w[k] = weight[k];
    for (Index i = 0; i < length; ++i) {
      A sum = 0;
      for (int k = 0; k < COUNT; ++k) sum += w[k] * A(from[k][i]);
      to[i] = sum;
    }
  }
};

// Gradients of the outputs (v, :, y, :) that an input row (n, v', :, y', :) feeds, in slot
// order per group p.
template <class T>
class GradRows {
 public:
  using A = Acc<T>;

  explicit GradRows(const Shape& shape)
      : s_(shape),
        slots_(shape.ux().slots()),
        groups_((shape.U + 1) * slots_),
        sum_(shape.W + 1),
        blends_(slot_blends<A>(shape.lam, slots_, A(1) / A(1 + shape.ux().half_cell()))) {}

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
    const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells(),
                plane = cells_y * cells_x;
    WeightedRows<A, T> sources;
    for (int k = 0; k < 4; ++k) {
      const Contribution<A> source = reader<A>(s.vy(), v, y, k);
      const Index row = (n * s.lam * s.V + source.bin) * s.lam * s.U * cells_y + source.cell;
      if (source.weight != 0) sources.add(grad + row * cells_x, source.weight);
    }
    T* to = input_row(grad_input, s, n, v, y);
    if (sources.count == 0) return zero_rows(s, to);
    with_constant_lam<1, 2, 4, 8>(s.lam,
                                  [&](auto lam) { spread<lam>(sources, plane, cells_x); });
    rows.fold(to);
  }

  template <Index LAM>
  void spread(const WeightedRows<A, T>& sources, Index plane, Index cells_x) {
    const Index lam = LAM ? LAM : s.lam;
    for_groups(s.U, lam, [&](Index p, Index first, Index end) {
      for (Index phase = first; phase < end; ++phase) {
        A* __restrict group = rows.group(p) + lam * p + phase;
        sources.sum((lam * p + phase - s.ux().lead()) * plane, cells_x, sum.data());
        for (Index x = 0; x < cells_x; ++x) group[lam * x] = sum[x];
      }
    });
  }
};

// The windows of grid row r = n * cells_y + y: order[first[r]] to order[first[r + 1] - 1], by x
// and then by their position in the index, so that sums have one order.
struct WindowsByRow {
  const int64_t* index;
  std::vector<Index> order, first;

  WindowsByRow(const int64_t* cells, Index count, const Shape& s)
      : index(cells), order(count), first(s.N * s.vy().coarse_cells() + 1) {
    const auto place = [&](Index k) {
      return std::make_tuple(cells[3 * k], cells[3 * k + 1], cells[3 * k + 2], k);
    };
    std::iota(order.begin(), order.end(), Index(0));
    std::sort(order.begin(), order.end(),
              [&](Index a, Index b) { return place(a) < place(b); });
    for (Index k : order) ++first[cells[3 * k] * s.vy().coarse_cells() + cells[3 * k + 1] + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
  }
};

template <class T>
struct WindowsBackward {
  using A = Acc<T>;
  Shape s;
  const WindowsByRow* windows;
  const T* grad;
  T* grad_input;
  GradRows<T> rows;

  void operator()(Index item) {
    const Index y = item % s.H, v = item / s.H % s.V, n = item / s.H / s.V;
    bool any = false;
    for (int k = 0; k < 4; ++k) {
      const Contribution<A> source = reader<A>(s.vy(), v, y, k);
      if (source.weight == 0) continue;
      const Index* const first = &windows->first[n * s.vy().coarse_cells() + source.cell];
      for (Index i = first[0]; i < first[1]; ++i) {
        if (!any) rows.clear();
        any = true;
        add(windows->order[i], source.bin, source.weight);
      }
    }
    T* to = input_row(grad_input, s, n, v, y);
    return any ? rows.fold(to) : zero_rows(s, to);
  }

  // Row v of a window's gradient, in slot order.
  void add(Index k, Index v, A weight) {
    const Index x = windows->index[3 * k + 2], lead = s.ux().lead();
    const T* __restrict from = grad + (k * s.lam * s.V + v) * s.lam * s.U;
    for_groups(s.U, s.lam, [&](Index p, Index first, Index end) {
      A* __restrict group = rows.group(p) + s.lam * (x + p);
      for (Index phase = first; phase < end; ++phase)
        group[phase] += weight * A(from[s.lam * p + phase - lead]);
    });
  }
};

}  // namespace swap_align2nat
