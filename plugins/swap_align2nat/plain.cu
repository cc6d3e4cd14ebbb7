// swap_align2nat the plain way, float32: one thread per output, 16 scattered reads with an inside test each; the
// backward sends 16 atomic adds. What our kernels are measured against. Compiled by NVRTC, or by g++ with OpenMP.
#if defined(__CUDACC__)
#define PLAIN_HD __device__ __forceinline__
#else
#include <cmath>
#define PLAIN_HD static inline
#endif

struct Sizes {
  int N, V, U, H, W, lam;
};

// Calls visit(flat input place, or -1 outside, weight) for the 16 taps of output i.
template <class Visit>
PLAIN_HD void for_each_tap(const Sizes& s, long long i, Visit visit) {
  const int columns = (s.W + s.lam - 1) / s.lam, rows = (s.H + s.lam - 1) / s.lam;
  const int x = i % columns, y = i / columns % rows;
  i /= (long long)columns * rows;
  const int u = i % (s.lam * s.U), v = i / (s.lam * s.U) % (s.lam * s.V), n = i / (s.lam * s.U) / (s.lam * s.V);
  const float place[4] = {(v + 0.5f) / s.lam - 0.5f, (u + 0.5f) / s.lam - 0.5f,
                          s.lam * y + v - s.lam * s.V / 2.0f + 0.5f, s.lam * x + u - s.lam * s.U / 2.0f + 0.5f};
  const int extent[4] = {s.V, s.U, s.H, s.W};
  for (int tap = 0; tap < 16; ++tap) {
    long long flat = n;
    float weight = 1;
    bool inside = true;
    for (int axis = 0; axis < 4; ++axis) {
      const float lower = floorf(place[axis]), fraction = place[axis] - lower;
      const int upper = tap >> axis & 1, index = int(lower) + upper;
      weight *= upper ? fraction : 1 - fraction;
      inside = inside && index >= 0 && index < extent[axis];
      flat = flat * extent[axis] + index;
    }
    visit(inside ? flat : -1, weight);
  }
}

PLAIN_HD float output(const float* x, const Sizes& s, float pad_value, long long i) {
  float sum = 0;
  for_each_tap(s, i, [&](long long place, float weight) { sum += weight * (place < 0 ? pad_value : x[place]); });
  return sum;
}

#define SIZES int N, int V, int U, int H, int W, int lam

#if defined(__CUDACC__)
extern "C" __global__ void plain_forward(const float* x, float* out, SIZES, long long count, float pad_value) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = output(x, {N, V, U, H, W, lam}, pad_value, i);
}

extern "C" __global__ void plain_backward(const float* grad, float* grad_x, SIZES, long long count) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  for_each_tap({N, V, U, H, W, lam}, i, [&](long long place, float weight) {
    if (place >= 0 && weight != 0) atomicAdd(grad_x + place, weight * grad[i]);
  });
}
#else
extern "C" void plain_forward(const float* x, float* out, SIZES, long long count, float pad_value) {
#pragma omp parallel for
  for (long long i = 0; i < count; ++i) out[i] = output(x, {N, V, U, H, W, lam}, pad_value, i);
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
