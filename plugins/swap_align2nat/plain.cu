// swap_align2nat the plain way: the first kernel to read, and what the fast ones are measured
// against. Twins: core.h, the same in integers; tensormask_edu/reference/swap_align2nat.py.
//
//   x:   (N, V, U, H, W)                                contiguous
//   out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))    contiguous
//   out[n,v,u,y,x] = sum over v' u' y' x' of
//                    hat(ov-v') hat(ou-u') hat(oy-y') hat(ox-x') * x[n,v',u',y',x']
//   ov = (v+1/2)/lam - 1/2,   oy = lam*y + v - lam*V/2 + 1/2,   ou and ox alike
//   hat(t) = max(0, 1-|t|),   pad_value outside x
//
// float32 only. A kernel is a function that a GPU runs many times at once, each time as another
// `thread`. Here a thread makes one output element: it finds its place (n, v, u, y, x), reads
// 16 input elements, the two neighbours along each of four axes, and writes their weighted sum.
// Nothing is shared between threads, so it is short, and slow: neighbours read the same
// elements again, and the reads are scattered in memory.
//
// Two compilers read this file, and the words that only one of them knows are kept in macros:
// NVRTC, which makes GPU code at run time and defines __CUDACC__, and g++, whose loops play the
// threads.
#if defined(__CUDACC__)
// __device__: a function that GPU code may call. __forceinline__: its text is copied to where
// it is called.
#define PLAIN_HD __device__ __forceinline__
#else
#include <cmath>
#define PLAIN_HD static inline
#endif

// The six numbers that every shape here is made of.
struct Sizes {
  int N, V, U, H, W, lam;
};

// Calls visit(place, weight) for the 16 taps of output number i: `place` counts the elements of
// x in memory order, -1 is outside. Like a Python function that is given another function; the
// compiler inlines both.
template <class Visit>
PLAIN_HD void for_each_tap(const Sizes& s, long long i, Visit visit) {
  // The number i becomes (n, v, u, y, x), x the fastest axis, as np.unravel_index(i, out.shape)
  // makes it.
  const int cells_x = (s.W + s.lam - 1) / s.lam, cells_y = (s.H + s.lam - 1) / s.lam;  // ceil
  const int fine_u = s.lam * s.U, fine_v = s.lam * s.V;
  const int x = i % cells_x, y = i / cells_x % cells_y;
  i /= (long long)cells_x * cells_y;  // 64 bits: a product of two ints could overflow 32
  const int u = i % fine_u, v = i / fine_u % fine_v, n = i / fine_u / fine_v;

  // Where the output lies in the input, axis by axis: the formula above, real numbers.
  const float origin[4] = {(v + 0.5f) / s.lam - 0.5f, (u + 0.5f) / s.lam - 0.5f,  // ov, ou
                           s.lam * y + v - s.lam * s.V / 2.0f + 0.5f,             // oy
                           s.lam * x + u - s.lam * s.U / 2.0f + 0.5f};            // ox
  const int extent[4] = {s.V, s.U, s.H, s.W};

  // hat(o-i) is zero but for the two integers i beside o: 2 * 2 * 2 * 2 taps.
  for (int tap = 0; tap < 16; ++tap) {
    long long place = n;
    float weight = 1;
    bool inside = true;
    for (int axis = 0; axis < 4; ++axis) {
      const float lower = floorf(origin[axis]), fraction = origin[axis] - lower;
      // Bit `axis` of the tap's number: 0 the lower neighbour, 1 the upper.
      const int upper = tap >> axis & 1;
      const int index = int(lower) + upper;
      weight *= upper ? fraction : 1 - fraction;  // linear interpolation
      inside = inside && index >= 0 && index < extent[axis];
      place = place * extent[axis] + index;  // as np.ravel_multi_index, axis by axis
    }
    visit(inside ? place : -1, weight);
  }
}

// One output element: what is outside x counts as pad_value.
PLAIN_HD float output_element(const float* x, const Sizes& s, float pad_value, long long i) {
  float sum = 0;
  // [&] makes a function on the spot that may change `sum`, as a Python closure with
  // `nonlocal`.
  for_each_tap(s, i, [&](long long place, float weight) {
    sum += weight * (place < 0 ? pad_value : x[place]);
  });
  return sum;
}

#define SIZES int N, int V, int U, int H, int W, int lam

#if defined(__CUDACC__)
// __global__: a kernel, which the CPU may start. extern "C" keeps its name as it is written, to
// be found by it. x and out are addresses in the GPU's memory: a tensor's data_ptr(). `count`
// is the number of outputs.
extern "C" __global__ void plain_forward(const float* x, float* out, SIZES, long long count,
                                         float pad_value) {
  // Threads come in blocks of blockDim.x, and the blocks form the grid. Every thread runs this
  // same text; what tells it from the others is its number in the block, threadIdx.x, and its
  // block's, blockIdx.x.
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  // The guard: whole blocks are started, so the last one has threads too many.
  if (i < count) out[i] = output_element(x, {N, V, U, H, W, lam}, pad_value, i);
}

// The gradient of x, which starts as zeros. The forward read x 16 times; here the gradient of
// output i goes back to those 16 elements with the same weights. What was padding gets none.
extern "C" __global__ void plain_backward(const float* grad, float* grad_x, SIZES,
                                          long long count) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  for_each_tap({N, V, U, H, W, lam}, i, [&](long long place, float weight) {
    // Several outputs read one element, so several threads add to it. `+=` is read, add, write:
    // two threads could read the same old value, and one sum would be lost. An atomic add
    // cannot be interrupted. But the order of the threads is left to chance, and so are the
    // last bits of a sum of floats; gpu/kernels.cu gathers instead: a thread per gradient
    // element, which sums its readers in a fixed order.
    if (place >= 0 && weight != 0) atomicAdd(grad_x + place, weight * grad[i]);
  });
}
#else
// The same for a CPU: a loop instead of a grid. OpenMP deals its rounds out to the threads
// there are.
extern "C" void plain_forward(const float* x, float* out, SIZES, long long count,
                              float pad_value) {
#pragma omp parallel for
  for (long long i = 0; i < count; ++i)
    out[i] = output_element(x, {N, V, U, H, W, lam}, pad_value, i);
}

extern "C" void plain_backward(const float* grad, float* grad_x, SIZES, long long count) {
#pragma omp parallel for
  for (long long i = 0; i < count; ++i)
    for_each_tap({N, V, U, H, W, lam}, i, [&](long long place, float weight) {
      if (place < 0 || weight == 0) return;
#pragma omp atomic
      grad_x[place] += weight * grad[i];
    });
}
#endif
