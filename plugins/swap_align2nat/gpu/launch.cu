// Which kernel a call takes, with which launch: for nvcc, and so for TensorRT. Twin: `forward`
// and `forward_windows` in tensormask_edu/ops/cuda.py; a test holds the launches equal.
#include "launch.h"

#if defined(__CUDACC__)
#define SWAP_NEEDS_HALF
#include "kernels.cu"

namespace swap_align2nat {

template <class... P, class... A>
int queue(void* stream, const Launch& launch, void (*kernel)(P...), A... arguments) {
  if (launch.blocks > MOST_BLOCKS) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(launch.blocks));
  config.blockDim = dim3(launch.threads);
  config.dynamicSmemBytes = launch.shared_bytes;
  config.stream = cudaStream_t(stream);
  return cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}

const char* launch_error(int code) { return cudaGetErrorString(cudaError_t(code)); }

}  // namespace swap_align2nat
#endif  // else kernels.cu and a `queue` come from tests/emulated_plugin.cpp

namespace swap_align2nat {

// Columns that a thread of forward_tiles reads at once: 4 where rows and address allow it, else
// 1.
template <class T>
bool four_columns(const T* x, const Shape& s) {
  return s.W % 4 == 0 && reinterpret_cast<unsigned long long>(x) % (4 * sizeof(T)) == 0;
}

template <class T>
int forward(const T* x, T* out, double pad_value, const Shape& s, void* stream) {
  if (s.output_size() == 0) return 0;
  const bool four = four_columns(x, s);
  const Launch tiles = forward_launch(s, four ? 4 : 1, sizeof(T)),
               each = element_launch(s.output_size());
  if (tiles.blocks == 0)
    return queue(stream, each, forward_elements<T>, x, out, pad_value, s.N, s.V, s.U, s.H, s.W,
                 s.lam);
  const auto kernel = four ? forward_tiles<T, 4> : forward_tiles<T, 1>;
  return queue(stream, tiles, kernel, x, out, pad_value, s.N, s.V, s.U, s.H, s.W, s.lam,
               tiles.tile);
}

template <class T>
int windows(const T* x, const Index* index, T* out, double pad_value, const Shape& s, Index K,
            void* stream) {
  const Index elements = K * s.window_size();
  if (elements == 0) return 0;
  return queue(stream, element_launch(elements), forward_windows<T>, x, index, out, pad_value,
               s.N, s.V, s.U, s.H, s.W, s.lam, K);
}

int launch_forward(Type type, const void* x, void* out, double pad_value, const Shape& s,
                   void* stream) {
  if (type == Type::HALF)
    return forward(static_cast<const Half*>(x), static_cast<Half*>(out), pad_value, s, stream);
  return forward(static_cast<const float*>(x), static_cast<float*>(out), pad_value, s, stream);
}

int launch_forward_windows(Type type, const void* x, const Index* index, void* out,
                           double pad_value, const Shape& s, Index K, void* stream) {
  if (type == Type::HALF)
    return windows(static_cast<const Half*>(x), index, static_cast<Half*>(out), pad_value, s, K,
                   stream);
  return windows(static_cast<const float*>(x), index, static_cast<float*>(out), pad_value, s, K,
                 stream);
}

}  // namespace swap_align2nat
