// swap_align2nat on a GPU, for NVRTC (the torch op) and nvcc (the TensorRT plugin) alike: raw
// pointers only.
//
// The tile kernels move every byte of memory about once; between the L2 cache and the blocks,
// which share rims, the input moves up to 1.7 times. A block owns a few groups p along v, a few
// neighbouring slots (core.h) and many columns; its threads walk along u, bin by bin.
// Neighbouring threads are neighbouring input columns, so reading is contiguous, and what two
// steps of the walk share stays in registers. The outputs of neighbouring columns lie far apart
// in memory: they pass through shared memory, the stage, and leave as contiguous runs along x.
// The backward is the same walk turned round. No atomics: every element is summed by one thread
// in a fixed order. Each walk is compiled twice: where lam is even, both axes have two taps and
// no weight is zero, and nothing has to be asked.
//
// The element kernels spend one thread per element on the arithmetic of core.h: for windows,
// and for shapes that no tile fits.
#include "../core.h"

#if defined(__CUDACC__)
#ifdef SWAP_NEEDS_HALF
#include <cuda_fp16.h>
#endif
#ifdef SWAP_NEEDS_BFLOAT16
#include <cuda_bf16.h>
#endif

namespace swap_align2nat {
#ifdef SWAP_NEEDS_HALF
using Half = __half;
#endif
#ifdef SWAP_NEEDS_BFLOAT16
using BFloat16 = __nv_bfloat16;
#endif
}  // namespace swap_align2nat

#define SWAP_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// Keeps the compiler from spreading the bits of a mask over as many registers for the length of
// a loop.
#define SWAP_KEEP_PACKED(mask) asm volatile("" : "+r"(mask))

// Keeps what a rare branch sets from being set before it, by everybody.
#define SWAP_KEEP_BRANCH() asm volatile("")
#endif

