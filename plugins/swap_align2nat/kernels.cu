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
// Blocks per multiprocessor that the forward's registers must leave room for; newer compilers need more registers.
#define SWAP_FORWARD_BLOCKS (__CUDA_ARCH__ >= 1000 ? 2 : 3)
// Keeps the compiler from spreading the bits of a mask over as many registers for the length of a loop.
#define SWAP_KEEP_PACKED(mask) asm volatile("" : "+r"(mask))
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

constexpr int GROUPS = 2;         // groups p along v per block (backward: bins); GROUPS + 1 bins (groups) are read
constexpr int STEPS = 8;          // groups along u per block (backward: bins)
constexpr int FORWARD_ROWS = 2;   // neighbouring slots per block; one row more is read
constexpr int BACKWARD_ROWS = 4;  // neighbouring input rows per block; one slot more is read
constexpr int PASSES = 2;         // backward: places of the stage per thread, at most
constexpr int FORWARD_THREADS = 160, BACKWARD_THREADS = 384, ELEMENT_THREADS = 256;
constexpr int MAX_SHARED_BYTES = 48 << 10;

// `tile`: cells per block (forward) or columns per block (backward). No blocks: use the element kernel.
struct Launch {
  Index blocks;
  int threads, shared_bytes, tile;
};

SWAP_HD int whole_warps(Index threads) { return int((threads + 31) / 32 * 32); }

// The values of one column of the stage are moved in words of at most 16 bytes, an odd number of them, so that
// neighbouring columns fall into different banks.
SWAP_HD constexpr int word_bytes(int bytes) { return bytes % 16 == 0 ? 16 : 8; }
SWAP_HD constexpr int words_of(int bytes) { return bytes / word_bytes(bytes) | 1; }

// Twice: one half is written while the other is read.
SWAP_HD Index stage_bytes(Index places, int bytes) { return 2 * places * words_of(bytes) * word_bytes(bytes); }

// The tile kernels add 32-bit byte offsets to 64-bit block addresses; every tensor of a usual size passes.
SWAP_HD bool offsets_fit(const Shape& s, int bytes) {
  const Index plane = s.H * s.W, out_plane = s.lam * s.lam * s.vy().coarse_cells() * s.ux().coarse_cells();
  return (GROUPS + 2) * s.U * (plane > out_plane ? plane : out_plane) * bytes < Index(1) << 31;
}

