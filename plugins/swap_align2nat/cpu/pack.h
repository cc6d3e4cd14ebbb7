// Four or eight numbers as one, and how they change places: compiler's vectors, or arrays.
#pragma once

#include <cstddef>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // packs are passed between inline functions alone
#endif

namespace swap_align2nat {

#if defined(__has_builtin) && !defined(SWAP_NO_VECTORS)
#if __has_builtin(__builtin_shufflevector)
#define SWAP_VECTORS
#endif
#endif

template <class A, int WIDTH>
struct Pack {
  static constexpr int width = WIDTH;
#ifdef SWAP_VECTORS
  typedef A Values __attribute__((vector_size(WIDTH * sizeof(A))));
#else
  typedef A Values[WIDTH];
#endif
  Values values;

  void store(A* to) const { std::memcpy(to, &values, sizeof values); }
  // The first four, and of a pack of eight the others.
  void store_fours(A* first, A* last) const {
    std::memcpy(first, &values, 4 * sizeof(A));
    if constexpr (WIDTH == 8) std::memcpy(last, reinterpret_cast<const A*>(&values) + 4, 4 * sizeof(A));
  }
};

template <class A, int WIDTH>
inline Pack<A, WIDTH> operator*(Pack<A, WIDTH> a, Pack<A, WIDTH> b) {
#ifdef SWAP_VECTORS
  return {a.values * b.values};
#else
  for (int k = 0; k < WIDTH; ++k) a.values[k] *= b.values[k];
  return a;
#endif
}

template <class A, int WIDTH>
inline Pack<A, WIDTH> operator+(Pack<A, WIDTH> a, Pack<A, WIDTH> b) {
#ifdef SWAP_VECTORS
  return {a.values + b.values};
#else
  for (int k = 0; k < WIDTH; ++k) a.values[k] += b.values[k];
  return a;
#endif
}

// Numbers of `a`, counted from 0, and of `b`, counted on.
template <int... FROM, class P>
inline P pick(P a, P b) {
#ifdef SWAP_VECTORS
  return {__builtin_shufflevector(a.values, b.values, FROM...)};
#else
  const int from[] = {FROM...};
  P picked;
  for (int k = 0; k < P::width; ++k)
    picked.values[k] = from[k] < P::width ? a.values[from[k]] : b.values[from[k] - P::width];
  return picked;
#endif
}

// Four numbers at `from`; of a pack of eight the other four at `from + half`.
template <class P, class A>
inline P load(const A* from, std::ptrdiff_t half) {
#ifdef SWAP_VECTORS
  using Four = typename Pack<A, 4>::Values;
  Four low, high;
  std::memcpy(&low, from, sizeof low);
  if constexpr (P::width == 8) {
    std::memcpy(&high, from + half, sizeof high);
    return {__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7)};
  } else {
    return {low};
  }
#else
  P pack;
  for (int k = 0; k < P::width; ++k) pack.values[k] = k < 4 ? from[k] : from[half + k - 4];
  return pack;
#endif
}

// Of each four: the first two numbers of a and b in turn, or the last two.
template <class P>
inline P low_pairs(P a, P b) {
  if constexpr (P::width == 8)
    return pick<0, 8, 1, 9, 4, 12, 5, 13>(a, b);
  else
    return pick<0, 4, 1, 5>(a, b);
}
template <class P>
inline P high_pairs(P a, P b) {
  if constexpr (P::width == 8)
    return pick<2, 10, 3, 11, 6, 14, 7, 15>(a, b);
  else
    return pick<2, 6, 3, 7>(a, b);
}

// Of each four: every second number of a, then of b.
template <class P>
inline P even(P a, P b) {
  if constexpr (P::width == 8)
    return pick<0, 2, 8, 10, 4, 6, 12, 14>(a, b);
  else
    return pick<0, 2, 4, 6>(a, b);
}
template <class P>
inline P odd(P a, P b) {
  if constexpr (P::width == 8)
    return pick<1, 3, 9, 11, 5, 7, 13, 15>(a, b);
  else
    return pick<1, 3, 5, 7>(a, b);
}

// Four rows of four become four columns; in packs of eight each half does so for itself.
template <class P>
inline void turn(P& a, P& b, P& c, P& d) {
  const P low02 = low_pairs(a, c), low13 = low_pairs(b, d);
  const P high02 = high_pairs(a, c), high13 = high_pairs(b, d);
  a = low_pairs(low02, low13);
  b = high_pairs(low02, low13);
  c = low_pairs(high02, high13);
  d = high_pairs(high02, high13);
}

// Four rows of four pairs become four columns.
template <class A>
inline void turn_pairs(Pack<A, 8>& a, Pack<A, 8>& b, Pack<A, 8>& c, Pack<A, 8>& d) {
  const auto even_ab = pick<0, 1, 8, 9, 4, 5, 12, 13>(a, b), odd_ab = pick<2, 3, 10, 11, 6, 7, 14, 15>(a, b);
  const auto even_cd = pick<0, 1, 8, 9, 4, 5, 12, 13>(c, d), odd_cd = pick<2, 3, 10, 11, 6, 7, 14, 15>(c, d);
  a = pick<0, 1, 2, 3, 8, 9, 10, 11>(even_ab, even_cd);
  b = pick<0, 1, 2, 3, 8, 9, 10, 11>(odd_ab, odd_cd);
  c = pick<4, 5, 6, 7, 12, 13, 14, 15>(even_ab, even_cd);
  d = pick<4, 5, 6, 7, 12, 13, 14, 15>(odd_ab, odd_cd);
}

}  // namespace swap_align2nat