namespace swap_align2nat {

// ---------------------------------------------------------------- launch shapes
// tensormask_edu/ops/cuda.py repeats them for the torch op; a test holds the two equal.

// Groups p along v per block (backward: bins); one bin (group) more is read.
constexpr int GROUPS = 2;
constexpr int FORWARD_STEPS = 16;   // groups along u per block: all of them, as a rule
constexpr int BACKWARD_STEPS = 16;  // bins, likewise
constexpr int FORWARD_ROWS = 2;     // neighbouring slots per block; one row more is read
constexpr int BACKWARD_ROWS = 6;    // neighbouring input rows per block; one slot more is read
constexpr int PASSES = 2;           // backward: places of the stage per thread, at most
// Forward: a block is teams of threads, each with its own slots and stage; the rows that two
// teams read come from L1 the second time.
constexpr int TEAMS = 2;
constexpr int FORWARD_THREADS = 224, ELEMENT_THREADS = 256;  // of a team, of a block
// Those that have more columns each are fewer.
SWAP_HD constexpr int backward_threads(int columns) { return columns > 1 ? 256 : 384; }
constexpr int BACKWARD_COLUMNS = 384;  // per block, at most
constexpr int MAX_SHARED_BYTES = 48 << 10;

// `tile`: cells per block (forward) or columns per block (backward). No blocks: use the element
// kernel.
struct Launch {
  Index blocks;
  int threads, shared_bytes, tile;
};

SWAP_HD int whole_warps(Index threads) { return int((threads + 31) / 32 * 32); }

// The values of a column in the stage are moved in words of at most 16 bytes; an odd number of
// them, so that neighbouring columns fall into different banks. Those of a thread that has four
// neighbours do not: at lam 1 and 32 four such threads wait for one another.
SWAP_HD constexpr int word_bytes(int bytes) { return bytes % 16 == 0 ? 16 : 8; }
SWAP_HD constexpr int words_of(int bytes) { return bytes / word_bytes(bytes) | 1; }

// Twice: one half is written while the other is read.
SWAP_HD Index stage_bytes(Index places, int bytes) {
  return 2 * places * words_of(bytes) * word_bytes(bytes);
}

// The tile kernels add 32-bit byte offsets to 64-bit block addresses; tensors of any usual size
// pass.
SWAP_HD bool offsets_fit(const Shape& s, int bytes) {
  const Index plane = s.H * s.W,
              out_plane = s.lam * s.lam * s.vy().coarse_cells() * s.ux().coarse_cells();
  return (GROUPS + 2) * s.U * (plane > out_plane ? plane : out_plane) * bytes < Index(1) << 31;
}

// Cells of the stage from a phase to the next: those of a tile, and of the columns at its ends
// that are read with others and belong to its neighbours.
SWAP_HD Index stage_pitch(Index tile, const Shape& s, int columns) {
  return (tile + 2 * quotient_up(columns - 1, s.lam)) | 1;
}

SWAP_HD int team_threads(Index tile, const Shape& s, int columns) {
  return whole_warps(quotient_up(s.lam * tile + columns - 1, columns));
}

// A tile is as many cells i = x + p as fit; they are dealt evenly to as few tiles as hold them.
SWAP_HD Launch forward_launch(const Shape& s, int columns, int bytes) {
  const Index cells = s.ux().coarse_cells() + FORWARD_STEPS - 1,
              most = (FORWARD_THREADS - 1) * columns / s.lam;
  if (most == 0 || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index tiles = quotient_up(cells, most), tile = quotient_up(cells, tiles);
  const Index stage =
      stage_bytes(s.lam * stage_pitch(tile, s, columns), GROUPS * FORWARD_ROWS * bytes);
  if (stage > MAX_SHARED_BYTES) return {0, 0, 0, 0};
  const int teams = TEAMS * stage > MAX_SHARED_BYTES ? 1 : TEAMS;
  const Index slots =
      quotient_up(s.lam * (s.vy().coarse_cells() + GROUPS - 1), FORWARD_ROWS * teams);
  const Index blocks =
      s.N * quotient_up(s.V + 1, GROUPS) * quotient_up(s.U + 1, FORWARD_STEPS) * slots * tiles;
  return {blocks, teams * team_threads(tile, s, columns), int(teams * stage), int(tile)};
}

SWAP_HD Launch backward_launch(const Shape& s, int columns, int bytes) {
  // Doubles fill the stage sooner.
  const Index most = bytes > 4 ? BACKWARD_COLUMNS / 3 : BACKWARD_COLUMNS;
  const Index tiles = quotient_up(s.W, most),
              tile = columns * quotient_up(quotient_up(s.W, columns), tiles);
  // Cells that the tile may touch, wherever its first column falls.
  const Index cells = quotient(tile + s.lam - 1, s.lam) + 1;
  const Index writers = quotient_up(tile, columns),
              readers = quotient_up(s.lam * cells, PASSES),
              threads = writers > readers ? writers : readers;
  const Index shared =
      stage_bytes(s.lam * (cells | 1), GROUPS * BACKWARD_ROWS * (bytes > 4 ? bytes : 4));
  if (threads > backward_threads(columns) || shared > MAX_SHARED_BYTES ||
      !offsets_fit(s, bytes))
    return {0, 0, 0, 0};
  const Index rows = quotient_up(s.H, BACKWARD_ROWS);
  const Index blocks =
      s.N * quotient_up(s.V, GROUPS) * quotient_up(s.U, BACKWARD_STEPS) * rows * tiles;
  return {blocks, whole_warps(threads), int(shared), int(tile)};
}

SWAP_HD Launch element_launch(Index elements) {
  return {(elements + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS, 0, 0};
}

// Input rows that one window reads per bin.
SWAP_HD Index reach(const Axis& axis) { return 2 * axis.lam + axis.half_cell(); }

// ---------------------------------------------------------------- helpers

// a / b for b < 2^32, bit by bit: the compiler's 64-bit division is a call, which costs a
// kernel registers.
SWAP_HD Index long_quotient(Index a, Index b) {
  Index whole = quotient(a >> 32, b), rest = (a >> 32) - whole * b;
  for (int bit = 31; bit >= 0; --bit) {
    rest = 2 * rest + (a >> bit & 1);
    whole = 2 * whole + (rest >= b);
    if (rest >= b) rest -= b;
  }
  return whole;
}

// Takes the number of an element apart, the fastest digit first.
struct Digits {
  Index rest;

  SWAP_HD Index next(Index extent) {
    const Index whole = rest >> 32 == 0 ? quotient(rest, extent) : long_quotient(rest, extent);
    const Index digit = rest - whole * extent;
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

// a * b + c in one rounding, as `Blend` is compiled for a device.
#if defined(__CUDACC__)
__device__ inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double fused(double a, double b, double c) { return fma(a, b, c); }
#else
template <class A>
A fused(A a, A b, A c) {
  return a * b + c;
}
#endif

// Bits first..last of a mask of `count`, those of them that it has.
SWAP_HD int bits_between(int first, int last, int count) {
  if (first < 0) first = 0;
  if (last >= count) last = count - 1;
  return first > last ? 0 : int((2u << last) - (1u << first));
}

SWAP_HD int nearest(int i, int extent) { return i < 0 ? 0 : i < extent ? i : extent - 1; }

// The output side of a shape, in the registers that it deserves.
struct Outputs {
  int lam, lead, bins_u, fine_v, fine_u, cells_y, cells_x;
  Index plane;

  __device__ explicit Outputs(const Shape& s)
      : lam(int(s.lam)),
        lead(int(s.vy().lead())),
        bins_u(int(s.U)),
        fine_v(int(s.vy().fine_bins())),
        fine_u(int(s.ux().fine_bins())),
        cells_y(int(s.vy().coarse_cells())),
        cells_x(int(s.ux().coarse_cells())),
        plane(Index(cells_y) * cells_x) {}

  // Bit t: the place `phase` of group p + t along u belongs to a bin of the output.
  __device__ int bins_inside(int count, int p, int phase) const {
    // Of groups 0 and U each has a part inside: phases from the lead on, and those before it.
    const int first = phase < lead ? 1 - p : -p;
    return bits_between(first, first + bins_u - 1, count);
  }

  // Bit t: the cell x - t is inside.
  __device__ int cells_inside(int count, int x) const {
    return bits_between(x - cells_x + 1, x, count);
  }

  // From a step of the walk to the next: group p + 1 at the same slot.
  __device__ Index next_group_u() const { return lam * plane - 1; }
  __device__ Index next_group_v() const { return lam * fine_u * plane - cells_x; }
};

// Sums as they are stored.
template <class T, int COUNT>
struct Rounded {
  T value[COUNT];
};

// Two at a time, as a device rounds to 16 bits.
template <class T, class A>
__device__ void round_pair(T* to, A first, A second) {
  to[0] = T(first), to[1] = T(second);
}
#if defined(__CUDACC__) && defined(SWAP_NEEDS_HALF)
__device__ inline void round_pair(Half* to, float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  memcpy(to, &pair, sizeof(pair));
}
#endif
#if defined(__CUDACC__) && defined(SWAP_NEEDS_BFLOAT16)
__device__ inline void round_pair(BFloat16* to, float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  memcpy(to, &pair, sizeof(pair));
}
#endif

template <class T, class A, int COUNT>
__device__ void round_to(T* to, const A (&sum)[COUNT]) {
#pragma unroll
  for (int k = 0; k + 1 < COUNT; k += 2) round_pair(to + k, sum[k], sum[k + 1]);
  if (COUNT % 2) to[COUNT - 1] = T(sum[COUNT - 1]);
}

template <class T, class A, int COUNT>
__device__ Rounded<T, COUNT> rounded(const A (&sum)[COUNT]) {
  Rounded<T, COUNT> result;
  round_to(result.value, sum);
  return result;
}

// Neighbours in memory, moved at once.
template <class T, int COUNT>
struct alignas(COUNT * sizeof(T)) Vector {
  T value[COUNT];
};

// COUNT values of each column of a tile, in shared memory. A place is told by its first byte.
template <class T, int COUNT>
struct Stage {
  static constexpr int BYTES = COUNT * int(sizeof(T)), WORD_BYTES = word_bytes(BYTES);
  static constexpr int WORDS = BYTES / WORD_BYTES, STRIDE = words_of(BYTES) * WORD_BYTES;
  struct alignas(WORD_BYTES) Word {
    unsigned part[WORD_BYTES / 4];
  };
  unsigned char* half;

  // The half of the stage for step t.
  __device__ Stage(unsigned char* shared, int places, int t)
      : half(shared + (t & 1) * places * STRIDE) {}

  __device__ void store(int byte, const Rounded<T, COUNT>& values) const {
    Word word[WORDS];
    memcpy(word, values.value, BYTES);
#pragma unroll
    for (int k = 0; k < WORDS; ++k) reinterpret_cast<Word*>(half + byte)[k] = word[k];
  }

  __device__ void load(int byte, T (&value)[COUNT]) const {
    Word word[WORDS];
#pragma unroll
    for (int k = 0; k < WORDS; ++k) word[k] = reinterpret_cast<const Word*>(half + byte)[k];
    memcpy(value, word, BYTES);
  }
};

// ---------------------------------------------------------------- forward, dense

// Reads COLUMNS neighbouring columns of one bin along u: the box means, and the blend along v,
// of the block's groups and slots, short of the factor 1/2 per axis. With COLUMNS > 1 they are
// inside or outside together. EVEN: lam is.
template <class T, int COLUMNS, bool EVEN>
struct ColumnReader {
  using A = Acc<T>;
  static constexpr int ROWS = FORWARD_ROWS, TAPS = GROUPS + 1, LINES = ROWS + 1;
  static constexpr int ALL = (1 << TAPS * LINES) - 1;
  struct Blended {
    A of[COLUMNS][GROUPS * ROWS];
  };

  const T* base;  // the columns in bin u' = 0 of the first tap and line
  // Bytes from there; what is outside is led inside, to be ignored.
  unsigned offset[TAPS][LINES];
  int taps_there = 0;  // a bit per tap and line
  bool columns_there, right_there, half_x, half_y;
  A pad, padded[ROWS];  // outside; the result where no tap is inside
  Blend<A> blend[ROWS];

  __device__ bool pairs_x() const { return EVEN || half_x; }
  __device__ bool pairs_y() const { return EVEN || half_y; }

  __device__ ColumnReader(const T* input, const Shape& s, A pad_value, int n, int first_v,
                          int first_slot, int x)
      : columns_there(inside(x, int(s.W))),
        right_there(s.ux().half_cell() && inside(x + COLUMNS, int(s.W))),
        half_x(s.ux().half_cell()),
        half_y(s.vy().half_cell()),
        pad(pad_value) {
    const int V = int(s.V), H = int(s.H), lam = int(s.lam), bin = int(s.U * s.H * s.W),
              W = int(s.W);
    const int first_row = int(s.vy().row_of_slot(first_slot)), v0 = nearest(first_v, V),
              row0 = nearest(first_row, H);
    base = input + ((n * s.V + v0) * s.U * s.H + row0) * W +
           (columns_there || right_there ? x : 0);
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t) {
        const int v = nearest(first_v + i, V), row = nearest(first_row + t, H);
        offset[i][t] = unsigned((v - v0) * bin + (row - row0) * W) * unsigned(sizeof(T));
        if (inside(first_v + i, V) && inside(first_row + t, H))
          taps_there |= 1 << (i * LINES + t);
      }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      blend[r] =
          blend_at<A>((first_slot + r) % lam, lam, A(1) / A((1 + half_x) * (1 + half_y)));
      const A mean = A((1 + pairs_x()) * (1 + pairs_y())) * pad;
      padded[r] = blended_bins(blend[r], mean, mean);
    }
  }

  __device__ static A blended_bins(const Blend<A>& of, A lower, A upper) {
    return EVEN ? fused(of.upper, upper, of.lower * lower) : of(lower, upper);
  }

  // from: `base` moved to the bin. Not wanted: the bin is outside.
  __device__ void read(const T* from, bool wanted, Blended& blended) const {
    if (!wanted || !(columns_there || right_there)) {  // no tap is inside
      SWAP_KEEP_BRANCH();
#pragma unroll
      for (int k = 0; k < COLUMNS * GROUPS * ROWS; ++k)
        blended.of[k / (GROUPS * ROWS)][k % (GROUPS * ROWS)] = padded[k % ROWS];
      return;
    }
    A sum[TAPS][LINES][COLUMNS];
    if (columns_there)
      read_columns(from, sum);
    else
      read_right(from, sum);
    if (taps_there != ALL) {
#pragma unroll
      for (int k = 0; k < TAPS * LINES; ++k)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
          if (!(taps_there >> k & 1)) sum[k / LINES][k % LINES][c] = pairs_x() ? 2 * pad : pad;
    }
    if (pairs_y()) {
#pragma unroll
      for (int k = 0; k < TAPS * ROWS; ++k)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
          sum[k / ROWS][k % ROWS][c] += sum[k / ROWS][k % ROWS + 1][c];
    }
#pragma unroll
    for (int k = 0; k < GROUPS * ROWS; ++k)
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const A lower = sum[k / ROWS][k % ROWS][c], upper = sum[k / ROWS + 1][k % ROWS][c];
        blended.of[c][k] = blended_bins(blend[k % ROWS], lower, upper);
      }
  }

  // All loads first, so that they are under way together.
  __device__ void read_columns(const T* from, A (&sum)[TAPS][LINES][COLUMNS]) const {
    Vector<T, COLUMNS> vector[TAPS][LINES];
    A right[TAPS][LINES];
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t)
        if (t < ROWS || pairs_y())
          vector[i][t] =
              *reinterpret_cast<const Vector<T, COLUMNS>*>(moved(from, offset[i][t]));
        else
          vector[i][t] = vector[i][t - 1];  // not used, but converted below
    if (right_there) {
#pragma unroll
      for (int k = 0; k < TAPS * LINES; ++k)
        right[k / LINES][k % LINES] = A(moved(from, offset[k / LINES][k % LINES])[COLUMNS]);
    } else {
      SWAP_KEEP_BRANCH();
#pragma unroll
      for (int k = 0; k < TAPS * LINES; ++k) right[k / LINES][k % LINES] = pad;
    }
#pragma unroll
    for (int k = 0; k < TAPS * LINES; ++k)
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c)
        sum[k / LINES][k % LINES][c] = A(vector[k / LINES][k % LINES].value[c]);
    if (pairs_x()) {
#pragma unroll
      for (int k = 0; k < TAPS * LINES; ++k) {
        A(&of)[COLUMNS] = sum[k / LINES][k % LINES];
#pragma unroll
        for (int c = 0; c + 1 < COLUMNS; ++c) of[c] += of[c + 1];
        of[COLUMNS - 1] += right[k / LINES][k % LINES];
      }
    }
  }

