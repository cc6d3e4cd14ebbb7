// The kernels with shared memory, a thread of the system for each thread of a block, for
// ThreadSanitizer: two threads at one place without a barrier between them end the program.
#define EMULATED_THREADS
#include <cstdio>

#include "emulated_kernels.cpp"

using namespace swap_align2nat;

// Several steps of the walk and several blocks, few threads: each costs the sanitizer much.
constexpr Shape SHAPES[] = {{1, 2, 9, 3, 8, 2}, {1, 1, 10, 2, 6, 1}, {1, 3, 4, 5, 7, 3}};
constexpr double PAD = -6, TOLERANCE = 1e-4;  // of values up to 6, summed in float

static int failed(const char* kernel, const Shape& s) {
  std::printf("%s: V %lld U %lld H %lld W %lld lam %lld\n", kernel, s.V, s.U, s.H, s.W, s.lam);
  return 1;
}

static std::vector<float> values(Index count) {
  std::vector<float> result(count);
  for (Index k = 0; k < count; ++k) result[k] = float(k * 37 % 97 - 48) / 8;
  return result;
}

// Calls a kernel with the words that a launch passes, and compares with the sum of one thread.
template <class Kernel, class Wanted>
static bool right(Kernel kernel, const Launch& launch, std::vector<int64_t> words,
                  const std::vector<float>& out, Wanted wanted) {
  const int64_t numbers[] = {launch.blocks, launch.threads, launch.shared_bytes};
  words.push_back(launch.tile);
  if (launch.blocks == 0 || call(kernel, numbers, words.data(), int64_t(words.size())))
    return false;
  for (Index k = 0; k < Index(out.size()); ++k)
    if (!(std::abs(out[k] - wanted(k)) < TOLERANCE)) return false;
  return true;
}

static int check(const Shape& s) {
  const std::vector<float> x = values(s.input_size()), grad = values(s.output_size());
  std::vector<float> out(grad.size()), grad_x(x.size());
  int64_t pad;
  std::memcpy(&pad, &PAD, 8);
  const auto forward = [&](Index k) {
    Digits d{k};
    const Index i = d.next(s.ux().coarse_cells()), y = d.next(s.vy().coarse_cells());
    const Index u = d.next(s.lam * s.U), v = d.next(s.lam * s.V);
    return output_element<double>(x.data(), s, PAD, d.rest, v, u, y, i);
  };
  const auto backward = [&](Index k) {
    Digits d{k};
    const Index i = d.next(s.W), y = d.next(s.H), u = d.next(s.U), v = d.next(s.V);
    return input_gradient<double>(grad.data(), s, d.rest, v, u, y, i);
  };
  const auto words = [&](const float* from, float* to) {
    return std::vector<int64_t>{int64_t(from), int64_t(to), s.N, s.V, s.U, s.H, s.W, s.lam};
  };
  std::vector<int64_t> forth = words(x.data(), out.data());
  forth.insert(forth.begin() + 2, pad);
  if (!right(forward_tiles<float, 1>, forward_launch(s, 1, 4), forth, out, forward))
    return failed("forward_tiles 1", s);
  if (s.W % 4 == 0 &&
      !right(forward_tiles<float, 4>, forward_launch(s, 4, 4), forth, out, forward))
    return failed("forward_tiles 4", s);
  const std::vector<int64_t> back = words(grad.data(), grad_x.data());
  if (!right(backward_tiles<float, 1>, backward_launch(s, 1, 4), back, grad_x, backward))
    return failed("backward_tiles 1", s);
  if (s.W % 2 == 0 &&
      !right(backward_tiles<float, 2>, backward_launch(s, 2, 4), back, grad_x, backward))
    return failed("backward_tiles 2", s);
  return 0;
}

int main() {
  for (const Shape& s : SHAPES)
    if (check(s)) return 1;
  return 0;
}
