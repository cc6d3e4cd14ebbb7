// swap_align2nat on a GPU, for NVRTC (the torch op) and nvcc (the TensorRT plugin) alike: raw
// pointers only.
//
// The tile kernels move every byte of memory about once; between the L2 cache and the blocks,
// which share rims, the input moves up to 1.9 times. A block owns a few groups p along v, a few
// slots (core.h) and many columns; its threads walk along u, bin by bin. Neighbouring threads
// are neighbouring input columns, so reading is contiguous, and what two steps of the walk
// share stays in registers. The outputs of neighbouring columns lie far apart in memory: they
// pass through shared memory, the stage, and leave as contiguous runs along x. The backward is
// the same walk turned round. No atomics: every element is summed by one thread in a fixed
// order. Each walk is compiled twice: where lam is even, both axes have two taps and no weight
// is zero, and nothing has to be asked.
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

// A value from which nothing can be worked out sooner, and be held in registers all along.
__device__ inline float late(float value) {
  asm volatile("" : "+f"(value));
  return value;
}
__device__ inline double late(double value) {
  asm volatile("" : "+d"(value));
  return value;
}
#else
template <class A>
A late(A value) {
  return value;
}
#endif

namespace swap_align2nat {

// ---------------------------------------------------------------- launch shapes
// tensormask_edu/ops/cuda.py repeats them for the torch op; a test holds the two equal.

// Groups p along v per block (backward: bins); one bin (group) more is read.
constexpr int GROUPS = 2;
constexpr int FORWARD_STEPS = 16;   // groups along u per block: all of them, as a rule
constexpr int BACKWARD_STEPS = 16;  // bins, likewise
constexpr int BACKWARD_ROWS = 6;    // neighbouring input rows per block; one slot more is read
constexpr int PASSES = 2;           // backward: places of the stage per thread, at most
// Neighbouring slots of a forward's thread; one row more is read. In 16 bits the arithmetic
// decides, and four slots share more of it. In 32 bits there is no room for them in the stage.
SWAP_HD constexpr int forward_rows(int bytes) { return bytes > 2 ? 2 : 4; }
// A block of the forward is teams of threads, at most so many, each with its own slots and its
// own stage; the rows that two teams read come from L1 the second time.
constexpr int TEAMS = 4;
constexpr int FORWARD_THREADS = 224;  // of a team, at most
// Of all teams, at most: so many that a thread has 128 registers, or 168 for four slots.
SWAP_HD constexpr int forward_threads(int bytes) { return bytes > 2 ? 480 : 384; }
constexpr int ELEMENT_THREADS = 256;
// Those that have more columns each are fewer.
SWAP_HD constexpr int backward_threads(int columns) { return columns > 1 ? 256 : 384; }
constexpr int BACKWARD_COLUMNS = 384;  // per block, at most
constexpr int MAX_SHARED_BYTES = 48 << 10;
constexpr Index MOST_BLOCKS = 0x7fffffff;  // of a grid
constexpr int SHORT_ROW = 64;  // bytes; the ends of shorter rows fill too few of their sectors

// `tile`: cells per block (forward) or columns per block (backward). No blocks: use the element
// kernel.
struct Launch {
  Index blocks;
  int threads, shared_bytes, tile;
};

SWAP_HD int whole_warps(Index threads) { return int((threads + 31) / 32 * 32); }

// The values of a column in the stage are moved in words of at most 16 bytes; an odd number of
// them, so that neighbouring columns fall into different banks. Those of a thread that has four
// neighbours do not: at lam 1 four such threads wait for one another.
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

// Cells at each end of its own that a thread of the forward may reach into. None, where a cell
// is a whole number of threads: its first column is then a multiple of `columns` as well.
SWAP_HD Index rim(const Shape& s, int columns) {
  return s.lam % (2 * columns) == 0 ? 0 : quotient_up(columns - 1, s.lam);
}

// Cells i = x + p that a step of the forward's walk touches: those of its outputs, one whose
// bin is carried over, and the rim; as many columns as threads have.
SWAP_HD Index cells_of_step(const Shape& s, int columns) {
  Index cells = s.ux().coarse_cells() + 1 + rim(s, columns);
  while (cells * s.lam % columns != 0) ++cells;
  return cells;
}

// The `tile` cells of a team. A tile of a whole step rolls: the thread whose cell falls behind
// takes the one that comes next, `tile` cells on. Another tile stays where it is.
struct Held {
  bool rolls;
  // Teams lie a cell apart along y, so that their short rows of outputs are one run; else their
  // slots are neighbours.
  bool stacks;
  int ring;  // cells of the stage: cell i is number i modulo this
  int threads, columns, skew;

