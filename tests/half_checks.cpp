// The Half of compilers that know no _Float16 (built with -U__FLT16_MANT_DIG__): floats of the
// standard input as halves, then each of the 65,536 halves as a float, to the standard output.
#include <cstdio>

#include "cpu/storage.h"

using swap_align2nat::Half;

static_assert(sizeof(Half) == 2);

int main() {
  for (float value; std::fread(&value, 4, 1, stdin) == 1;) {
    const Half half(value);
    std::fwrite(&half.bits, 2, 1, stdout);
  }
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) {
    Half half;
    half.bits = uint16_t(bits);
    const float value = float(half);
    std::fwrite(&value, 4, 1, stdout);
  }
}