  // Left of column 0 the last column has a right neighbour inside.
  __device__ void read_right(const T* from, A (&sum)[TAPS][LINES][COLUMNS]) const {
#pragma unroll
    for (int k = 0; k < TAPS * LINES; ++k) {
      A(&of)[COLUMNS] = sum[k / LINES][k % LINES];
#pragma unroll
      for (int c = 0; c + 1 < COLUMNS; ++c) of[c] = 2 * pad;
      of[COLUMNS - 1] = pad + A(moved(from, offset[k / LINES][k % LINES])[COLUMNS]);
    }
  }
};

// A thread among those that share a stage.
struct Team {
  int number, thread, threads;
};

// Writes the stage in the order of x, up to PLACES places per thread. Place number
// phase * row + i is the output (u, x) of that phase; number and phase give its positions in
// stage and output, in fewer registers than both would take. Where one tile holds all cells, a
// row is the outputs of a phase: a place stands at x = i, and its cell lies one further in the
// stage with each step. Else a row is the tile: a place stays at its cell, and its x is one
// less with each step.
template <class T, int PLACES>
struct RunWriter {
  static constexpr int ROWS = FORWARD_ROWS, VALUES = GROUPS * ROWS, ALL = (1 << VALUES) - 1;

  T* to;                  // moves on by a group per step
  Index next_group;
  unsigned line[VALUES];  // bytes to the output row (v, y) of each group and slot
  int first, apart;       // place c is number first + c * apart
  int phase[PLACES], steps_there[PLACES], lines_there = 0, stage_per_phase, out_per_phase;
  bool stands;
  int width = 1;  // neighbours of a row that stands are one place: 4, 2 or 1