// A tile is as many cells i = x + p as fit; they are dealt evenly to as few tiles as hold them.
SWAP_HD Launch forward_launch(const Shape& s, int columns, int bytes) {
  const Index cells = s.ux().coarse_cells() + STEPS - 1, most = (FORWARD_THREADS - 1) * columns / s.lam;
  if (most == 0 || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index tiles = quotient_up(cells, most), tile = quotient_up(cells, tiles);
  const Index shared = stage_bytes(s.lam * (tile | 1), GROUPS * FORWARD_ROWS * bytes);
  if (shared > MAX_SHARED_BYTES) return {0, 0, 0, 0};
  const Index slots = quotient_up(s.lam * (s.vy().coarse_cells() + GROUPS - 1), FORWARD_ROWS);
  const Index blocks = s.N * quotient_up(s.V + 1, GROUPS) * quotient_up(s.U + 1, STEPS) * slots * tiles;
  return {blocks, whole_warps(quotient_up(s.lam * tile + columns - 1, columns)), int(shared), int(tile)};
}

SWAP_HD Launch backward_launch(const Shape& s, int bytes) {
  const Index tiles = quotient_up(s.W, BACKWARD_THREADS), tile = quotient_up(s.W, tiles);
  const Index cells = quotient(tile + s.lam - 1, s.lam) + 1;  // that the tile may touch, wherever its first column falls
  const Index half = quotient_up(s.lam * cells, PASSES), threads = tile > half ? tile : half;
  const Index shared = stage_bytes(s.lam * (cells | 1), GROUPS * BACKWARD_ROWS * (bytes > 4 ? bytes : 4));
  if (threads > BACKWARD_THREADS || shared > MAX_SHARED_BYTES || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index rows = quotient_up(s.H, BACKWARD_ROWS);
  const Index blocks = s.N * quotient_up(s.V, GROUPS) * quotient_up(s.U, STEPS) * rows * tiles;
  return {blocks, whole_warps(threads), int(shared), int(tile)};
}

SWAP_HD Launch element_launch(Index elements) {
  return {(elements + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS, 0, 0};
}

// Input rows that one window reads per bin.
SWAP_HD Index reach(const Axis& axis) { return 2 * axis.lam + axis.half_cell(); }

// ---------------------------------------------------------------- helpers

// a / b for b < 2^32, bit by bit: the compiler's own 64-bit division is a call, which costs every kernel registers.
SWAP_HD Index long_quotient(Index a, Index b) {
  Index whole = quotient(a >> 32, b), rest = (a >> 32) - whole * b;
  for (int bit = 31; bit >= 0; --bit) {
    rest = 2 * rest + (a >> bit & 1);
    whole = 2 * whole + (rest >= b);
    if (rest >= b) rest -= b;
  }
  return whole;
}

// Takes a flat number apart, the fastest digit first.
struct Digits {
  Index rest;

  SWAP_HD Index next(Index extent) {
    const Index whole = rest >> 32 == 0 ? quotient(rest, extent) : long_quotient(rest, extent), digit = rest - whole * extent;
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

// Bit t: in step t, (u + lam*t, x - t) is an output's.
__device__ inline int steps_inside(int count, int u, int x, int lam, int fine_u, int cells_x) {
  int steps = 0;
  for (int t = 0; t < count; ++t)
    if (inside(u + lam * t, fine_u) && inside(x - t, cells_x)) steps |= 1 << t;
  return steps;
}

// COUNT values of each column of a tile, in shared memory.
template <class T, int COUNT>
struct Stage {
  static constexpr int BYTES = COUNT * int(sizeof(T)), WORD_BYTES = word_bytes(BYTES), STRIDE = words_of(BYTES);
  struct alignas(WORD_BYTES) Word {
    unsigned part[WORD_BYTES / 4];
  };
  Word* words;

  // The half of the stage for step t.
  __device__ Stage(unsigned char* shared, int places, int t) : words(reinterpret_cast<Word*>(shared)) {
    if (t & 1) words += places * STRIDE;
  }

  __device__ void store(int place, const T (&value)[COUNT]) const {
    Word word[BYTES / WORD_BYTES];
    memcpy(word, value, BYTES);
#pragma unroll
    for (int k = 0; k < BYTES / WORD_BYTES; ++k) words[place * STRIDE + k] = word[k];
  }

  __device__ void load(int place, T (&value)[COUNT]) const {
    Word word[BYTES / WORD_BYTES];
#pragma unroll
    for (int k = 0; k < BYTES / WORD_BYTES; ++k) word[k] = words[place * STRIDE + k];
    memcpy(value, word, BYTES);
  }
};

// ---------------------------------------------------------------- forward, dense

// Reads COLUMNS neighbouring columns of one bin along u: the box means and the blend along v of the block's groups
// and slots, short of the factor 1/2 per axis. With COLUMNS > 1 they are inside or outside together, read at once.
template <class T, int COLUMNS>
struct ColumnReader {
  using A = Acc<T>;
  static constexpr int ROWS = FORWARD_ROWS, TAPS = GROUPS + 1, LINES = ROWS + 1, ALL = (1 << TAPS * LINES) - 1;
  struct Blended {
    A of[COLUMNS][GROUPS * ROWS];
  };
  struct alignas(COLUMNS * sizeof(T)) Vector {
    T value[COLUMNS];
  };

  const T* base;                 // the columns in bin u' = 0 of the first tap and line
  unsigned offset[TAPS][LINES];  // bytes from there; what is outside is led inside, to be ignored
  int taps_there = 0;            // a bit per tap and line
  bool columns_there, right_there, pairs_x, pairs_y;
  A pad;
  Blend<A> blend[ROWS];

  __device__ ColumnReader(const T* input, const Shape& s, A pad_value, int n, int first_v, int first_slot, int x)
      : columns_there(inside(x, int(s.W))), right_there(s.ux().half_cell() && inside(x + COLUMNS, int(s.W))),
        pairs_x(s.ux().half_cell()), pairs_y(s.vy().half_cell()), pad(pad_value) {
    const int V = int(s.V), H = int(s.H), lam = int(s.lam), first_row = int(s.vy().row_of_slot(first_slot));
    const int v0 = nearest(first_v, V), row0 = nearest(first_row, H), x0 = columns_there || right_there ? x : 0;
    base = input + (((n * s.V + v0) * s.U) * s.H + row0) * s.W + x0;
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

  // from: `base` moved to the bin; not wanted: the bin is outside, or none of its outputs is.
  __device__ void read(const T* from, bool wanted, Blended& blended) const {
    A sum[TAPS][LINES][COLUMNS];
    if (wanted && columns_there)
      read_columns(from, sum);
    else
      read_outside(from, wanted, sum);
    if (taps_there != ALL) {
#pragma unroll
      for (int k = 0; k < TAPS * LINES * COLUMNS; ++k)
        if (!(taps_there >> k / COLUMNS & 1)) sum[k / COLUMNS / LINES][k / COLUMNS % LINES][k % COLUMNS] = outside();
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int i = 0; i < TAPS; ++i)
          if (pairs_y) sum[i][r][c] += sum[i][r + 1][c];
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) blended.of[c][i * ROWS + r] = blend[r](sum[i][r][c], sum[i + 1][r][c]);
      }
  }

  __device__ A outside() const { return pairs_x ? 2 * pad : pad; }

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

  // Left of column 0 the last column may still have a right neighbour inside.
  __device__ void read_outside(const T* from, bool wanted, A (&sum)[TAPS][LINES][COLUMNS]) const {
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t) {
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) sum[i][t][c] = outside();
        if (wanted && right_there) sum[i][t][COLUMNS - 1] = pad + A(moved(from, offset[i][t])[COLUMNS]);
      }
  }
};

// COLUMNS > 1: W is a multiple of it and the input aligned to COLUMNS values.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(FORWARD_THREADS, SWAP_FORWARD_BLOCKS)
    forward_tiles(const T* __restrict__ input, T* __restrict__ out, double pad_value, Index N, Index V, Index U,
                  Index H, Index W, Index lam_, Index tile_) {
  using A = Acc<T>;
  constexpr int ROWS = FORWARD_ROWS, VALUES = GROUPS * ROWS;
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
  const int n = block.rest;

  // This thread as a reader: COLUMNS neighbouring input columns, and where their results go in the stage.
  const int first_x = int(ux.row_of_slot(lam * first_cell)), skip = first_x & (COLUMNS - 1);
  const int first_column = COLUMNS * int(threadIdx.x) - skip;
  const ColumnReader<T, COLUMNS> reader(input, s, A(pad_value), n, first_pv - 1, first_slot, first_x + first_column);
  const A share = A(1) / A((1 + reader.pairs_x) * (1 + reader.pairs_y));
  A upper_weight[COLUMNS];  // the lower one is the rest of `share`
  int place[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int slot = first_column + c, cell = slot / lam, phase = slot - cell * lam;
    const bool mine = slot >= 0 && slot < lam * tile;
    upper_weight[c] = blend_at<A>(mine ? phase : 0, lam, share).upper;
    place[c] = mine ? phase * pitch + cell : -1;
  }
  // Bin p is wanted by the outputs x and x-1 of group p and p+1, so if any column has its x in 0..cells_x.
  const int low_x = first_cell + first_column / lam, high_x = first_cell + (first_column + COLUMNS - 1) / lam;

  // This thread as a writer: COLUMNS places of the stage, taken in the order of x, and their first output (u, x).
  int written_place[COLUMNS], written_steps = 0;  // STEPS bits per place
  unsigned written[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int number = int(threadIdx.x) + c * int(blockDim.x), phase = number / tile, cell = number - phase * tile;
    written_place[c] = phase * pitch + cell;
    written[c] = unsigned(phase * int(plane) + cell) * unsigned(sizeof(T));
    if (phase < lam)
      written_steps |= steps_inside(STEPS, lam * first_pu + phase - lead, first_cell + cell - first_pu, lam, fine_u, cells_x)
                       << c * STEPS;
  }
  static_assert(COLUMNS * STEPS <= 32, "the steps of all places fit one mask");

  // The block as a writer: an output row (v, y) per group and slot.
  unsigned line[VALUES];
  int lines_there = 0;
  const int cell0 = first_slot / lam;
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    const int i = k / ROWS, slot = first_slot + k % ROWS, cell = slot / lam, phase = slot - lam * cell;
    const int v = lam * (first_pv + i) + phase - lead, y = cell - first_pv - i;
    line[k] = unsigned(((lam * i + phase) * fine_u * cells_y + cell - cell0 - i + GROUPS) * cells_x) * unsigned(sizeof(T));
    if (inside(v, fine_v) && inside(y, cells_y)) lines_there |= 1 << k;
  }
  T* to = out + ((n * Index(fine_v) + lam * first_pv - lead) * fine_u + lam * first_pu - lead) * plane +
          Index(cell0 - first_pv - GROUPS) * cells_x + first_cell - first_pu;

  // The walk: what bin p-1 gives to group p is carried over.
  typename ColumnReader<T, COLUMNS>::Blended bin;
  A carried[COLUMNS][VALUES] = {};
  const T* from = reader.base + (first_pu - 1) * H * W;
  const int steps = first_pu + STEPS < int(U) + 1 ? STEPS : int(U) + 1 - first_pu;
  for (int t = -1; t < steps; ++t, from += H * W) {
    const int p = first_pu + t;
    reader.read(from, p >= 0 && p < int(U) && low_x - p <= cells_x && high_x - p >= 0, bin);
    const Stage<T, VALUES> stage(shared, lam * pitch, t);
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      T result[VALUES];
#pragma unroll
      for (int k = 0; k < VALUES; ++k) {
        if (upper_weight[c] != 0) carried[c][k] += upper_weight[c] * bin.of[c][k];
        result[k] = T(carried[c][k]);
        carried[c][k] = (share - upper_weight[c]) * bin.of[c][k];
      }
      if (t >= 0 && place[c] >= 0) stage.store(place[c], result);
    }
    if (t < 0) continue;
    __syncthreads();
    SWAP_KEEP_PACKED(lines_there);
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      if (!(written_steps >> (c * STEPS + t) & 1)) continue;
      T result[VALUES];
      stage.load(written_place[c], result);
      T* const place_of = moved(to, written[c]);
#pragma unroll
      for (int k = 0; k < VALUES; ++k)
        if (lines_there >> k & 1) *moved(place_of, line[k]) = result[k];
    }
    to += lam * plane - 1;
  }
}

