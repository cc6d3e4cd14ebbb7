// swap_align2nat on a GPU, for NVRTC (the torch op) and nvcc (the TensorRT plugin) alike: raw pointers, no library.
//
// The tile kernels move every byte about once. A block owns a few groups p along v, two neighbouring slots (core.h)
// and many columns; its threads walk along u, bin by bin. Neighbouring threads are neighbouring input columns, so
// reading is contiguous, and what two steps of the walk share stays in registers. The outputs of neighbouring
// columns lie far apart in memory, so they pass through shared memory and leave as contiguous runs along x. The
// backward is the same walk turned round. No atomics: every element is summed by one thread in a fixed order.
//
// The element kernels spend one thread per element on the arithmetic of core.h: windows, and shapes no tile fits.
#include "core.h"

#if defined(__CUDACC__)
#ifdef SWAP_NEEDS_HALF
#include <cuda_fp16.h>
#endif
#ifdef SWAP_NEEDS_BFLOAT16
#include <cuda_bf16.h>
#endif
#define SWAP_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace swap_align2nat {

#if defined(__CUDACC__)
#ifdef SWAP_NEEDS_HALF
using Half = __half;
#endif
#ifdef SWAP_NEEDS_BFLOAT16
using BFloat16 = __nv_bfloat16;
#endif
#endif

// ---------------------------------------------------------------- launch shapes
// tensormask_edu/ops/cuda.py repeats them for the torch op; a test holds the two equal.

constexpr int GROUPS = 2;  // groups p along v per block (backward: bins), so GROUPS + 1 bins (groups) are read
constexpr int ROWS = 2;    // neighbouring slots per block (backward: input rows), so ROWS + 1 rows (slots) are read
constexpr int STEPS = 8;   // groups along u per block (backward: bins)
constexpr int VALUES = GROUPS * ROWS;  // what a column yields per step
constexpr int PASSES = 2;              // backward: places of the stage per thread, at most
constexpr int MAX_THREADS = 256;
constexpr int MAX_SHARED_BYTES = 48 << 10;

// `tile`: cells per block (forward) or columns per block (backward). No blocks: use the element kernel.
struct Launch {
  Index blocks;
  int threads, shared_bytes, tile;
};

SWAP_HD int whole_warps(Index threads) { return int((threads + 31) / 32 * 32); }

// Shared memory of one column: its VALUES in words of at most 16 bytes, an odd number of them, so that neighbouring
// columns fall into different banks.
SWAP_HD int word_bytes(int bytes) { return VALUES * bytes % 16 == 0 ? 16 : 8; }
SWAP_HD int words_per_column(int bytes) { return VALUES * bytes / word_bytes(bytes) | 1; }
SWAP_HD Index stage_bytes(Index places, int bytes) { return 2 * places * words_per_column(bytes) * word_bytes(bytes); }

// The tile kernels add 32-bit byte offsets to 64-bit block addresses; every tensor of a usual size passes.
SWAP_HD bool offsets_fit(const Shape& s, int bytes) {
  const Index plane = s.H * s.W, out_plane = s.vy().coarse_cells() * s.ux().coarse_cells(), most = Index(1) << 31;
  return (GROUPS + 2) * s.U * plane * bytes < most && (GROUPS + 2) * s.lam * s.lam * s.U * out_plane * bytes < most;
}

