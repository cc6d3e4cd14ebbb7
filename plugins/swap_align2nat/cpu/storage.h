// 16-bit storage types of the CPU: memory holds 16 bits, arithmetic is done in float. On a
// device the same names stand for the CUDA types.
#pragma once

#include <cstdint>
#include <cstring>

namespace swap_align2nat {

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    const bool is_nan = (word & 0x7fffffffu) > 0x7f800000u;
    // Rounded to the nearest, of two to the even one.
    bits = is_nan ? uint16_t(0x7fc0) : uint16_t((word + 0x7fffu + (word >> 16 & 1)) >> 16);
  }
  explicit operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};

#ifdef __FLT16_MANT_DIG__
using Half = _Float16;
#else
struct Half {
  uint16_t bits;
  Half() = default;
  explicit Half(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    const uint32_t sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      bits = uint16_t(sign | 0x7e00u);
    } else if (magnitude >= 0x477ff000u) {
      bits = uint16_t(sign | 0x7c00u);  // rounds to infinity
    } else if (magnitude < 0x38800000u) {
      // Below the smallest normal half: adding 0.5 leaves the multiple of 2^-24, rounded, in
      // the low bits.
      float shifted;
      std::memcpy(&shifted, &magnitude, 4);
      shifted += 0.5f;
      uint32_t rounded;
      std::memcpy(&rounded, &shifted, 4);
      bits = uint16_t(sign | (rounded - 0x3f000000u));
    } else {
      bits =
          uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13));
    }
  }
  explicit operator float() const {
    const uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u,
                   fraction = bits & 0x3ffu;
    if (exponent == 0) {
      const float magnitude = float(fraction) * 5.9604644775390625e-8f;  // 2^-24
      return sign ? -magnitude : magnitude;
    }
    const uint32_t word =
        sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};
#endif

}  // namespace swap_align2nat