  SWAP_HD Held(const Shape& s, int columns, int bytes, Index tile)
      : rolls(tile >= cells_of_step(s, columns)),
        stacks(rolls && s.lam % forward_rows(bytes) == 0 &&
               s.ux().coarse_cells() * bytes < SHORT_ROW),
        columns(columns),
        skew(int(quotient_up(8 * columns, s.lam))) {
    // Columns at the ends of a tile that stays belong to its neighbours.
    ring = int(tile + (rolls ? 0 : 2 * rim(s, columns)));
    threads = int(quotient_up(s.lam * tile + (rolls ? 0 : columns - 1), columns));
  }

  // Where a phase begins in the stage. Eight threads store 16 bytes each at once: those of one
  // cell lie so far apart that they leave room for those of its neighbours' banks.
  SWAP_HD Index place(Index phase) const {
    return phase * ((ring + 1) / 2 * 2) + quotient(phase, columns) * skew;
  }
  SWAP_HD Index places(Index lam) const { return place(lam - 1) + ring; }

  // Blocks along the slots of GROUPS groups: one after the other, and, where teams are stacked,
  // as many side by side as it takes for all phases of a cell.
  SWAP_HD Index blocks_along(const Shape& s, int bytes, Index teams) const {
    const Index cells = s.vy().coarse_cells() + GROUPS - 1;
    return stacks ? quotient_up(cells, teams)
                  : quotient_up(s.lam * cells, forward_rows(bytes) * teams);
  }
  SWAP_HD Index blocks_beside(const Shape& s, int bytes) const {
    return stacks ? s.lam / forward_rows(bytes) : 1;
  }
};

// Where no tile can roll, all cells are dealt evenly to as few tiles as hold them.
SWAP_HD Launch forward_launch(const Shape& s, int columns, int bytes) {
  const Index step = cells_of_step(s, columns),
              cells = s.ux().coarse_cells() + FORWARD_STEPS - 1,
              most = (FORWARD_THREADS - 1) * columns / s.lam;
  if (most == 0 || !offsets_fit(s, bytes)) return {0, 0, 0, 0};
  const Index tiles = step <= most ? 1 : quotient_up(cells, most),
              tile = step <= most ? step : quotient_up(cells, tiles);
  const Held held(s, columns, bytes, tile);
  const Index stage = stage_bytes(held.places(s.lam), GROUPS * forward_rows(bytes) * bytes);
  if (stage > MAX_SHARED_BYTES) return {0, 0, 0, 0};
  Index teams = forward_threads(bytes) / held.threads;
  if (teams > MAX_SHARED_BYTES / stage) teams = MAX_SHARED_BYTES / stage;
  if (teams > TEAMS) teams = TEAMS;
  const Index slots = held.blocks_along(s, bytes, teams) * held.blocks_beside(s, bytes);
  const Index blocks =
      s.N * quotient_up(s.V + 1, GROUPS) * quotient_up(s.U + 1, FORWARD_STEPS) * slots * tiles;
  if (blocks > MOST_BLOCKS) return {0, 0, 0, 0};
  return {blocks, int(teams) * held.threads, int(teams * stage), int(tile)};
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
  if (blocks > MOST_BLOCKS) return {0, 0, 0, 0};
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
// of the block's groups and the team's slots, short of the factor 1/2 per axis. With COLUMNS
// > 1 they are inside or outside together. EVEN: lam is.
template <class T, int COLUMNS, bool EVEN>
struct ColumnReader {
  using A = Acc<T>;
  static constexpr int ROWS = forward_rows(sizeof(T)), TAPS = GROUPS + 1, LINES = ROWS + 1;
  static constexpr int ALL = (1 << LINES) - 1;
  struct Blended {
    A of[COLUMNS][GROUPS * ROWS];
  };

  const T* base;  // column 0 in bin u' = 0 of the first tap and line
  // Bytes from there; what is outside is led inside, to be ignored.
  unsigned to_tap[TAPS], to_line[LINES];
  int taps_there = 0;  // a bit per tap and line
  bool columns_there, right_there, half_x, half_y;
  int width, x = 0;  // of a row; the first column, 0 if nothing of them is inside
  A pad;             // outside
  Blend<A> blend[ROWS];

  __device__ bool pairs_x() const { return EVEN || half_x; }
  __device__ bool pairs_y() const { return EVEN || half_y; }

  __device__ ColumnReader(const T* input, const Shape& s, A pad_value, int n, int first_v,
                          int first_slot)
      : half_x(s.ux().half_cell()),
        half_y(s.vy().half_cell()),
        width(int(s.W)),
        pad(pad_value) {
    const int V = int(s.V), H = int(s.H), lam = int(s.lam), bin = int(s.U * s.H * s.W),
              W = int(s.W);
    const int first_row = int(s.vy().row_of_slot(first_slot)), v0 = nearest(first_v, V),
              row0 = nearest(first_row, H);
    base = input + ((n * s.V + v0) * s.U * s.H + row0) * W;
#pragma unroll
    for (int i = 0; i < TAPS; ++i)
#pragma unroll
      for (int t = 0; t < LINES; ++t) {
        const int v = nearest(first_v + i, V), row = nearest(first_row + t, H);
        to_tap[i] = unsigned((v - v0) * bin) * unsigned(sizeof(T));
        to_line[t] = unsigned((row - row0) * W) * unsigned(sizeof(T));
        if (inside(first_v + i, V) && inside(first_row + t, H))
          taps_there |= 1 << (i * LINES + t);
      }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
      blend[r] =
          blend_at<A>((first_slot + r) % lam, lam, A(1) / A((1 + half_x) * (1 + half_y)));
  }

  __device__ static A blended_bins(const Blend<A>& of, A lower, A upper) {
    return EVEN ? fused(of.upper, upper, of.lower * lower) : of(lower, upper);
  }


  // Takes the columns from `column` on. Returns how far they lie from those before.
  __device__ int move_to(int column) {
    columns_there = taps_there && inside(column, width);
    right_there = taps_there && half_x && inside(column + COLUMNS, width);
    const int before = x;
    x = any_there() ? column : 0;
    return x - before;
  }

  // What `read` finds for each slot where no tap is inside.
  __device__ void padding(A (&blended)[ROWS]) const {
    const A mean = A((1 + pairs_x()) * (1 + pairs_y())) * late(pad);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) blended[r] = blended_bins(blend[r], mean, mean);
  }

  // Whether a tap is inside, in some bin.
  __device__ bool any_there() const { return columns_there || right_there; }

  // from: `base` moved to the bin. Not wanted: the bin is outside.
  __device__ void read(const T* from, bool wanted, Blended& blended) const {
    if (!wanted) {
      A padded[ROWS];
      padding(padded);
#pragma unroll
      for (int k = 0; k < COLUMNS * GROUPS * ROWS; ++k)
        blended.of[k / (GROUPS * ROWS)][k % (GROUPS * ROWS)] = padded[k % ROWS];
      return;
    }
    A lower[ROWS][COLUMNS], sum[LINES][COLUMNS];
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
      read_tap(from, i, sum);
#pragma unroll
      for (int k = 0; k < ROWS * COLUMNS; ++k) {
        const int r = k / COLUMNS, c = k % COLUMNS;
        if (i > 0)
          blended.of[c][(i - 1) * ROWS + r] = blended_bins(blend[r], lower[r][c], sum[r][c]);
        lower[r][c] = sum[r][c];
      }
    }
  }

