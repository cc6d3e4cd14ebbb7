// A GPU played by a CPU: blocks one after another, the threads of a block as fibres that give
// way at __syncthreads. Include it before the text of a kernel, and `call` the kernel with the
// very words that a launch passes to the driver. It finds what a device leaves to chance: a
// barrier that is missing, or that some threads never reach, and a place read before it is
// written. With EMULATED_THREADS a block's threads are threads of the system, for
// ThreadSanitizer: it sees two of them at one place even where the order did no harm.
#pragma once
#ifdef EMULATED_THREADS
#include <barrier>
#include <thread>
#define EMULATED_BY_EACH thread_local
#else
#include <ucontext.h>
#define EMULATED_BY_EACH
#endif

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

struct Triple {
  unsigned x;
};

static EMULATED_BY_EACH Triple threadIdx;
static Triple blockIdx, blockDim;
static unsigned char* emulated_shared;
static void __syncthreads();

// A kernel's `__shared__` arrays lie in one section, so that they can be spoilt between blocks.
#define EMULATED_SHARED static __attribute__((section("shared")))
EMULATED_SHARED __attribute__((used)) char emulated_section[8];
extern "C" char __start_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_shared[] __attribute__((visibility("hidden")));
constexpr int64_t EMULATED_SHARED_BYTES = 48 << 10;  // what a block has without asking for more

// ---------------------------------------------------------------- one block

static void (*body)(void*);
static void* body_argument;

enum Failure { FINE = 0, DIVERGED = 1, UNKNOWN = 2, TOO_MUCH_SHARED = 3 };

#ifdef EMULATED_THREADS
static std::barrier<>* barrier;

static void __syncthreads() { barrier->arrive_and_wait(); }

// All threads at once. One that ends is waited for no more: fibres tell whether it should be.
static int run_block(unsigned threads, bool, std::vector<char>&) {
  std::barrier<> own(threads);
  barrier = &own;
  std::vector<std::thread> running;
  for (unsigned t = 0; t < threads; ++t)
    running.emplace_back([t] {
      threadIdx.x = t;
      body(body_argument);
      barrier->arrive_and_drop();
    });
  for (std::thread& thread : running) thread.join();
  return FINE;
}
#else
static ucontext_t scheduler;
static std::vector<ucontext_t> fibres;
static std::vector<unsigned> barriers;
static std::vector<char> finished;

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
#endif

// ---------------------------------------------------------------- one launch

template <class Call>
static int run_grid(const int64_t* launch, Call call) {
  if (launch[2] > EMULATED_SHARED_BYTES) return TOO_MUCH_SHARED;
  std::vector<char> stacks;
  std::vector<unsigned char> shared(launch[2] + 64);
  body = [](void* argument) { (*static_cast<Call*>(argument))(); };
  body_argument = &call;
  blockDim.x = unsigned(launch[1]);
  for (int64_t block = 0; block < launch[0]; ++block) {
    blockIdx.x = unsigned(block);
    // NaN in every type: a place read before it is written shows.
    shared.assign(shared.size(), 0xff);
    std::memset(__start_shared, 0xff, __stop_shared - __start_shared);
    emulated_shared =
        shared.data() + (64 - reinterpret_cast<uintptr_t>(shared.data()) % 64) % 64;
    if (const int failure = run_block(blockDim.x, block % 2 == 1, stacks)) return failure;
  }
  return FINE;
}

template <class P>
static P unpacked(int64_t word) {
  static_assert(sizeof(P) <= 8, "a kernel parameter fits into a 64-bit word");
  P value;
  std::memcpy(&value, &word, sizeof(P));
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