// A tile is as many cells i = x + p as fit; they are dealt evenly to as few tiles as hold them.
SWAP_HD Launch forward_launch(const Shape& s, int columns, int bytes) {
  const Index cells = s.ux().coarse_cells() + STEPS - 1, most = (MAX_THREADS - 1) * columns / s.lam;
  if (most == 0 || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index tiles = quotient_up(cells, most), tile = quotient_up(cells, tiles);
  const Index shared = stage_bytes(s.lam * (tile | 1), bytes);
  if (shared > MAX_SHARED_BYTES) return {0, 0, 0, 0};
  const Index slots = quotient_up(s.lam * (s.vy().coarse_cells() + GROUPS - 1), ROWS);
  const Index blocks = s.N * quotient_up(s.V + 1, GROUPS) * quotient_up(s.U + 1, STEPS) * slots * tiles;
  return {blocks, whole_warps(quotient_up(s.lam * tile + columns - 1, columns)), int(shared), int(tile)};
}

// Cells that `columns` input columns may lie in, wherever the first one falls.
SWAP_HD Index cells_touched(const Shape& s, Index columns) { return quotient(columns + s.lam - 1, s.lam) + 1; }

SWAP_HD Launch backward_launch(const Shape& s, int bytes, int accumulator_bytes) {
  const Index tiles = quotient_up(s.W, MAX_THREADS), tile = quotient_up(s.W, tiles), cells = cells_touched(s, tile);
  const Index half = quotient_up(s.lam * cells, PASSES), threads = tile > half ? tile : half;
  const Index shared = stage_bytes(s.lam * (cells | 1), accumulator_bytes);
  if (threads > MAX_THREADS || shared > MAX_SHARED_BYTES || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index blocks = s.N * quotient_up(s.V, GROUPS) * quotient_up(s.U, STEPS) * quotient_up(s.H, ROWS) * tiles;
  return {blocks, whole_warps(threads), int(shared), int(tile)};
}

SWAP_HD Launch element_launch(Index elements) { return {quotient_up(elements, MAX_THREADS), MAX_THREADS, 0, 0}; }

// Input rows that one window reads per bin.
SWAP_HD Index reach(const Axis& axis) { return 2 * axis.lam + axis.half_cell(); }

// ---------------------------------------------------------------- helpers

// Takes a flat number apart, the fastest digit first.
struct Digits {
  Index rest;

  SWAP_HD Index next(Index extent) {
    const Index whole = quotient(rest, extent), digit = rest - whole * extent;
    rest = whole;
    return digit;
  }
};

// The same for the number of a block, in 32 bits.
struct BlockDigits {
  unsigned rest;

  __device__ int next(Index extent) {
    const unsigned whole = rest / unsigned(extent), digit = rest - whole * unsigned(extent);
    rest = whole;
    return int(digit);
  }
};

__device__ inline Index thread_number() { return Index(blockIdx.x) * blockDim.x + threadIdx.x; }

template <class T>
__device__ const T* moved(const T* base, unsigned bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) + bytes);
}

template <class T>
__device__ T* moved(T* base, unsigned bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(base) + bytes);
}

SWAP_HD int nearest(int i, int extent) { return i < 0 ? 0 : i < extent ? i : extent - 1; }

// The VALUES of the columns of a tile, in shared memory.
template <class T>
struct Stage {
  static constexpr int WORD_BYTES = VALUES * sizeof(T) % 16 == 0 ? 16 : 8, WORDS = VALUES * sizeof(T) / WORD_BYTES;
  struct alignas(WORD_BYTES) Word {
    unsigned part[WORD_BYTES / 4];
  };
  Word* words;

  __device__ void store(int place, const T (&value)[VALUES]) const {
    Word word[WORDS];
    memcpy(word, value, sizeof(value));
#pragma unroll
    for (int k = 0; k < WORDS; ++k) words[place * (WORDS | 1) + k] = word[k];
  }

  __device__ void load(int place, T (&value)[VALUES]) const {
    Word word[WORDS];
#pragma unroll
    for (int k = 0; k < WORDS; ++k) word[k] = words[place * (WORDS | 1) + k];
    memcpy(value, word, sizeof(value));
  }
};

// ---------------------------------------------------------------- forward, dense

// Reads COLUMNS neighbouring columns of one bin along u: the box means and the blend along v of the block's groups
// and slots, short of the factor 1/2 per axis. With COLUMNS > 1 they are inside or outside together, read at once.
template <class T, int COLUMNS>
struct ColumnReader {
  using A = Acc<T>;
  static constexpr int TAPS = GROUPS + 1, LINES = ROWS + 1, ALL = (1 << TAPS * LINES) - 1;
  struct Line {
    A of[COLUMNS][VALUES];
  };
  struct alignas(COLUMNS * sizeof(T)) Vector {
    T value[COLUMNS];
  };