  // The box sums of one bin along v, in the first ROWS lines.
  __device__ void read_tap(const T* from, int i, A (&sum)[LINES][COLUMNS]) const {
    unsigned tap = to_tap[i];
    SWAP_KEEP_PACKED(tap);  // else there would be a register for every tap and line
    if (columns_there)
      read_columns(from, tap, sum);
    else
      read_right(from, tap, sum);
    const int there = taps_there >> (i * LINES) & ALL;
    if (there != ALL) {
#pragma unroll
      for (int t = 0; t < LINES; ++t)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
          if (!(there >> t & 1)) sum[t][c] = pairs_x() ? 2 * pad : pad;
    }
    if (pairs_y()) {
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) sum[r][c] += sum[r + 1][c];
    }
  }

  // All loads first, so that they are under way together.
  __device__ void read_columns(const T* from, unsigned tap, A (&sum)[LINES][COLUMNS]) const {
    Vector<T, COLUMNS> vector[LINES];
    A right[LINES];
#pragma unroll
    for (int t = 0; t < LINES; ++t)
      if (t < ROWS || pairs_y())
        vector[t] = *reinterpret_cast<const Vector<T, COLUMNS>*>(moved(from, tap + to_line[t]));
      else
        vector[t] = vector[t - 1];  // not used, but converted below
    if (right_there) {
#pragma unroll
      for (int t = 0; t < LINES; ++t) right[t] = A(moved(from, tap + to_line[t])[COLUMNS]);
    } else {
      SWAP_KEEP_BRANCH();
#pragma unroll
      for (int t = 0; t < LINES; ++t) right[t] = pad;
    }
#pragma unroll
    for (int t = 0; t < LINES; ++t) {
      A(&of)[COLUMNS] = sum[t];
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) of[c] = A(vector[t].value[c]);
      if (!pairs_x()) continue;
#pragma unroll
      for (int c = 0; c + 1 < COLUMNS; ++c) of[c] += of[c + 1];
      of[COLUMNS - 1] += right[t];
    }
  }

  // Left of column 0 the last column has a right neighbour inside.
  __device__ void read_right(const T* from, unsigned tap, A (&sum)[LINES][COLUMNS]) const {
#pragma unroll
    for (int t = 0; t < LINES; ++t) {
#pragma unroll
      for (int c = 0; c + 1 < COLUMNS; ++c) sum[t][c] = 2 * pad;
      sum[t][COLUMNS - 1] = pad + A(moved(from, tap + to_line[t])[COLUMNS]);
    }
  }
};