  __device__ RunWriter(T* out, const Outputs& o, int n, int first_pv, int first_slot,
                       int first_pu, int first_cell, int tile, int pitch, const Team& team)
      : stands(tile >= o.cells_x + FORWARD_STEPS - 1) {
    const int lam = o.lam, cell0 = first_slot / lam, row = stands ? o.cells_x : tile;
    next_group = o.next_group_u() + stands;
    const unsigned long long places =
        o.cells_x | reinterpret_cast<unsigned long long>(out) / sizeof(T);
    if (PLACES == 4 && stands) width = places % 4 == 0 ? 4 : places % 2 == 0 ? 2 : 1;
    first = width * team.thread, apart = width * team.threads;
    stage_per_phase = pitch - row, out_per_phase = int(o.plane) - row;
    to =
        out +
        ((n * Index(o.fine_v) + lam * first_pv - o.lead) * o.fine_u + lam * first_pu - o.lead) *
            o.plane +
        Index(cell0 - first_pv - GROUPS) * o.cells_x + first_cell - first_pu;
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      const int i = k / ROWS, slot = first_slot + k % ROWS, cell = slot / lam,
                phase = slot - lam * cell;
      const int rows_on = (lam * i + phase) * o.fine_u * o.cells_y + cell - cell0 - i + GROUPS;
      line[k] = unsigned(rows_on * o.cells_x) * unsigned(sizeof(T));
      if (inside(lam * (first_pv + i) + phase - o.lead, o.fine_v) &&
          inside(cell - first_pv - i, o.cells_y))
        lines_there |= 1 << k;
    }
#pragma unroll
    for (int c = 0; c < PLACES; ++c) {
      phase[c] = steps_there[c] = 0;
      if (c * width >= PLACES) continue;
      const int i = (first + c * apart) % row;
      phase[c] = (first + c * apart) / row;
      if (phase[c] < lam) steps_there[c] = 2 * o.bins_inside(FORWARD_STEPS, first_pu, phase[c]);
      if (!stands)
        steps_there[c] &= 2 * o.cells_inside(FORWARD_STEPS, first_cell + i - first_pu);
    }
  }

  // bit: of step t, 2 << t.
  __device__ void write(const Stage<T, VALUES>& stage, int t, int bit) {
    SWAP_KEEP_PACKED(lines_there);
    if (width == 4)
      write_places<PLACES>(stage, t, bit);
    else if (width == 2)
      write_places<(PLACES + 1) / 2>(stage, t, bit);
    else
      write_places<1>(stage, t, bit);
  }

  // WIDTH: outputs of a place along x.
  template <int WIDTH>
  __device__ void write_places(const Stage<T, VALUES>& stage, int t, int bit) {
#pragma unroll
    for (int c = 0; c < PLACES / WIDTH; ++c) {
      SWAP_KEEP_PACKED(phase[c]);
      if (steps_there[c] & bit) write_place<WIDTH>(stage, c, t);
    }
  }

  template <int WIDTH>
  __device__ void write_place(const Stage<T, VALUES>& stage, int c, int t) const {
    T result[WIDTH][VALUES];
    const int number = first + c * apart,
              place = number + phase[c] * stage_per_phase + (stands ? t : 0);
    T* const output = to + unsigned(number + phase[c] * out_per_phase);
#pragma unroll
    for (int i = 0; i < WIDTH; ++i)
      stage.load((place + i) * Stage<T, VALUES>::STRIDE, result[i]);
    if (lines_there == ALL)  // far from the edges
      write_lines<WIDTH, true>(output, result);
    else
      write_lines<WIDTH, false>(output, result);
  }

  template <int WIDTH, bool EVERY>
  __device__ void write_lines(T* output, const T (&result)[WIDTH][VALUES]) const {
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      Vector<T, WIDTH> vector;
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) vector.value[i] = result[i][k];
      if (EVERY || lines_there >> k & 1)
        *reinterpret_cast<Vector<T, WIDTH>*>(moved(output, line[k])) = vector;
    }
  }
};