  const T* base;                  // the columns in bin u' = 0 of the first tap and line
  unsigned offset[TAPS][LINES];   // bytes from there; what is outside is led inside, to be ignored
  int taps_there = 0;             // a bit per tap and line
  bool columns_there, right_there, pairs_x, pairs_y;
  A pad;
  Blend<A> blend[ROWS];

  __device__ ColumnReader(const T* input, const Shape& s, A pad_value, int n, int first_v, int first_slot, int x)
      : columns_there(inside(x, s.W)), right_there(s.ux().half_cell() && inside(x + COLUMNS, s.W)),
        pairs_x(s.ux().half_cell()), pairs_y(s.vy().half_cell()), pad(pad_value) {
    const int V = int(s.V), H = int(s.H), lam = int(s.lam), first_row = int(s.vy().row_of_slot(first_slot));
    const int v0 = nearest(first_v, V), row0 = nearest(first_row, H);
    base = input + (((n * s.V + v0) * s.U) * s.H + row0) * s.W + (columns_there ? x : x + COLUMNS == 0 ? -COLUMNS : 0);
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t) {
        const int v = nearest(first_v + i, V), row = nearest(first_row + t, H);
        offset[i][t] = unsigned((v - v0) * int(s.U * s.H * s.W) + (row - row0) * int(s.W)) * unsigned(sizeof(T));
        if (inside(first_v + i, V) && inside(first_row + t, H)) taps_there |= 1 << (i * LINES + t);
      }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) blend[r] = blend_at<A>((first_slot + r) % lam, lam);
  }

  // from: `base` moved to the bin; null: the bin is outside.
  __device__ void read(const T* from, bool wanted, Line& line) const {
    A sum[TAPS][LINES][COLUMNS];
    const A outside = pairs_x ? 2 * pad : pad;
    if (wanted && columns_there) {
      read_columns(from, sum);
    } else {
#pragma unroll
      for (int i = 0; i < TAPS; ++i)
#pragma unroll
        for (int t = 0; t < LINES; ++t) {
#pragma unroll
          for (int c = 0; c < COLUMNS; ++c) sum[i][t][c] = outside;
          if (wanted && right_there) sum[i][t][COLUMNS - 1] = pad + A(moved(from, offset[i][t])[COLUMNS]);
        }
    }
    if (taps_there != ALL) {
#pragma unroll
      for (int i = 0; i < TAPS; ++i)
#pragma unroll
        for (int t = 0; t < LINES; ++t)
#pragma unroll
          for (int c = 0; c < COLUMNS; ++c)
            if (!(taps_there >> (i * LINES + t) & 1)) sum[i][t][c] = outside;
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int i = 0; i < TAPS; ++i)
          if (pairs_y) sum[i][r][c] += sum[i][r + 1][c];
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) line.of[c][i * ROWS + r] = blend[r](sum[i][r][c], sum[i + 1][r][c]);
      }
  }

  __device__ void read_columns(const T* from, A (&sum)[TAPS][LINES][COLUMNS]) const {
    Vector vector[TAPS][LINES];
    T right[TAPS][LINES];
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t) {
        if (t < ROWS || pairs_y) vector[i][t] = *reinterpret_cast<const Vector*>(moved(from, offset[i][t]));
        right[i][t] = T(pad);
        if (right_there) right[i][t] = moved(from, offset[i][t])[COLUMNS];
      }
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          sum[i][t][c] = A(vector[i][t].value[c]);
          if (pairs_x) sum[i][t][c] += c + 1 < COLUMNS ? A(vector[i][t].value[(c + 1) % COLUMNS]) : A(right[i][t]);
        }
  }
};

