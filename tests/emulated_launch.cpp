// launch.cu on a CPU: which kernel a call takes, with which launch; the kernels run as
// emulated_kernels.cpp runs them. Tests call it through ctypes, and link it with plugin.cpp.
#include "emulated_kernels.cpp"
#include "gpu/launch.h"

// The last launch: blocks, threads, shared bytes, then the kernel's words.
static std::vector<int64_t> queued;

namespace swap_align2nat {

template <class P>
int64_t packed(P value) {
  static_assert(sizeof(P) == 8, "every kernel parameter is a 64-bit word");
  int64_t word;
  std::memcpy(&word, &value, 8);
  return word;
}

template <class... P, class... A>
int queue(void*, const Launch& launch, void (*kernel)(P...), A... arguments) {
  queued = {launch.blocks, launch.threads, launch.shared_bytes, packed(P(arguments))...};
  return run_grid(queued.data(), [=] { kernel(P(arguments)...); });
}

const char* launch_error(int) { return "the emulator stopped"; }

}  // namespace swap_align2nat

#include "gpu/launch.cu"

static swap_align2nat::Shape shape_of(const int64_t* s) {
  return {s[0], s[1], s[2], s[3], s[4], s[5]};
}

// half: 0 or 1; sizes: N, V, U, H, W, lam
extern "C" int emulated_forward(int half, const void* x, void* out, double pad_value,
                                const int64_t* sizes) {
  queued.clear();
  const auto type = swap_align2nat::Type(half);
  return swap_align2nat::launch_forward(type, x, out, pad_value, shape_of(sizes), nullptr);
}

extern "C" int emulated_windows(int half, const void* x, const long long* index, void* out,
                                double pad_value, const int64_t* sizes, int64_t K) {
  queued.clear();
  const auto type = swap_align2nat::Type(half);
  return swap_align2nat::launch_forward_windows(type, x, index, out, pad_value, shape_of(sizes),
                                                K, nullptr);
}

// Words of the last launch, none if nothing was launched; returns their number.
extern "C" int64_t last_launch(int64_t* words) {
  std::memcpy(words, queued.data(), 8 * queued.size());
  return int64_t(queued.size());
}
