// What the host kernels share: memory, threads, and what the compiler should know as constants.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>
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
#define SWAP_APART __attribute__((noinline))
#else
#define SWAP_APART
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

// Inlined always: GCC leaves out calls of functions that only prefetch, for they have no effect.
#if defined(__GNUC__)
#define SWAP_PREFETCH inline __attribute__((always_inline)) void
#else
#define SWAP_PREFETCH inline void
#endif

constexpr bool TO_WRITE = true;

template <bool WRITE = false>
SWAP_PREFETCH prefetch_line([[maybe_unused]] const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at, WRITE);
#endif
}

template <bool WRITE = false, class T>
SWAP_PREFETCH prefetch(const T* from, Index count) {
  const char *at = reinterpret_cast<const char*>(from), *end = reinterpret_cast<const char*>(from + count);
  for (; at < end; at += 64) prefetch_line<WRITE>(at);
  prefetch_line<WRITE>(end - 1);
}

// Of a stretch that will go past the caches, these lines are not written whole and so have to be read.
template <class T>
SWAP_PREFETCH prefetch_ends_to_write(const T* to, Index count) {
  prefetch_line<TO_WRITE>(to);
  prefetch_line<TO_WRITE>(reinterpret_cast<const char*>(to + count) - 1);
}

// Results larger than this will not be found in a cache by who reads them.
template <class T>
bool is_large(Index count) {
  return count * Index(sizeof(T)) > (Index(8) << 20);
}

// Inline, for few bytes.
inline void copy_short(const char* from, Index bytes, char* to) {
  if (bytes >= 16) {
    for (Index at = 0; at + 16 <= bytes; at += 16) std::memcpy(to + at, from + at, 16);
    std::memcpy(to + bytes - 16, from + bytes - 16, 16);
    return;
  }
  Index at = 0;
  if (bytes & 8) std::memcpy(to, from, 8), at = 8;
  if (bytes & 4) std::memcpy(to + at, from + at, 4), at += 4;
  if (bytes & 2) std::memcpy(to + at, from + at, 2);
}

#ifdef __SSE2__
// Few bytes, a multiple of four as is the address, past the caches.
inline void copy_short_past_caches(const char* from, Index bytes, char* to) {
  for (Index at = 0; at < bytes; at += 4) {
    int word;
    std::memcpy(&word, from + at, 4);
    _mm_stream_si32(reinterpret_cast<int*>(to + at), word);
  }
}
#endif

// Past the caches where the machine can: a line that is written whole need not be read before. ALONE: the
// rest of the lines at the ends is not written soon, so they need not be read either; for multiples of four.
template <bool ALONE = false>
void copy_past_caches(const char* from, Index bytes, char* to) {
#ifdef __SSE2__
  constexpr auto copy_end = ALONE ? copy_short_past_caches : copy_short;
  const Index head = std::min<Index>(bytes, -reinterpret_cast<uintptr_t>(to) & 63);
  copy_end(from, head, to);
  Index at = head;
#ifdef __AVX__
  for (; at + 64 <= bytes; at += 64)
    for (Index k = 0; k < 64; k += 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at + k),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at + k)));
#endif
  for (; at + 64 <= bytes; at += 64)
    for (Index k = 0; k < 64; k += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + k),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at + k)));
  copy_end(from + at, bytes - at, to + at);
#else
  std::memcpy(to, from, bytes);
#endif
}

template <bool ALONE = false, class T>
void put(const T* from, Index count, T* to, bool past_caches = false) {
  if (past_caches)
    copy_past_caches<ALONE>(reinterpret_cast<const char*>(from), count * sizeof(T),
                            reinterpret_cast<char*>(to));
  else
    std::memcpy(to, from, count * sizeof(T));
}

template <class A, class T>
void put(const A* from, Index count, T* to, bool = false) {
  for (Index i = 0; i < count; ++i) to[i] = T(from[i]);
}

template <class A, class T>
void put_short(const A* from, Index count, T* to) {
  if constexpr (std::is_same_v<A, T>)
    copy_short(reinterpret_cast<const char*>(from), count * sizeof(T), reinterpret_cast<char*>(to));
  else
    put(from, count, to);
}

// Writes past the caches are seen by other threads after this.
inline void finish_writes() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// ---------------------------------------------------------------- threads

// `GOMP_parallel` of the OpenMP library that the caller computes with: its threads are awake already, and
// wait for work. Null: threads are started for every call.
using Parallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
inline std::atomic<Parallel> parallel{nullptr};

// Calls `worker(item)` for all items, taken in small runs by up to `threads` threads, each with its own copy
// of `worker` and so with its own scratch rows. False if memory ran out.
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
      for (Index k = 1; k < std::min<Index>(threads, quotient_up(items, run)); ++k) others.emplace_back(work);
    } catch (...) {  // no more threads to be had: fewer do the same work
    }
    work();
    for (auto& other : others) other.join();
  }
  return complete;
}

// ---------------------------------------------------------------- constants

// Calls `body` with lam as a constant if it is one of these, which lets the compiler unroll, else with 0.
template <Index... LAMS, class Body>
void with_constant_lam(Index lam, Body body) {
  const bool found = (... || (lam == LAMS && (body(std::integral_constant<Index, LAMS>()), true)));
  if (!found) body(std::integral_constant<Index, 0>());
}

// Calls `body` with each truth value as a constant.
template <class Body>
void with_constants(Body body) {
  body();
}
template <class Body, class... Others>
void with_constants(Body body, bool first, Others... others) {
  if (first)
    with_constants([&](auto... rest) { body(std::true_type(), rest...); }, others...);
  else
    with_constants([&](auto... rest) { body(std::false_type(), rest...); }, others...);
}

// ---------------------------------------------------------------- groups of phases

// Calls `body(p, first, end)` for the phases of every group p = 0..U that belong to an output u.
template <class Body>
void for_groups(Index bins, Index lam, Body body) {
  const Index lead = (lam + 1) / 2;
  body(Index(0), lead, lam);
  for (Index p = 1; p < bins; ++p) body(p, Index(0), lam);
  body(bins, Index(0), lead);
}

}  // namespace swap_align2nat