// COLUMNS > 1: W is a multiple of it and the input aligned to COLUMNS values.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(MAX_THREADS)
    forward_tiles(const T* __restrict__ input, T* __restrict__ out, double pad_value, Index N, Index V, Index U,
                  Index H, Index W, Index lam_, Index tile_) {
  using A = Acc<T>;
  using Reader = ColumnReader<T, COLUMNS>;
  SWAP_SHARED(shared);
  const Shape s{N, V, U, H, W, lam_};
  const Axis vy = s.vy(), ux = s.ux();
  const int cells_y = int(vy.coarse_cells()), cells_x = int(ux.coarse_cells());
  const int fine_v = int(vy.fine_bins()), fine_u = int(ux.fine_bins()), lead = int(vy.lead());
  const int lam = int(lam_), tile = int(tile_), pitch = tile | 1;
  const Index plane = Index(cells_y) * cells_x;

  BlockDigits block{blockIdx.x};
  const int first_pu = STEPS * block.next(quotient_up(U + 1, STEPS));
  const int first_pv = GROUPS * block.next(quotient_up(V + 1, GROUPS));
  const int first_cell = first_pu + tile * block.next(quotient_up(cells_x + STEPS - 1, tile));
  const int first_slot = lam * first_pv + ROWS * block.next(quotient_up(lam * (cells_y + GROUPS - 1), ROWS));
  const int n = block.rest, end_pu = first_pu + STEPS < U + 1 ? first_pu + STEPS : int(U + 1);

  // This thread as a reader: COLUMNS neighbouring input columns, and where their results go in the stage.
  const int first_x = int(ux.row_of_slot(lam * first_cell)), skip = first_x & (COLUMNS - 1);
  const Reader reader(input, s, A(pad_value), n, first_pv - 1, first_slot, first_x - skip + COLUMNS * int(threadIdx.x));
  Blend<A> blend_u[COLUMNS];
  int place[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int slot = COLUMNS * int(threadIdx.x) + c - skip, cell = slot / lam, phase = slot - cell * lam;
    const bool mine = slot >= 0 && slot < lam * tile;
    blend_u[c] = blend_at<A>(mine ? phase : 0, lam, A(1) / A((1 + reader.pairs_x) * (1 + reader.pairs_y)));
    place[c] = mine ? phase * pitch + cell : -1;
  }
  const int slot = COLUMNS * int(threadIdx.x) - skip + lam * first_cell;
  const int low_cell = slot / lam, high_cell = (slot + COLUMNS - 1) / lam;

  // This thread as a writer: COLUMNS places of the stage, taken in the order of x, and their first output (u, x).
  int written_place[COLUMNS], first_u[COLUMNS], first_out_x[COLUMNS];
  unsigned written[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int number = int(threadIdx.x) + c * int(blockDim.x), phase = number / tile, cell = number - phase * tile;
    written_place[c] = phase * pitch + cell;
    written[c] = unsigned(phase * int(plane) + cell) * unsigned(sizeof(T));
    first_u[c] = phase < lam ? lam * first_pu + phase - lead : -(1 << 30);
    first_out_x[c] = first_cell + cell - first_pu;
  }

  // The block as a writer: an output row (v, y) per group and slot.
  Index line[VALUES];
  int lines_there = 0;
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    const int p = first_pv + k / ROWS, slot_v = first_slot + k % ROWS, cell = slot_v / lam, y = cell - p;
    const int v = lam * p + slot_v - lam * cell - lead;
    line[k] = (Index(v) * fine_u * cells_y + y) * cells_x;
    if (inside(v, fine_v) && inside(y, cells_y)) lines_there |= 1 << k;
  }
  T* to = out + (n * Index(fine_v) * fine_u + lam * first_pu - lead) * plane + first_cell - first_pu;

  typename Reader::Line lower, upper;
  const T* from = reader.base + (first_pu - 1) * H * W;
  reader.read(from, first_pu > 0, lower);
  for (int p = first_pu; p < end_pu; ++p, to += lam * plane - 1) {
    from += H * W;
    reader.read(from, p < U && low_cell - p <= cells_x && high_cell - p >= 0, upper);
    const Stage<T> stage{reinterpret_cast<typename Stage<T>::Word*>(shared) + (p & 1) * lam * pitch * (Stage<T>::WORDS | 1)};
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      T result[VALUES];
#pragma unroll
      for (int k = 0; k < VALUES; ++k) result[k] = T(blend_u[c](lower.of[c][k], upper.of[c][k]));
      if (place[c] >= 0) stage.store(place[c], result);
    }
    lower = upper;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int step = p - first_pu;
      if (!inside(first_u[c] + lam * step, fine_u) || !inside(first_out_x[c] - step, cells_x)) continue;
      T result[VALUES];
      stage.load(written_place[c], result);
