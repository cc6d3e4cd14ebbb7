// swap_align2nat on the CPU: a C interface on raw pointers, compiled by any C++17 compiler at
// first use.
//
// The forward passes bring rows into slot order (core.h), where the taps of neighbours are
// neighbours and loops run over contiguous memory: dense.h, windows.h. The backward passes
// gather: backward.h. Every item of work owns what it writes, so results do not depend on the
// threads. What all of them share is in tools.h.
#include "backward.h"
#include "dense.h"
#include "windows.h"

namespace swap_align2nat {
namespace {

enum Code { OK = 0, UNKNOWN_DTYPE = 1, OUT_OF_MEMORY = 2, INDEX_OUTSIDE = 3 };

// A library for one dtype alone is compiled in a quarter of the time.
#ifdef SWAP_DTYPE
constexpr int ONLY = SWAP_DTYPE;
#else
constexpr int ONLY = -1;
#endif

template <int DTYPE, class T, class Call>
Code call_for(Call call) {
  if constexpr (ONLY == -1 || ONLY == DTYPE) return call(T());
  return UNKNOWN_DTYPE;
}

// Calls `call(T())` for the storage type of `dtype`: 0 double, 1 float, 2 half, 3 bfloat16.
template <class Call>
Code dispatch(int dtype, Call call) noexcept {
  try {
    switch (dtype) {
      case 0:
        return call_for<0, double>(call);
      case 1:
        return call_for<1, float>(call);
      case 2:
        return call_for<2, Half>(call);
      case 3:
        return call_for<3, BFloat16>(call);
      default:
        return UNKNOWN_DTYPE;
    }
  } catch (...) {
    return OUT_OF_MEMORY;
  }
}

bool all_inside(const int64_t* index, Index count, const Shape& s) {
  bool all = true;
  for (const int64_t* at = index; at < index + 3 * count; at += 3)
    all &= inside(Index(at[0]), s.N) && inside(Index(at[1]), s.vy().coarse_cells()) &&
           inside(Index(at[2]), s.ux().coarse_cells());
  return all;
}

template <class Worker>
Code run(const Worker& worker, Index items, int threads) {
  return for_all(items, threads, worker) ? OK : OUT_OF_MEMORY;
}

}  // namespace
}  // namespace swap_align2nat

using namespace swap_align2nat;

#if defined(_WIN32)
#define SWAP_API extern "C" __declspec(dllexport)
#else
#define SWAP_API extern "C" __attribute__((visibility("default")))
#endif

// The address of the caller's `GOMP_parallel`, or null: see tools.h.
SWAP_API void swap_use_threads(void* gomp_parallel) {
  parallel = reinterpret_cast<Parallel>(gomp_parallel);
}

// `shape` holds N, V, U, H, W, lam; arguments are checked by the caller; 0 is success.
SWAP_API int swap_forward(int dtype, const int64_t* shape, double pad_value, int threads,
                          const void* x, void* out) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const from = static_cast<const T*>(x);
    const Acc<T> pad(pad_value);
    T* const to = large_pages(static_cast<T*>(out), s.output_size());
    const auto start = [&](const auto& worker) { return run(worker, worker.items(), threads); };
    return start(DenseForward<T>(from, s, pad, threads, to));
  });
}

SWAP_API int swap_backward(int dtype, const int64_t* shape, int threads, const void* grad,
                           void* grad_x) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const to = large_pages(static_cast<T*>(grad_x), s.input_size());
    const DenseBackward<T> worker{s, static_cast<const T*>(grad), to, GradRows<T>(s)};
    return run(worker, s.N * s.V * s.H, threads);
  });
}

// `index` holds (n, y, x) for each of `count` windows; out is (count, lam*V, lam*U).
SWAP_API int swap_forward_windows(int dtype, const int64_t* shape, double pad_value,
                                  int threads, const void* x, const int64_t* index,
                                  int64_t count, void* out) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  if (!all_inside(index, count, s)) return INDEX_OUTSIDE;
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const to = large_pages(static_cast<T*>(out), count * s.window_size());
    const WindowsForward<T> worker(static_cast<const T*>(x), s, Acc<T>(pad_value), index, to);
    return run(worker, count, threads);
  });
}

SWAP_API int swap_backward_windows(int dtype, const int64_t* shape, int threads,
                                   const void* grad, const int64_t* index, int64_t count,
                                   void* grad_x) {
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  if (!all_inside(index, count, s)) return INDEX_OUTSIDE;
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const WindowsByRow windows(index, count, s);
    T* const to = large_pages(static_cast<T*>(grad_x), s.input_size());
    const WindowsBackward<T> worker{s, &windows, static_cast<const T*>(grad), to,
                                    GradRows<T>(s)};
    return run(worker, s.N * s.V * s.H, threads);
  });
}
