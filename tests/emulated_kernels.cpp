// Runs the text of kernels.cu on a CPU, by emulator.h. Indices, launch shapes and shared memory
// are the device's own; kernels are called with the very 64-bit words that a launch passes to
// the driver.
#include "emulator.h"

#include "cpu/storage.h"

#define __global__ static
#define __device__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define SWAP_KEEP_PACKED(mask)
#define SWAP_KEEP_BRANCH()
#define SWAP_SHARED(name) unsigned char* const name = emulated_shared
#include "gpu/kernels.cu"

static_assert(swap_align2nat::MAX_SHARED_BYTES == EMULATED_SHARED_BYTES);

template <class T>
static int run(const char* kernel, int columns, const int64_t* launch, const int64_t* words,
               int64_t count) {
  using namespace swap_align2nat;
  const auto named = [&](const char* name) { return std::strcmp(kernel, name) == 0; };
  if (named("forward_tiles") && columns == 1)
    return call(forward_tiles<T, 1>, launch, words, count);
  if constexpr (sizeof(T) <= 4)
    if (named("forward_tiles") && columns == 4)
      return call(forward_tiles<T, 4>, launch, words, count);
  if (named("backward_tiles") && columns == 1)
    return call(backward_tiles<T, 1>, launch, words, count);
  if constexpr (sizeof(T) <= 4)
    if (named("backward_tiles") && columns == 2)
      return call(backward_tiles<T, 2>, launch, words, count);
  if (named("forward_elements")) return call(forward_elements<T>, launch, words, count);
  if (named("backward_elements")) return call(backward_elements<T>, launch, words, count);
  if (named("forward_windows")) return call(forward_windows<T>, launch, words, count);
  if (named("backward_windows")) return call(backward_windows<T>, launch, words, count);
  if (named("backward_few_windows")) return call(backward_few_windows<T>, launch, words, count);
  return UNKNOWN;
}

// launch: blocks, threads, shared bytes; words: the kernel's parameters. 0: fine.
extern "C" int emulate(const char* kernel, int dtype, int columns, const int64_t* launch,
                       const int64_t* words, int64_t count) {
  using namespace swap_align2nat;
  switch (dtype) {
    case 0:
      return run<double>(kernel, columns, launch, words, count);
    case 1:
      return run<float>(kernel, columns, launch, words, count);
    case 2:
      return run<Half>(kernel, columns, launch, words, count);
    case 3:
      return run<BFloat16>(kernel, columns, launch, words, count);
    default:
      return UNKNOWN;
  }
}

// The number of an element taken apart, the fastest digit first; what is left comes last.
extern "C" void digits_of(int64_t number, const int64_t* extents, int count, int64_t* digits) {
  swap_align2nat::Digits rest{number};
  for (int k = 0; k < count; ++k) digits[k] = rest.next(extents[k]);
  digits[count] = rest.rest;
}

// The launch shapes as kernels.cu computes them, for the comparison with cuda.py.
extern "C" void launch_shapes(const int64_t* shape, int columns, int back_columns, int bytes,
                              int64_t* forward, int64_t* backward) {
  using namespace swap_align2nat;
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  const Launch a = forward_launch(s, columns, bytes),
               b = backward_launch(s, back_columns, bytes);
  const int64_t first[4] = {a.blocks, a.threads, a.shared_bytes, a.tile};
  const int64_t second[4] = {b.blocks, b.threads, b.shared_bytes, b.tile};
  std::memcpy(forward, first, sizeof(first));
  std::memcpy(backward, second, sizeof(second));
}