#pragma unroll
      for (int k = 0; k < VALUES; ++k)
        if (lines_there >> k & 1) *moved(to + line[k], written[c]) = result[k];
    }
  }
}

// ---------------------------------------------------------------- backward, dense

template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_tiles(const T* __restrict__ grad, T* __restrict__ grad_input, Index N, Index V, Index U, Index H, Index W,
                   Index lam_, Index tile) {
  using A = Acc<T>;
  constexpr int TAPS = GROUPS + 1, SLOTS = ROWS + 1;
  SWAP_SHARED(shared);
  const Shape s{N, V, U, H, W, lam_};
  const Axis vy = s.vy(), ux = s.ux();
  const int cells_y = int(vy.coarse_cells()), cells_x = int(ux.coarse_cells());
  const int fine_v = int(vy.fine_bins()), fine_u = int(ux.fine_bins()), lead = int(vy.lead());
  const int lam = int(lam_), pairs_x = int(ux.half_cell()), pairs_y = int(vy.half_cell());
  const Index plane = Index(cells_y) * cells_x;

  BlockDigits block{blockIdx.x};
  const int first_u = STEPS * block.next(quotient_up(U, STEPS));
  const int first_v = GROUPS * block.next(quotient_up(V, GROUPS));
  const int first_x = int(tile) * block.next(quotient_up(W, tile));
  const int first_y = ROWS * block.next(quotient_up(H, ROWS));
  const int n = block.rest, end_u = first_u + STEPS < U ? first_u + STEPS : int(U);

  // The cells under the tile's columns and the column before the first one.
  const int end_x = first_x + tile < W ? first_x + int(tile) : int(W);
  const int first_cell = int(ux.slot_of_row(first_x - 1)) / lam, cells = int(ux.slot_of_row(end_x - 1)) / lam - first_cell + 1;
  const int pitch = cells | 1;

  // The block as a reader: an output row (v, y) per group and slot.
  Blend<A> blend_v[SLOTS];
  unsigned line[TAPS][SLOTS];
  int lines_there = 0;
  const int first_slot = int(vy.slot_of_row(first_y - 1)), cell0 = first_slot / lam;
#pragma unroll
  for (int t = 0; t < SLOTS; ++t) {
    const int cell = (first_slot + t) / lam, phase = first_slot + t - lam * cell;
    blend_v[t] = blend_at<A>(phase, lam);
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      const int v = lam * (first_v + i) + phase - lead, y = cell - first_v - i;
      line[i][t] = unsigned(((lam * i + phase) * fine_u * cells_y + cell - cell0 - i + TAPS) * cells_x) * unsigned(sizeof(T));
      if (inside(v, fine_v) && inside(y, cells_y) && (t > 0 || pairs_y)) lines_there |= 1 << (i * SLOTS + t);
    }
  }
  const T* from = grad + ((n * Index(fine_v) + lam * first_v - lead) * fine_u + lam * first_u - lead) * plane +
                  Index(cell0 - first_v - TAPS) * cells_x + first_cell - first_u;

  // This thread as a reader: PASSES places of the stage, taken in the order of x, and their first output (u, x).
  int read_place[PASSES], read_u[PASSES], read_x[PASSES];
  unsigned read[PASSES];