// A thread among those of its team.
struct Team {
  int number, thread, threads, stage_bytes;
};

// Writes stages in the order of x, up to PLACES places per thread. Place number
// phase * row + i is the output (u, x) of that phase. Where the tile rolls, a row is the
// outputs of a phase: a place is at x = i, and its cell is one further with each step. Else a
// row is the tile: a place stays at its cell, and its x is one less with each step. Where teams
// are stacked, a row is the rows of all of them, which follow one another in memory, and the
// whole block shares them out.
template <class T, int PLACES>
struct RunWriter {
  static constexpr int ROWS = forward_rows(sizeof(T)), VALUES = GROUPS * ROWS;
  static constexpr int STEP_BITS = FORWARD_STEPS + 1, ALL = (1 << VALUES) - 1;

  T* to;                    // moves on by a group per step
  int next_group;
  unsigned next_group_v;    // bytes to the second group along v
  unsigned line[ROWS];      // bytes to the output row (v, y) of each slot, in the first one
  unsigned output[PLACES];  // elements to the output (u, x) of each place
  unsigned place[PLACES];   // the cell, and above 16 bits where its phase begins in the stages
  unsigned there[PLACES];   // a bit per step, and above STEP_BITS one per group and slot
  int ring, turned = 0;     // cells of the stage; the one that is a row's first in this step
  bool rolls;
  int width = 1;  // neighbours of a row are one place where the tile rolls: 4, 2 or 1

