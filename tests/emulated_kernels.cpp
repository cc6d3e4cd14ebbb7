// Runs the text of kernels.cu on a CPU: blocks one after another, the threads of a block as
// fibres that give way at __syncthreads. Indices, launch shapes and shared memory are the
// device's own; kernels are called with the very 64-bit words that a launch passes to the
// driver.
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/storage.h"

struct Triple {
  unsigned x;
};

static Triple threadIdx, blockIdx, blockDim;
static unsigned char* emulated_shared;
static void __syncthreads();

#define __global__ static
#define __device__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define SWAP_KEEP_PACKED(mask)
#define SWAP_SHARED(name) unsigned char* const name = emulated_shared
#include "gpu/kernels.cu"

// ---------------------------------------------------------------- one block

static ucontext_t scheduler;
static std::vector<ucontext_t> fibres;
static std::vector<unsigned> barriers;
static std::vector<char> finished;
static void (*body)(void*);
static void* body_argument;

static void __syncthreads() {
  const unsigned self = threadIdx.x;
  ++barriers[self];
  swapcontext(&fibres[self], &scheduler);
}

static void run_fibre() {
  const unsigned self = threadIdx.x;
  body(body_argument);
  finished[self] = 1;
}

enum Failure { FINE = 0, DIVERGED = 1, UNKNOWN = 2, TOO_MUCH_SHARED = 3 };

// All threads up to the next barrier, forwards or backwards, until all have ended. A barrier
// that some threads reach while others have ended is an error on a device, and here.
static int run_block(unsigned threads, bool backwards, std::vector<char>& stacks) {
  constexpr size_t stack_bytes = 32 << 10;
  stacks.resize(threads * stack_bytes);
  fibres.assign(threads, {});
  barriers.assign(threads, 0);
  finished.assign(threads, 0);
  for (unsigned t = 0; t < threads; ++t) {
    getcontext(&fibres[t]);
    fibres[t].uc_stack.ss_sp = stacks.data() + t * stack_bytes;
    fibres[t].uc_stack.ss_size = stack_bytes;
    fibres[t].uc_link = &scheduler;
    makecontext(&fibres[t], run_fibre, 0);
  }
  for (;;) {
    for (unsigned k = 0; k < threads; ++k) {
      threadIdx.x = backwards ? threads - 1 - k : k;
      swapcontext(&scheduler, &fibres[threadIdx.x]);
    }
    for (unsigned t = 1; t < threads; ++t)
      if (finished[t] != finished[0] || barriers[t] != barriers[0]) return DIVERGED;
    if (finished[0]) return FINE;
  }
}

// ---------------------------------------------------------------- one launch

template <class Call>
static int run_grid(const int64_t* launch, Call call) {
  if (launch[2] > swap_align2nat::MAX_SHARED_BYTES) return TOO_MUCH_SHARED;
  std::vector<char> stacks;
  std::vector<unsigned char> shared(launch[2] + 64);
  body = [](void* argument) { (*static_cast<Call*>(argument))(); };
  body_argument = &call;
  blockDim.x = unsigned(launch[1]);
  for (int64_t block = 0; block < launch[0]; ++block) {
    blockIdx.x = unsigned(block);
    shared.assign(shared.size(),
                  0xff);  // NaN in every type: a place read before it is written shows
    emulated_shared =
        shared.data() + (64 - reinterpret_cast<uintptr_t>(shared.data()) % 64) % 64;
    if (const int failure = run_block(blockDim.x, block % 2 == 1, stacks)) return failure;
  }
  return FINE;
}

template <class P>
static P unpacked(int64_t word) {
  static_assert(sizeof(P) == 8, "every kernel parameter is a 64-bit word");
  P value;
  std::memcpy(&value, &word, 8);
  return value;
}

template <class... P, size_t... I>
static int call(void (*kernel)(P...), const int64_t* launch, const int64_t* words,
                std::index_sequence<I...>) {
  return run_grid(launch, [&] { kernel(unpacked<P>(words[I])...); });
}

template <class... P>
static int call(void (*kernel)(P...), const int64_t* launch, const int64_t* words,
                int64_t count) {
  if (count != int64_t(sizeof...(P))) return UNKNOWN;
  return call(kernel, launch, words, std::index_sequence_for<P...>());
}

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
  if (named("backward_tiles")) return call(backward_tiles<T>, launch, words, count);
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

// The launch shapes as kernels.cu computes them, for the comparison with cuda.py.
extern "C" void launch_shapes(const int64_t* shape, int columns, int bytes, int64_t* forward,
                              int64_t* backward) {
  using namespace swap_align2nat;
  const Shape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  const Launch a = forward_launch(s, columns, bytes), b = backward_launch(s, bytes);
  const int64_t first[4] = {a.blocks, a.threads, a.shared_bytes, a.tile};
  const int64_t second[4] = {b.blocks, b.threads, b.shared_bytes, b.tile};
  std::memcpy(forward, first, sizeof(first));
  std::memcpy(backward, second, sizeof(second));
}