#pragma unroll
  for (int k = 0; k < PASSES; ++k) {
    const int number = int(threadIdx.x) + k * int(blockDim.x), phase = number / cells, cell = number - phase * cells;
    read_place[k] = phase < lam ? phase * pitch + cell : -1;
    read_u[k] = lam * first_u + phase - lead;
    read_x[k] = first_cell + cell - first_u;
    read[k] = unsigned(phase * int(plane) + cell) * unsigned(sizeof(T));
  }

  // This thread as a writer: one input column, and the places of the columns x-1 and x that it sums.
  const int x = first_x + int(threadIdx.x);
  const bool mine = x < end_x;
  Blend<A> blend_u[2];
  int place[2];
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    const int slot = mine ? int(ux.slot_of_row(x - 1 + c)) : lam * first_cell, cell = slot / lam, phase = slot - lam * cell;
    blend_u[c] = blend_at<A>(phase, lam, A(1) / A((1 + pairs_y) * (1 + pairs_x)));
    place[c] = phase * pitch + cell - first_cell;
  }
  T* to = grad_input + (((n * V + first_v) * U + first_u - 1) * H + first_y) * W + x;

  A before[2][VALUES];
  for (int p = first_u; p <= end_u; ++p, from += lam * plane - 1, to += H * W) {
    const Stage<A> stage{reinterpret_cast<typename Stage<A>::Word*>(shared) + (p & 1) * lam * pitch * (Stage<A>::WORDS | 1)};
#pragma unroll
    for (int k = 0; k < PASSES; ++k) {
      const int step = p - first_u;
      A value[TAPS][SLOTS] = {};
      if (inside(read_u[k] + lam * step, fine_u) && inside(read_x[k] - step, cells_x) && read_place[k] >= 0) {
#pragma unroll
        for (int i = 0; i < TAPS; ++i)
#pragma unroll
          for (int t = 0; t < SLOTS; ++t)
            if (lines_there >> (i * SLOTS + t) & 1) value[i][t] = A(*moved(moved(from, line[i][t]), read[k]));
      }
      A result[VALUES];
#pragma unroll
      for (int i = 0; i < GROUPS; ++i)
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          result[i * ROWS + r] = blend_v[r + 1](value[i + 1][r + 1], value[i][r + 1]);
          if (pairs_y) result[i * ROWS + r] += blend_v[r](value[i + 1][r], value[i][r]);
        }
      if (read_place[k] >= 0) stage.store(read_place[k], result);
    }
    __syncthreads();
    A here[2][VALUES];
#pragma unroll
    for (int c = 0; c < 2; ++c) stage.load(place[c], here[c]);
    if (mine && p > first_u) {
#pragma unroll
      for (int k = 0; k < VALUES; ++k) {
        const int i = k / ROWS, r = k % ROWS;
        A sum = blend_u[1](here[1][k], before[1][k]);
        if (pairs_x) sum += blend_u[0](here[0][k], before[0][k]);
        if (first_v + i < V && first_y + r < H) to[(i * U * H + r) * W] = T(sum);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (int k = 0; k < VALUES; ++k) before[c][k] = here[c][k];
  }
}

// ---------------------------------------------------------------- one thread per element

template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    forward_elements(const T* __restrict__ input, T* __restrict__ out, double pad_value, Index N, Index V, Index U,
                     Index H, Index W, Index lam) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= s.output_size()) return;
  Digits digits{number};
  const Index x = digits.next(s.ux().coarse_cells()), y = digits.next(s.vy().coarse_cells());
  const Index u = digits.next(lam * U), v = digits.next(lam * V);
  out[number] = T(output_element<Acc<T>>(input, s, Acc<T>(pad_value), digits.rest, v, u, y, x));
}

template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_elements(const T* __restrict__ grad, T* __restrict__ grad_input, Index N, Index V, Index U, Index H,
                      Index W, Index lam) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= s.input_size()) return;
  Digits digits{number};
  const Index x = digits.next(W), y = digits.next(H), u = digits.next(U), v = digits.next(V);
  grad_input[number] = T(input_gradient<Acc<T>>(grad, s, digits.rest, v, u, y, x));
}