template <class T, int COLUMNS, bool EVEN>
__device__ void walk_forward(unsigned char* shared, const T* __restrict__ input,
                             T* __restrict__ out, double pad_value, const Shape& s, int tile) {
  using A = Acc<T>;
  using Reader = ColumnReader<T, COLUMNS, EVEN>;
  constexpr int ROWS = FORWARD_ROWS, VALUES = GROUPS * ROWS, STEPS = FORWARD_STEPS;
  const Outputs o(s);
  const int lam = o.lam, U = int(s.U), pitch = int(stage_pitch(tile, s, COLUMNS));
  const int threads = team_threads(tile, s, COLUMNS), rows = int(blockDim.x) / threads * ROWS;
  const Team team{int(threadIdx.x) / threads, int(threadIdx.x) % threads, threads};
  shared += team.number * stage_bytes(lam * pitch, VALUES * sizeof(T));

  BlockDigits block{blockIdx.x};
  const int first_pu = STEPS * block.next(quotient_up(s.U + 1, STEPS));
  const int first_pv = GROUPS * block.next(quotient_up(s.V + 1, GROUPS));
  const int first_cell =
      first_pu + tile * block.next(quotient_up(o.cells_x + STEPS - 1, tile));
  const int first_slot =
      lam * first_pv + ROWS * team.number +
      rows * block.next(quotient_up(lam * (o.cells_y + GROUPS - 1), rows));
  const int n = block.rest, steps = first_pu + STEPS <= U ? STEPS : U + 1 - first_pu;
  RunWriter<T, COLUMNS> writer(out, o, n, first_pv, first_slot, first_pu, first_cell, tile,
                               pitch, team);

  // The thread's columns, the weight of their upper bin along u, and their places in the stage.
  const int first_x = int(s.ux().row_of_slot(lam * first_cell)), skip = first_x & (COLUMNS - 1);
  const int column = COLUMNS * team.thread - skip;
  const Reader reader(input, s, A(pad_value), n, first_pv - 1, first_slot, first_x + column);
  A upper[COLUMNS];
  int place[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    // Cells below the first come after the last.
    const int slot = column + c + COLUMNS * lam, cell = slot / lam - COLUMNS,
              phase = slot % lam;
    upper[c] = blend_at<A>(phase, lam).upper;
    place[c] = (phase * pitch + (cell < 0 ? cell + pitch : cell)) * Stage<T, VALUES>::STRIDE;
  }
  // Bit t: an output of these columns that is inside the grid wants bin first_pu + t - 1; and
  // the bin is inside.
  const int low_x = first_cell + column / lam - first_pu + 1,
            high_x = low_x + (column % lam + COLUMNS - 1) / lam;
  const int wanted =
      column < lam * tile ? bits_between(low_x - o.cells_x, high_x, steps + 1) : 0;
  const int there = bits_between(1 - first_pu, U - first_pu, steps + 1);

  // The walk: what bin p-1 gives to group p is carried over.
  typename Reader::Blended bin;
  A carried[COLUMNS][VALUES] = {};
  const T* from = reader.base + (first_pu - 1) * s.H * s.W;
  for (int t = -1, bit = 1; t < steps; ++t, bit *= 2, from += s.H * s.W) {
    const Stage<T, VALUES> stage(shared, lam * pitch, t);
    if (wanted & bit) {
      reader.read(from, there & bit, bin);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        A sum[VALUES];
#pragma unroll
        for (int k = 0; k < VALUES; ++k) {
          sum[k] = carried[c][k];
          if (EVEN || upper[c] != 0) sum[k] += upper[c] * bin.of[c][k];
          carried[c][k] = (1 - upper[c]) * bin.of[c][k];
        }
        stage.store(place[c], rounded<T>(sum));
      }
    }
    __syncthreads();
    if (t >= 0) {
      writer.write(stage, t, bit);
      writer.to += writer.next_group;
    }
  }
}

