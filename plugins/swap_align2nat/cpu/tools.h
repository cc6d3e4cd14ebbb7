// What the CPU kernels share: memory, threads, and what the compiler should know as constants.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "../core.h"
#include "storage.h"

#if defined(__GNUC__)
#define SWAP_NOINLINE __attribute__((noinline))
#else
#define SWAP_NOINLINE
#endif

// The loop's iterations do not depend on each other.
#if defined(__clang__)
#define SWAP_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define SWAP_INDEPENDENT _Pragma("GCC ivdep")
#else
#define SWAP_INDEPENDENT
#endif

namespace swap_align2nat {

// ---------------------------------------------------------------- memory

// Fresh memory in 4 KB pages costs more than the arithmetic: ask for large pages before the
// first write.
template <class T>
T* large_pages(T* out, Index count) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t start = (reinterpret_cast<uintptr_t>(out) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(out + count) / page * page;
  // A hint: it may fail.
  if (start < end) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#endif
  return out;
}

constexpr bool TO_WRITE = true;

// Asks for the cache line at an address, which need not be valid.
template <bool WRITE = false>
inline void prefetch([[maybe_unused]] const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at, WRITE);
#endif
}

// Stores a result. `past_caches`, where the machine can: lines that are written whole need not
// be read before. Those at the ends are not; they had better be prefetched.
template <class A, class T>
void put(const A* from, Index count, T* to, [[maybe_unused]] bool past_caches) {
#ifdef __SSE2__
  if constexpr (std::is_same_v<A, T>) {
    constexpr Index line = 64 / sizeof(T), part = 16 / sizeof(T);
    const Index head = (-reinterpret_cast<uintptr_t>(to) & 63) / sizeof(T);
    if (past_caches && head + line <= count) {
      std::copy(from, from + head, to);
      Index at = head;
      for (; at + line <= count; at += line)
        for (Index k = at; k < at + line; k += part)
          _mm_stream_si128(reinterpret_cast<__m128i*>(to + k),
                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
      std::copy(from + at, from + count, to + at);
      return;
    }
  }
#endif
  for (Index i = 0; i < count; ++i) to[i] = T(from[i]);
}

// Writes past the caches are seen by other threads after this.
inline void finish_writes() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// ---------------------------------------------------------------- threads

// `GOMP_parallel` of the OpenMP library that the caller computes with: its threads are awake
// already, and wait for work. Null: threads are started for every call.
using Parallel = void (*)(void (*function)(void*), void* data, unsigned threads,
                          unsigned flags);
inline std::atomic<Parallel> parallel{nullptr};

// Calls `worker(item)` for all items, taken in small runs by up to `threads` threads, each with
// its own copy of `worker` and so with its own scratch rows. False if memory ran out.
template <class Worker>
bool for_all(Index items, int threads, const Worker& worker) {
  const Index run = std::clamp<Index>(items / (16 * std::max(threads, 1)), 1, 16);
  std::atomic<Index> next{0};
  std::atomic<bool> complete{true};
  auto work = [&]() noexcept {
    try {
      Index first = next.fetch_add(run);
      if (first >= items) return;
      Worker own = worker;
      for (; first < items; first = next.fetch_add(run))
        for (Index item = first; item < std::min(first + run, items); ++item) own(item);
    } catch (...) {
      complete = false;
    }
    finish_writes();
  };
  if (threads <= 1 || items <= run) {
    work();
  } else if (const Parallel start = parallel) {
    start([](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work, threads, 0);
  } else {
    std::vector<std::thread> others;
    try {
      for (Index k = 1; k < std::min<Index>(threads, quotient_up(items, run)); ++k)
        others.emplace_back(work);
    } catch (...) {  // no more threads to be had: fewer do the same work
    }
    work();
    for (auto& other : others) other.join();
  }
  return complete;
}

// ---------------------------------------------------------------- groups and phases

// Calls `body` with lam as a constant if it is one of these, which lets the compiler unroll,
// else with 0.
template <Index... LAMS, class Body>
void with_constant_lam(Index lam, Body body) {
  const bool found =
      (... || (lam == LAMS && (body(std::integral_constant<Index, LAMS>()), true)));
  if (!found) body(std::integral_constant<Index, 0>());
}

// Calls `body(p, first, end)` for the phases of every group p = 0..U that belong to an output
// u.
template <class Body>
void for_groups(Index bins, Index lam, Body body) {
  const Index lead = (lam + 1) / 2;
  body(Index(0), lead, lam);
  for (Index p = 1; p < bins; ++p) body(p, Index(0), lam);
  body(bins, Index(0), lead);
}

// The weights of the first slots along an axis; `share` multiplies them.
template <class A>
std::vector<Blend<A>> slot_blends(Index lam, Index slots, A share) {
  std::vector<Blend<A>> blends(slots);
  for (Index slot = 0; slot < slots; ++slot) blends[slot] = blend_at(slot % lam, lam, share);
  return blends;
}

}  // namespace swap_align2nat