// index: (K, 3), the cells (n, y, x); out: (K, lam*V, lam*U)
template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    forward_windows(const T* __restrict__ input, const Index* __restrict__ index, T* __restrict__ out,
                    double pad_value, Index N, Index V, Index U, Index H, Index W, Index lam, Index K) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= K * s.window_size()) return;
  Digits digits{number};
  const Index u = digits.next(lam * U), v = digits.next(lam * V);
  const Index* const cell = index + 3 * digits.rest;
  out[number] = T(output_element<Acc<T>>(input, s, Acc<T>(pad_value), cell[0], v, u, cell[1], cell[2]));
}

// The windows sorted by cell: those of cell c are order[start[c]] .. order[start[c+1] - 1].
struct CellLists {
  const Index *start, *order;
};

// Sums over every window that reads the element; `first` is the position of the first of them in the sorted order.
template <class A, class T>
__device__ A windows_gradient(const T* grad, const CellLists& lists, const Shape& s, Index n, Index v, Index u, Index y,
                              Index x, Index& first) {
  const Readers<A> a = readers<A>(s.vy(), v, y), b = readers<A>(s.ux(), u, x);
  A sum = 0;
  for (int pair = 0; pair < 16; ++pair) {
    const int i = pair >> 2, j = pair & 3;
    if (a.weight[i] == 0 || b.weight[j] == 0) continue;
    const Index cell = (n * s.vy().coarse_cells() + a.cell[i]) * s.ux().coarse_cells() + b.cell[j];
    for (Index t = lists.start[cell]; t < lists.start[cell + 1]; ++t) {
      const Index bin = (lists.order[t] * s.lam * s.V + a.bin[i]) * s.lam * s.U + b.bin[j];
      sum += a.weight[i] * b.weight[j] * A(grad[bin]);
      if (t < first) first = t;
    }
  }
  return sum;
}

// Every input element, for many windows.
template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_windows(const T* __restrict__ grad, const Index* __restrict__ start, const Index* __restrict__ order,
                     T* __restrict__ grad_input, Index N, Index V, Index U, Index H, Index W, Index lam) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= s.input_size()) return;
  Digits digits{number};
  const Index x = digits.next(W), y = digits.next(H), u = digits.next(U), v = digits.next(V);
  Index first = 0;
  grad_input[number] = T(windows_gradient<Acc<T>>(grad, {start, order}, s, digits.rest, v, u, y, x, first));
}

// The input elements that the windows read, for few windows, into a gradient of zeros. An element is written on
// behalf of the first window that reads it, so by one thread.
template <class T>
__global__ void __launch_bounds__(MAX_THREADS)
    backward_few_windows(const T* __restrict__ grad, const Index* __restrict__ index, const Index* __restrict__ start,
                         const Index* __restrict__ order, T* __restrict__ grad_input, Index N, Index V, Index U,
                         Index H, Index W, Index lam, Index K) {
  const Shape s{N, V, U, H, W, lam};
  const Axis vy = s.vy(), ux = s.ux();
  Digits digits{thread_number()};
  const Index column = digits.next(reach(ux)), row = digits.next(reach(vy));
  const Index u = digits.next(U), v = digits.next(V), own = digits.rest;
  if (own >= K) return;
  const Index* const cell = index + 3 * order[own];
  const Index y = vy.row_of_slot(lam * (cell[1] + v)) + row, x = ux.row_of_slot(lam * (cell[2] + u)) + column;
  if (!inside(y, H) || !inside(x, W)) return;
  Index first = K;
  const Acc<T> sum = windows_gradient<Acc<T>>(grad, {start, order}, s, cell[0], v, u, y, x, first);
  if (first == own) grad_input[(((cell[0] * V + v) * U + u) * H + y) * W + x] = T(sum);
}

}  // namespace swap_align2nat