// COLUMNS > 1: W is a multiple of it and the input aligned to COLUMNS values.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(TEAMS * FORWARD_THREADS, 1)
    forward_tiles(const T* __restrict__ input, T* __restrict__ out, double pad_value, Index N,
                  Index V, Index U, Index H, Index W, Index lam, Index tile) {
  SWAP_SHARED(shared);
  const Shape s{N, V, U, H, W, lam};
  if (lam % 2 == 0)
    walk_forward<T, COLUMNS, true>(shared, input, out, pad_value, s, int(tile));
  else
    walk_forward<T, COLUMNS, false>(shared, input, out, pad_value, s, int(tile));
}

// ---------------------------------------------------------------- backward, dense

// Reads output gradients in the order of x into the stage, PASSES places per thread: blended
// along v, and summed over the slots that each of the block's input rows takes part in.
template <class T, bool EVEN>
struct RunReader {
  using A = Acc<T>;
  static constexpr int ROWS = BACKWARD_ROWS, VALUES = GROUPS * ROWS, TAPS = GROUPS + 1,
                       SLOTS = ROWS + 1;

  const T* from;            // moves on by a group per step
  Index next_group;         // to the next group along v
  unsigned line[SLOTS];     // bytes to the output row (v, y) of each slot
  unsigned offset[PASSES];  // bytes to the output (u, x) of each place
  int place[PASSES], steps_there[PASSES], lines_there = 0, all = 0;
  bool half_y;
  Blend<A> blend[SLOTS];

  __device__ bool pairs_y() const { return EVEN || half_y; }

  // first_slot: that of the row above the block's first; low..high: the slots of the tile's
  // columns along u.
  __device__ RunReader(const T* grad, const Outputs& o, bool pairs, int n, int first_v,
                       int first_slot, int first_u, int low, int high)
      : next_group(o.next_group_v()), half_y(pairs) {
    const int lam = o.lam, cell0 = first_slot / lam, first_cell = low / lam,
              cells = high / lam - first_cell + 1;
    from =
        grad +
        ((n * Index(o.fine_v) + lam * first_v - o.lead) * o.fine_u + lam * first_u - o.lead) *
            o.plane +
        Index(cell0 - first_v) * o.cells_x + first_cell - first_u;
#pragma unroll
    for (int l = 0; l < SLOTS; ++l) {
      const int cell = (first_slot + l) / lam, phase = first_slot + l - lam * cell;
      blend[l] = blend_at<A>(phase, lam);
      line[l] = unsigned((phase * o.fine_u * o.cells_y + cell - cell0) * o.cells_x) *
                unsigned(sizeof(T));
#pragma unroll
      for (int i = 0; i < TAPS; ++i) {
        const int v = lam * (first_v + i) + phase - o.lead, y = cell - first_v - i;
        if (l == 0 && !pairs_y()) continue;
        all |= 1 << (i * SLOTS + l);
        if (inside(v, o.fine_v) && inside(y, o.cells_y)) lines_there |= 1 << (i * SLOTS + l);
      }
    }
#pragma unroll
    for (int k = 0; k < PASSES; ++k) {
      const int number = int(threadIdx.x) + k * int(blockDim.x), phase = number / cells,
                cell = number - phase * cells;
      const int slot = lam * (first_cell + cell) + phase;
      place[k] =
          phase < lam ? (phase * (cells | 1) + cell) * Stage<A, VALUES>::STRIDE : -1;
      offset[k] = unsigned(phase * int(o.plane) + cell) * unsigned(sizeof(T));
      steps_there[k] = 0;
      if (phase < lam && slot >= low && slot <= high)
        steps_there[k] =
            o.bins_inside(BACKWARD_STEPS + 1, first_u, phase) &
            o.cells_inside(BACKWARD_STEPS + 1, first_cell + cell - first_u);
    }
  }

  __device__ void read(const Stage<A, VALUES>& stage, int bit) {
#pragma unroll
    for (int k = 0; k < PASSES; ++k) {
      if (place[k] < 0) continue;
      if (!(steps_there[k] & bit)) {
        stage.store(place[k], Rounded<A, VALUES>{});
        continue;
      }
      A value[TAPS][SLOTS], result[VALUES];
      read_place(moved(from, offset[k]), value);
#pragma unroll
      for (int j = 0; j < VALUES; ++j)
        result[j] = blended(j % ROWS + 1, value[j / ROWS + 1][j % ROWS + 1],
                            value[j / ROWS][j % ROWS + 1]);
      if (pairs_y()) {
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
          A above = blended(0, value[i + 1][0], value[i][0]);
#pragma unroll
          for (int r = 0; r < ROWS; ++r) {
            const A here = result[i * ROWS + r];
            result[i * ROWS + r] += above;
            above = here;
          }
        }
      }
      stage.store(place[k], rounded<A>(result));
    }
  }

  __device__ A blended(int slot, A lower, A upper) const {
    const Blend<A>& of = blend[slot];
    return EVEN ? fused(of.upper, upper, of.lower * lower) : of(lower, upper);
  }

  __device__ void read_place(const T* first, A (&value)[TAPS][SLOTS]) {
    SWAP_KEEP_PACKED(lines_there);
    if (lines_there == all) {  // far from the edges
#pragma unroll
      for (int i = 0; i < TAPS; ++i)
#pragma unroll
        for (int l = 0; l < SLOTS; ++l)
          if (l > 0 || pairs_y()) value[i][l] = A(*moved(first + i * next_group, line[l]));
      return;
    }
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      const T* const group = first + i * next_group;
#pragma unroll
      for (int l = 0; l < SLOTS; ++l)
        value[i][l] = lines_there >> (i * SLOTS + l) & 1 ? A(*moved(group, line[l])) : A(0);
    }
  }
};