  // first_slot: the team's; the first team's where they are stacked.
  __device__ RunWriter(T* out, const Outputs& o, int n, int first_pv, int first_slot,
                       int first_pu, int first_cell, int tile, const Held& held,
                       const Team& team)
      : ring(held.ring), rolls(held.rolls) {
    const int lam = o.lam, cell0 = first_slot / lam, own = rolls ? o.cells_x : tile,
              writers = held.stacks ? int(blockDim.x) : team.threads,
              row = writers / team.threads * own;
    next_group = int(o.next_group_u()) + rolls;
    next_group_v = unsigned(o.next_group_v()) * unsigned(sizeof(T));
    const unsigned long long places =
        o.cells_x | reinterpret_cast<unsigned long long>(out) / sizeof(T);
    if (PLACES == 4 && rolls) width = places % 4 == 0 ? 4 : places % 2 == 0 ? 2 : 1;
    to =
        out +
        ((n * Index(o.fine_v) + lam * first_pv - o.lead) * o.fine_u + lam * first_pu - o.lead) *
            o.plane +
        Index(cell0 - first_pv) * o.cells_x + first_cell - first_pu;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int cell = (first_slot + r) / lam, phase = first_slot + r - lam * cell;
      line[r] = unsigned((phase * o.fine_u * o.cells_y + cell - cell0) * o.cells_x) *
                unsigned(sizeof(T));
    }
#pragma unroll
    for (int c = 0; c < PLACES; ++c) {
      output[c] = place[c] = there[c] = 0;
      if (c * width >= PLACES) continue;
      const int thread = held.stacks ? int(threadIdx.x) : team.thread,
                number = width * (thread + c * writers), phase = number / row,
                in_row = number - phase * row, on = in_row / own, i = in_row - on * own;
      if (phase >= lam) continue;
      output[c] = unsigned(phase * int(o.plane) + in_row);
      const int stage = (held.stacks ? on : team.number) * team.stage_bytes;
      place[c] = unsigned(stage + held.place(phase) * Stage<T, VALUES>::STRIDE) << 16 |
                 unsigned(i);
      int steps = o.bins_inside(FORWARD_STEPS, first_pu, phase);
      if (!rolls) steps &= o.cells_inside(FORWARD_STEPS, first_cell + i - first_pu);
      const unsigned lines = lines_there(o, first_pv, first_slot + lam * on);
      if (lines) there[c] = unsigned(2 * steps) | lines << STEP_BITS;
    }
  }

  // Bit k: the output row of group and slot k is there.
  __device__ static unsigned lines_there(const Outputs& o, int first_pv, int first_slot) {
    unsigned there = 0;
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      const int i = k / ROWS, slot = first_slot + k % ROWS, cell = slot / o.lam,
                phase = slot - o.lam * cell;
      if (inside(o.lam * (first_pv + i) + phase - o.lead, o.fine_v) &&
          inside(cell - first_pv - i, o.cells_y))
        there |= 1u << k;
    }
    return there;
  }

  // To the next step.
  __device__ void move() {
    to += next_group;
    if (rolls) turned = turned + 1 < ring ? turned + 1 : 0;
  }

  // bit: of step t, 2 << t.
  __device__ void write(const Stage<T, VALUES>& stage, int bit) {
    if (width == 4)
      write_places<PLACES>(stage, bit);
    else if (width == 2)
      write_places<(PLACES + 1) / 2>(stage, bit);
    else
      write_places<1>(stage, bit);
  }

  // WIDTH: outputs of a place along x.
  template <int WIDTH>
  __device__ void write_places(const Stage<T, VALUES>& stage, int bit) {
#pragma unroll
    for (int c = 0; c < PLACES / WIDTH; ++c) {
      SWAP_KEEP_PACKED(place[c]);
      SWAP_KEEP_PACKED(there[c]);
      if (there[c] & bit) write_place<WIDTH>(stage, c);
    }
  }

  template <int WIDTH>
  __device__ void write_place(const Stage<T, VALUES>& stage, int c) const {
    T result[WIDTH][VALUES];
    const int cell = int(place[c] & 0xffff) + turned, first = int(place[c] >> 16);
#pragma unroll
    for (int i = 0; i < WIDTH; ++i)
      stage.load(first + (cell + i - (cell + i >= ring ? ring : 0)) * Stage<T, VALUES>::STRIDE,
                 result[i]);
    const int lines = int(there[c] >> STEP_BITS);
    if (lines == ALL)  // far from the edges
      write_lines<WIDTH, true>(to + output[c], lines, result);
    else
      write_lines<WIDTH, false>(to + output[c], lines, result);
  }

  template <int WIDTH, bool EVERY>
  __device__ void write_lines(T* first, int lines, const T (&result)[WIDTH][VALUES]) const {
#pragma unroll
    for (int k = 0; k < VALUES; ++k) {
      Vector<T, WIDTH> vector;
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) vector.value[i] = result[i][k];
      if (EVERY || lines >> k & 1)
        *reinterpret_cast<Vector<T, WIDTH>*>(
            moved(moved(first, k / ROWS * next_group_v), line[k % ROWS])) = vector;
    }
  }
};

