// The CPU kernels on many small shapes, for builds that Python does not load: sanitizers, no
// SSE. Dense against the single output of core.h, windows against dense, gradients of windows
// for being written.
#include <cmath>
#include <cstdio>
#include <random>

#include "cpu/kernels.cpp"

namespace {

constexpr int FLOAT = 1, ROUNDS = 400;
constexpr Index LAMS[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32};
constexpr Index MOST = 1000000;
constexpr double PAD = -6.25, TOLERANCE = 1e-4;  // of values up to 6.25, summed in float

std::mt19937 generator(3);

Index random(Index low, Index high) {
  return std::uniform_int_distribution<Index>(low, high)(generator);
}

std::vector<float> unwritten(Index size) { return std::vector<float>(size, NAN); }

bool near(double got, double wanted) { return std::fabs(got - wanted) < TOLERANCE; }

int failed(const char* what, const Shape& s, Index count) {
  std::printf("%s: N %lld V %lld U %lld H %lld W %lld lam %lld, %lld windows\n", what, s.N, s.V,
              s.U, s.H, s.W, s.lam, count);
  return 1;
}

int check(const Shape& s, int threads) {
  const int64_t shape[] = {s.N, s.V, s.U, s.H, s.W, s.lam};
  const Index cells_y = s.vy().coarse_cells(), cells_x = s.ux().coarse_cells();
  const Index fine_v = s.vy().fine_bins(), fine_u = s.ux().fine_bins();
  std::vector<float> x(s.input_size()), dense = unwritten(s.output_size());
  for (float& value : x) value = float(random(-100, 100)) / 16;
  if (swap_forward(FLOAT, shape, PAD, threads, x.data(), dense.data()))
    return failed("forward", s, 0);
  const auto place = [&](Index n, Index v, Index u, Index y, Index x) {
    return (((n * fine_v + v) * fine_u + u) * cells_y + y) * cells_x + x;
  };
  for (int k = 0; k < 2000; ++k) {
    const Index n = random(0, s.N - 1), v = random(0, fine_v - 1), u = random(0, fine_u - 1);
    const Index y = random(0, cells_y - 1), i = random(0, cells_x - 1);
    const double wanted = output_element<double>(x.data(), s, PAD, n, v, u, y, i);
    if (!near(dense[place(n, v, u, y, i)], wanted)) return failed("dense", s, 0);
  }
  for (float value : dense)
    if (std::isnan(value)) return failed("not written", s, 0);

  const Index every = s.N * cells_y * cells_x,
              counts[] = {random(1, 12), random(1, 400), every};
  const Index count = std::min(counts[random(0, 2)], MOST / s.window_size() + 1);
  std::vector<int64_t> index;
  for (Index k = 0; k < count; ++k) {
    const Index cell = count == every ? every - 1 - k : random(0, every - 1);
    index.insert(index.end(),
                 {cell / (cells_y * cells_x), cell / cells_x % cells_y, cell % cells_x});
  }
  std::vector<float> windows = unwritten(count * s.window_size()),
                     gradient = unwritten(s.input_size());
  if (swap_forward_windows(FLOAT, shape, PAD, threads, x.data(), index.data(), count,
                           windows.data()))
    return failed("windows", s, count);
  for (Index k = 0; k < count; ++k)
    for (Index v = 0; v < fine_v; ++v)
      for (Index u = 0; u < fine_u; ++u)
        if (!near(windows[(k * fine_v + v) * fine_u + u],
                  dense[place(index[3 * k], v, u, index[3 * k + 1], index[3 * k + 2])]))
          return failed("a window differs", s, count);
  if (swap_backward_windows(FLOAT, shape, threads, windows.data(), index.data(), count,
                            gradient.data()))
    return failed("gradient", s, count);
  for (float value : gradient)
    if (std::isnan(value)) return failed("gradient not written", s, count);
  index[0] = s.N;
  const int code = swap_forward_windows(FLOAT, shape, PAD, threads, x.data(), index.data(),
                                        count, windows.data());
  if (code != INDEX_OUTSIDE) return failed("an index outside is taken", s, count);
  if (swap_forward_windows(FLOAT, shape, PAD, threads, x.data(), index.data(), 0,
                           windows.data()))
    return failed("no windows", s, 0);
  return 0;
}

}  // namespace

int main() {
  for (int round = 0; round < ROUNDS; ++round) {
    const bool large = round % 20 == 0;
    const Index lam = LAMS[random(0, std::size(LAMS) - 1)];
    const Index height = random(1, large ? 130 : 40), width = random(1, large ? 200 : 60);
    const Shape s{random(1, 2), random(1, 6), random(1, 6), height, width, lam};
    if (s.output_size() <= MOST && check(s, int(random(1, 3)))) return 1;
  }
  return 0;
}