// Writes COLUMNS neighbouring input columns: the blend along u of what the stage holds of each
// and of its left neighbour. With COLUMNS > 1 they are inside or outside together.
template <class T, int COLUMNS, bool EVEN>
struct ColumnWriter {
  using A = Acc<T>;
  static constexpr int ROWS = BACKWARD_ROWS, VALUES = GROUPS * ROWS, ALL = (1 << VALUES) - 1;

  T* to;                        // moves on by a bin per step
  Index to_next_v, to_next_row;
  int place[COLUMNS + 1], values_there = 0;
  bool half_x;
  Blend<A> blend[COLUMNS + 1];  // of the left neighbour and of the columns
  A carried[COLUMNS][VALUES] = {};

  __device__ ColumnWriter(T* grad_input, const Shape& s, int n, int first_v, int first_y,
                          int first_u, int x, bool mine, int low, int high)
      : to_next_v(s.U * s.H * s.W), to_next_row(s.W), half_x(s.ux().half_cell()) {
    const int lam = int(s.lam), first_cell = low / lam,
              pitch = (high / lam - first_cell + 1) | 1;
    to = grad_input + (((n * s.V + first_v) * s.U + first_u) * s.H + first_y) * s.W + x;
#pragma unroll
    for (int c = 0; c <= COLUMNS; ++c) {
      const int slot = mine ? int(s.ux().slot_of_row(x - 1 + c)) : low, cell = slot / lam,
                phase = slot - lam * cell;
      blend[c] = blend_at<A>(phase, lam,
                             A(1) / A((1 + s.vy().half_cell()) * (1 + s.ux().half_cell())));
      place[c] = (phase * pitch + cell - first_cell) * Stage<A, VALUES>::STRIDE;
    }
#pragma unroll
    for (int k = 0; k < VALUES; ++k)
      if (mine && first_v + k / ROWS < s.V && first_y + k % ROWS < s.H) values_there |= 1 << k;
  }

  // Group t completes bin t-1 and is carried over to bin t.
  __device__ void write(const Stage<A, VALUES>& stage, int t) {
    SWAP_KEEP_PACKED(values_there);
    A from[COLUMNS + 1][VALUES], next[COLUMNS][VALUES];
#pragma unroll
    for (int c = 0; c <= COLUMNS; ++c) stage.load(place[c], from[c]);
#pragma unroll
    for (int k = 0; k < COLUMNS * VALUES; ++k) {
      const int c = k / VALUES, j = k % VALUES;
      const Blend<A>&left = blend[c], &here = blend[c + 1];
      A &sum = carried[c][j], &after = next[c][j];
      sum = fused(here.lower, from[c + 1][j], sum);
      after = !EVEN && here.upper == 0 ? A(0) : here.upper * from[c + 1][j];
      if (EVEN || half_x) {
        sum = fused(left.lower, from[c][j], sum);
        if (EVEN || left.upper != 0) after = fused(left.upper, from[c][j], after);
      }
    }
    if (t > 0) store();
#pragma unroll
    for (int k = 0; k < COLUMNS * VALUES; ++k)
      carried[k / VALUES][k % VALUES] = next[k / VALUES][k % VALUES];
  }

  __device__ void store() const {
    if (values_there == ALL)  // far from the edges
      store_values<true>();
    else
      store_values<false>();
  }

  template <bool EVERY>
  __device__ void store_values() const {
#pragma unroll
    for (int i = 0; i < GROUPS; ++i) {
      T* row = to + i * to_next_v;
#pragma unroll
      for (int r = 0; r < ROWS; ++r, row += to_next_row) {
        const int k = i * ROWS + r;
        A column[COLUMNS];
        Vector<T, COLUMNS> vector;
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) column[c] = carried[c][k];
        round_to(vector.value, column);
        if (EVERY || values_there >> k & 1)
          *reinterpret_cast<Vector<T, COLUMNS>*>(row) = vector;
      }
    }
  }
};

template <class T, int COLUMNS, bool EVEN>
__device__ void walk_backward(unsigned char* shared, const T* __restrict__ grad,
                              T* __restrict__ grad_input, const Shape& s, Index tile) {
  using A = Acc<T>;
  constexpr int ROWS = BACKWARD_ROWS;
  const Index V = s.V, U = s.U, H = s.H, W = s.W;
  const Outputs o(s);

  BlockDigits block{blockIdx.x};
  const int first_u = BACKWARD_STEPS * block.next(quotient_up(U, BACKWARD_STEPS));
  const int first_v = GROUPS * block.next(quotient_up(V, GROUPS));
  const int first_x = int(tile) * block.next(quotient_up(W, tile));
  const int first_y = ROWS * block.next(quotient_up(H, ROWS));
  const int n = block.rest,
            steps = first_u + BACKWARD_STEPS < U ? BACKWARD_STEPS : int(U) - first_u;

  // The slots of the tile's columns, and of the column before the first one.
  const int x = first_x + COLUMNS * int(threadIdx.x),
            end_x = first_x + tile < W ? first_x + int(tile) : int(W);
  const int low = int(s.ux().slot_of_row(first_x - 1)),
            high = int(s.ux().slot_of_row(end_x - 1));
  const int first_slot = int(s.vy().slot_of_row(first_y - 1));
  const int places = o.lam * ((high / o.lam - low / o.lam + 1) | 1);

  RunReader<T, EVEN> reader(grad, o, s.vy().half_cell(), n, first_v, first_slot, first_u, low,
                            high);
  ColumnWriter<T, COLUMNS, EVEN> writer(grad_input, s, n, first_v, first_y, first_u, x,
                                        x < end_x, low, high);
  for (int t = 0, bit = 1; t <= steps; ++t, bit *= 2) {
    const Stage<A, GROUPS * ROWS> stage(shared, places, t);
    reader.read(stage, bit);
    reader.from += o.next_group_u();
    __syncthreads();
    writer.write(stage, t);
    if (t > 0) writer.to += H * W;
  }
}