// ---------------------------------------------------------------- backward, dense

template <class T>
__global__ void __launch_bounds__(BACKWARD_THREADS)
    backward_tiles(const T* __restrict__ grad, T* __restrict__ grad_input, Index N, Index V, Index U, Index H, Index W,
                   Index lam_, Index tile) {
  using A = Acc<T>;
  constexpr int ROWS = BACKWARD_ROWS, VALUES = GROUPS * ROWS, TAPS = GROUPS + 1, SLOTS = ROWS + 1;
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
  const int n = block.rest;

  // The slots and cells under the tile's columns and the column before the first one.
  const int end_x = first_x + tile < W ? first_x + int(tile) : int(W);
  const int low_slot = int(ux.slot_of_row(first_x - 1)), high_slot = int(ux.slot_of_row(end_x - 1));
  const int first_cell = low_slot / lam, cells = high_slot / lam - first_cell + 1, pitch = cells | 1;

  // The block as a reader: an output row (v, y) per group and slot, the next group's a fixed way on.
  Blend<A> blend_v[SLOTS];
  unsigned line[SLOTS];
  int lines_there = 0;
  const int first_slot = int(vy.slot_of_row(first_y - 1)), cell0 = first_slot / lam;
#pragma unroll
  for (int t = 0; t < SLOTS; ++t) {
    const int cell = (first_slot + t) / lam, phase = first_slot + t - lam * cell;
    blend_v[t] = blend_at<A>(phase, lam);
    line[t] = unsigned((phase * fine_u * cells_y + cell - cell0) * cells_x) * unsigned(sizeof(T));
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      const int v = lam * (first_v + i) + phase - lead, y = cell - first_v - i;
      if (inside(v, fine_v) && inside(y, cells_y) && (t > 0 || pairs_y)) lines_there |= 1 << (i * SLOTS + t);
    }
  }
  const Index next_group = lam * fine_u * plane - cells_x;
  const T* from = grad + ((n * Index(fine_v) + lam * first_v - lead) * fine_u + lam * first_u - lead) * plane +
                  Index(cell0 - first_v) * cells_x + first_cell - first_u;

  // This thread as a reader: PASSES places of the stage, taken in the order of x, and their first output (u, x).
  int read_place[PASSES], read_steps[PASSES];
  unsigned read[PASSES];