template <class T, int COLUMNS, bool EVEN>
__device__ void walk_forward(unsigned char* shared, const T* __restrict__ input,
                             T* __restrict__ out, double pad_value, const Shape& s, int tile) {
  using A = Acc<T>;
  using Reader = ColumnReader<T, COLUMNS, EVEN>;
  constexpr int ROWS = forward_rows(sizeof(T)), VALUES = GROUPS * ROWS, STEPS = FORWARD_STEPS;
  constexpr int NEVER = 1 << 30;  // a step that does not come
  const Outputs o(s);
  const Held held(s, COLUMNS, sizeof(T), tile);
  const int lam = o.lam, U = int(s.U), threads = held.threads, places = int(held.places(lam));
  const Team team{int(threadIdx.x) / threads, int(threadIdx.x) % threads, threads,
                  int(stage_bytes(places, VALUES * sizeof(T)))};

  BlockDigits block{blockIdx.x};
  const int first_pu = STEPS * block.next(quotient_up(s.U + 1, STEPS));
  const int first_pv = GROUPS * block.next(quotient_up(s.V + 1, GROUPS));
  int first_cell = first_pu;
  if (!held.rolls) first_cell += tile * block.next(quotient_up(o.cells_x + STEPS - 1, tile));
  const int teams = int(blockDim.x) / threads, apart = held.stacks ? lam : ROWS;
  int first_slot = lam * first_pv + ROWS * block.next(held.blocks_beside(s, sizeof(T)));
  first_slot += teams * apart * block.next(held.blocks_along(s, sizeof(T), teams));
  const int own_slot = first_slot + apart * team.number;
  const int n = block.rest, steps = first_pu + STEPS <= U ? STEPS : U + 1 - first_pu;
  RunWriter<T, COLUMNS> writer(out, o, n, first_pv, held.stacks ? first_slot : own_slot,
                               first_pu, first_cell, tile, held, team);

  // The thread's columns, the weight of their upper bin along u, and their places in the stage.
  const int first_x = int(s.ux().row_of_slot(lam * first_cell)), skip = first_x & (COLUMNS - 1);
  const int column = COLUMNS * team.thread - skip;
  Reader reader(input, s, A(pad_value), n, first_pv - 1, own_slot);
  A upper[COLUMNS];
  int place[COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; ++c) {
    const int slot = column + c + COLUMNS * lam, cell = slot / lam - COLUMNS,
              phase = slot % lam;
    upper[c] = blend_at<A>(phase, lam).upper;
    place[c] = team.number * team.stage_bytes +
               (int(held.place(phase)) + (cell + held.ring) % held.ring) *
                   Stage<T, VALUES>::STRIDE;
  }
  // Bit t: an output of the columns from x on that is inside the grid wants bin
  // first_pu + t - 1; and the bin is inside.
  const auto wanted_at = [&](int x) {
    const int slot = x - first_x + COLUMNS * lam, cell = first_cell - first_pu + 1 - COLUMNS;
    return bits_between(cell + slot / lam - o.cells_x, cell + (slot + COLUMNS - 1) / lam,
                        steps + 1);
  };
  // Threads beyond the tile's columns, or below the last slot, want none.
  const bool mine = column + (held.rolls ? skip : 0) < lam * tile &&
                    own_slot < lam * (first_pv + o.cells_y + GROUPS - 1);
  int x = first_x + column, wanted = mine ? wanted_at(x) : NEVER;
  const int there = bits_between(1 - first_pu, U - first_pu, steps + 1);

  // The walk: what bin p-1 gives to group p is carried over.
  typename Reader::Blended bin;
  A carried[COLUMNS][VALUES] = {};
  const T* from = reader.base + (first_pu - 1) * s.H * s.W + reader.move_to(x);
  for (int t = -1, bit = 1; t < steps; ++t, bit *= 2, from += s.H * s.W) {
    const Stage<T, VALUES> stage(shared, places, t);
    if (held.rolls && wanted < bit) {  // to the cell that comes next
      // `carried` is the old cell's still: the new one's first step gives no output.
      x += lam * tile, wanted = wanted_at(x);
      if (!wanted) wanted = NEVER;
      from += reader.move_to(x);
    }
    if (wanted & bit && !reader.any_there()) {  // the same in every step
      A padded[Reader::ROWS];
      reader.padding(padded);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        A sum[VALUES];
#pragma unroll
        for (int k = 0; k < VALUES; ++k) {
          sum[k] = (1 - upper[c]) * padded[k % ROWS];
          if (EVEN || upper[c] != 0) sum[k] = fused(upper[c], padded[k % ROWS], sum[k]);
        }
        stage.store(place[c], rounded<T>(sum));
      }
    } else if (wanted & bit) {
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
      writer.write(stage, bit);
      writer.move();
    }
  }
}

// COLUMNS > 1: W is a multiple of it and the input aligned to COLUMNS values.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(forward_threads(sizeof(T)), 1)
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