// COLUMNS > 1: W is a multiple of it and the input gradient aligned to COLUMNS values.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(backward_threads(COLUMNS), 1)
    backward_tiles(const T* __restrict__ grad, T* __restrict__ grad_input, Index N, Index V,
                   Index U, Index H, Index W, Index lam, Index tile) {
  SWAP_SHARED(shared);
  const Shape s{N, V, U, H, W, lam};
  if (lam % 2 == 0)
    walk_backward<T, COLUMNS, true>(shared, grad, grad_input, s, tile);
  else
    walk_backward<T, COLUMNS, false>(shared, grad, grad_input, s, tile);
}

// ---------------------------------------------------------------- one thread per element

template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
    forward_elements(const T* __restrict__ input, T* __restrict__ out, double pad_value,
                     Index N, Index V, Index U, Index H, Index W, Index lam) {
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
    backward_elements(const T* __restrict__ grad, T* __restrict__ grad_input, Index N, Index V,
                      Index U, Index H, Index W, Index lam) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= s.input_size()) return;
  Digits digits{number};
  const Index x = digits.next(W), y = digits.next(H), u = digits.next(U), v = digits.next(V);
  grad_input[number] = T(input_gradient<Acc<T>>(grad, s, digits.rest, v, u, y, x));
}

// index: (K, 3), the cells (n, y, x); out: (K, lam*V, lam*U), pad_value where a cell lies
// outside the grid
template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
    forward_windows(const T* __restrict__ input, const Index* __restrict__ index,
                    T* __restrict__ out, double pad_value, Index N, Index V, Index U, Index H,
                    Index W, Index lam, Index K) {
  using A = Acc<T>;
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= K * s.window_size()) return;
  Digits digits{number};
  const Index u = digits.next(lam * U), v = digits.next(lam * V);
  const Index* const cell = index + 3 * digits.rest;
  const bool there = inside(cell[0], N) && inside(cell[1], s.vy().coarse_cells()) &&
                     inside(cell[2], s.ux().coarse_cells());
  A value = A(pad_value);
  if (there) value = output_element(input, s, value, cell[0], v, u, cell[1], cell[2]);
  out[number] = T(value);
}

// The windows sorted by cell: those of cell c are order[start[c]] .. order[start[c+1] - 1].
struct CellLists {
  const Index *start, *order;
};

// Sums over every window that reads the element; `first`: the position of the first of them in
// the order.
template <class A, class T>
__device__ A windows_gradient(const T* grad, const CellLists& lists, const Shape& s, Index n,
                              Index v, Index u, Index y, Index x, Index& first) {
  A sum = 0;
  for (int i = 0; i < 4; ++i) {
    const Contribution<A> a = reader<A>(s.vy(), v, y, i);
    for (int j = 0; j < 4; ++j) {
      const Contribution<A> b = reader<A>(s.ux(), u, x, j);
      if (a.weight == 0 || b.weight == 0) continue;
      const Index cell = (n * s.vy().coarse_cells() + a.cell) * s.ux().coarse_cells() + b.cell;
      for (Index t = lists.start[cell]; t < lists.start[cell + 1]; ++t) {
        sum += a.weight * b.weight *
               A(grad[(lists.order[t] * s.lam * s.V + a.bin) * s.lam * s.U + b.bin]);
        if (t < first) first = t;
      }
    }
  }
  return sum;
}

// Every input element, for many windows.
template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
    backward_windows(const T* __restrict__ grad, const Index* __restrict__ start,
                     const Index* __restrict__ order, T* __restrict__ grad_input, Index N,
                     Index V, Index U, Index H, Index W, Index lam) {
  const Shape s{N, V, U, H, W, lam};
  const Index number = thread_number();
  if (number >= s.input_size()) return;
  Digits digits{number};
  const Index x = digits.next(W), y = digits.next(H), u = digits.next(U), v = digits.next(V);
  Index first = 0;
  grad_input[number] =
      T(windows_gradient<Acc<T>>(grad, {start, order}, s, digits.rest, v, u, y, x, first));
}

// The input elements that the windows read, for few windows, into a gradient of zeros. An
// element is written on behalf of the first window that reads it, so by one thread.
template <class T>
__global__ void __launch_bounds__(ELEMENT_THREADS, 2)
    backward_few_windows(const T* __restrict__ grad, const Index* __restrict__ index,
                         const Index* __restrict__ start, const Index* __restrict__ order,
                         T* __restrict__ grad_input, Index N, Index V, Index U, Index H,
                         Index W, Index lam, Index K) {
  const Shape s{N, V, U, H, W, lam};
  const Axis vy = s.vy(), ux = s.ux();
  Digits digits{thread_number()};
  const Index column = digits.next(reach(ux)), row = digits.next(reach(vy));
  const Index u = digits.next(U), v = digits.next(V), own = digits.rest;
  if (own >= K) return;
  const Index* const cell = index + 3 * order[own];
  const Index y = vy.row_of_slot(lam * (cell[1] + v)) + row,
              x = ux.row_of_slot(lam * (cell[2] + u)) + column;
  if (!inside(y, H) || !inside(x, W)) return;
  Index first = K;
  const Acc<T> sum =
      windows_gradient<Acc<T>>(grad, {start, order}, s, cell[0], v, u, y, x, first);
  if (first == own) grad_input[(((cell[0] * V + v) * U + u) * H + y) * W + x] = T(sum);
}

}  // namespace swap_align2nat