#pragma unroll
  for (int k = 0; k < PASSES; ++k) {
    const int number = int(threadIdx.x) + k * int(blockDim.x), phase = number / cells, cell = number - phase * cells;
    const int slot = lam * (first_cell + cell) + phase;
    read_place[k] = phase < lam ? phase * pitch + cell : -1;
    read[k] = unsigned(phase * int(plane) + cell) * unsigned(sizeof(T));
    read_steps[k] = 0;
    if (phase < lam && slot >= low_slot && slot <= high_slot)
      read_steps[k] = steps_inside(STEPS + 1, lam * first_u + phase - lead, first_cell + cell - first_u, lam, fine_u, cells_x);
  }

  // This thread as a writer: one input column, and the places of the columns x-1 and x that it sums.
  const int x = first_x + int(threadIdx.x);
  Blend<A> blend_u[2];
  int place[2];
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    const int slot = x < end_x ? int(ux.slot_of_row(x - 1 + c)) : low_slot, cell = slot / lam, phase = slot - lam * cell;
    blend_u[c] = blend_at<A>(phase, lam, A(1) / A((1 + pairs_y) * (1 + pairs_x)));
    place[c] = phase * pitch + cell - first_cell;
  }
  unsigned target[VALUES];
  int targets_there = 0;
#pragma unroll
  for (int k = 0; k < VALUES; ++k) {
    target[k] = unsigned((k / ROWS * int(U * H) + k % ROWS) * int(W)) * unsigned(sizeof(T));
    if (x < end_x && first_v + k / ROWS < V && first_y + k % ROWS < H) targets_there |= 1 << k;
  }
  T* to = grad_input + (((n * V + first_v) * U + first_u) * H + first_y) * W + x;

  // The walk: what group p gives to bin p is carried over; bin p is done when group p+1 has come.
  A carried[VALUES];
  const int steps = first_u + STEPS < int(U) ? STEPS : int(U) - first_u;
  for (int t = 0; t <= steps; ++t, from += lam * plane - 1) {
    const Stage<A, VALUES> stage(shared, lam * pitch, t);
#pragma unroll
    for (int k = 0; k < PASSES; ++k) {
      if (read_place[k] < 0) continue;
      A value[TAPS][SLOTS] = {};
      if (read_steps[k] >> t & 1) {
        SWAP_KEEP_PACKED(lines_there);
#pragma unroll
        for (int i = 0; i < TAPS; ++i) {
          const T* const group = moved(from, read[k]) + i * next_group;
#pragma unroll
          for (int l = 0; l < SLOTS; ++l)
            if (lines_there >> (i * SLOTS + l) & 1) value[i][l] = A(*moved(group, line[l]));
        }
      }
      A result[VALUES];
#pragma unroll
      for (int i = 0; i < GROUPS; ++i) {
        A above = blend_v[0](value[i + 1][0], value[i][0]);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          const A here = blend_v[r + 1](value[i + 1][r + 1], value[i][r + 1]);
          result[i * ROWS + r] = pairs_y ? above + here : here;
          above = here;
        }
      }
      stage.store(read_place[k], result);
    }
    __syncthreads();
    SWAP_KEEP_PACKED(targets_there);
    A left[VALUES], here[VALUES];
    stage.load(place[0], left);
    stage.load(place[1], here);
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      A sum = carried[k] + blend_u[1].lower * here[k];
      if (pairs_x) sum += blend_u[0].lower * left[k];
      if (t > 0 && (targets_there >> k & 1)) *moved(to, target[k]) = T(sum);
      carried[k] = blend_u[1].upper == 0 ? A(0) : blend_u[1].upper * here[k];
      if (pairs_x && blend_u[0].upper != 0) carried[k] += blend_u[0].upper * left[k];
    }
    if (t > 0) to += H * W;
  }
}

// ---------------------------------------------------------------- one thread per element

template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
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
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
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
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
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
  A sum = 0;
  for (int i = 0; i < 4; ++i) {
    const Contribution<A> a = reader<A>(s.vy(), v, y, i);
    for (int j = 0; j < 4; ++j) {
      const Contribution<A> b = reader<A>(s.ux(), u, x, j);
      if (a.weight == 0 || b.weight == 0) continue;
      const Index cell = (n * s.vy().coarse_cells() + a.cell) * s.ux().coarse_cells() + b.cell;
      for (Index t = lists.start[cell]; t < lists.start[cell + 1]; ++t) {
        sum += a.weight * b.weight * A(grad[(lists.order[t] * s.lam * s.V + a.bin) * s.lam * s.U + b.bin]);
        if (t < first) first = t;
      }
    }
  }
  return sum;
}

// Every input element, for many windows.
template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
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
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
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
