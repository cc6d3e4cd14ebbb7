// What each PTX instruction does to the registers of a warp: the table of all that the executor
// knows. A name that is not in it is refused. Source: PTX ISA, chapter "Instruction Set".
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "../cpu/storage.h"
#include "memory.h"

namespace ptx {

using swap_align2nat::BFloat16;
using swap_align2nat::Half;

class Table {
 public:
  std::map<std::string, Step> steps;

  Table() {
    integers<uint16_t, int16_t>("16");
    integers<uint32_t, int32_t>("32");
    integers<uint64_t, int64_t>("64");
    products<uint32_t, int32_t, uint64_t, int64_t>("32");
    floats<float>("f32");
    floats<double>("f64");
    predicates();
    conversions();
    pairs<uint16_t, uint32_t>("32");
    pairs<uint32_t, uint64_t>("64");
    accesses<uint16_t>("16");
    accesses<uint32_t>("32");
    accesses<uint64_t>("64");
  }

 private:
  // `operand[0] = f(operand[1], ...)` in every active lane.
  template <class Out, class... In, class F>
  void add(const std::string& name, F f) {
    steps[name] = [f](Warp& warp, const Instruction& i, Mask active) {
      in_lanes<Out, In...>(f, warp, i, active, std::index_sequence_for<In...>());
    };
  }

  template <class Out, class... In, class F, size_t... I>
  static void in_lanes(const F& f, Warp& warp, const Instruction& i, Mask active,
                       std::index_sequence<I...>) {
    const Register* const from[] = {&warp.read(i.operand[1 + I], i, active)...};
    Register& to = warp.registers[i.operand[0]];
    to.defined |= active;
    for (int lane = 0; lane < LANES; ++lane)
      if (has(active, lane))
        to.lane[lane] = bits_of(Out(f(value<In>(from[I]->lane[lane])...)));
  }

  // ---------------------------------------------------------------- integers

  // U and S: the same bits, without and with a sign.
  template <class U, class S>
  void integers(const std::string& width) {
    for (const std::string& type : {"b" + width, "u" + width, "s" + width}) {
      add<U, U>("mov." + type, [](U a) { return a; });
      add<U, U, U, bool>("selp." + type, [](U a, U b, bool first) { return first ? a : b; });
      // Sums and lower halves of products are the same bits with and without a sign.
      add<U, U, U>("add." + type, [](U a, U b) { return a + b; });
      add<U, U, U>("sub." + type, [](U a, U b) { return a - b; });
      add<U, U, U>("mul.lo." + type, [](U a, U b) { return uint64_t(a) * b; });
      add<U, U, U, U>("mad.lo." + type, [](U a, U b, U c) { return uint64_t(a) * b + c; });
      add<bool, U, U>("setp.eq." + type, [](U a, U b) { return a == b; });
      add<bool, U, U>("setp.ne." + type, [](U a, U b) { return a != b; });
    }
    add<U, U>("neg.s" + width, [](U a) { return 0 - a; });
    add<U, U>("not.b" + width, [](U a) { return ~a; });
    add<U, U, U>("and.b" + width, [](U a, U b) { return a & b; });
    add<U, U, U>("or.b" + width, [](U a, U b) { return a | b; });
    add<U, U, U>("xor.b" + width, [](U a, U b) { return a ^ b; });
    ordered<U>("u" + width);
    ordered<S>("s" + width);
    // By more than the width, everything is shifted out; the sign comes in from the left.
    constexpr uint32_t BITS = 8 * sizeof(U);
    add<U, U, uint32_t>("shl.b" + width,
                        [](U a, uint32_t by) { return by < BITS ? uint64_t(a) << by : 0; });
    for (const std::string& type : {"b" + width, "u" + width})
      add<U, U, uint32_t>("shr." + type,
                          [](U a, uint32_t by) { return by < BITS ? a >> by : 0; });
    add<S, S, uint32_t>("shr.s" + width,
                        [](S a, uint32_t by) { return a >> std::min(by, BITS - 1); });
    // The lowest `length` bits of a in the place of those of b from `at` on.
    add<U, U, U, uint32_t, uint32_t>(
        "bfi.b" + width, [](U a, U b, uint32_t at, uint32_t length) {
          at &= 255, length &= 255;
          if (at >= BITS || length == 0) return b;
          const U ones = length >= BITS ? U(~U(0)) : U((U(1) << length) - 1);
          const U mask = U(ones << at);
          return U((b & ~mask) | (U(a << at) & mask));
        });
  }

  template <class T>
  void ordered(const std::string& type) {
    comparisons<T>(type);
    add<T, T, T>("min." + type, [](T a, T b) { return std::min(a, b); });
    add<T, T, T>("max." + type, [](T a, T b) { return std::max(a, b); });
    // What a device makes of a division by zero is not said: all ones here.
    add<T, T, T>("div." + type, [](T a, T b) { return b == 0 ? T(-1) : T(a / b); });
    add<T, T, T>("rem." + type, [](T a, T b) { return b == 0 ? T(-1) : T(a % b); });
  }

  template <class T>
  void comparisons(const std::string& type) {
    add<bool, T, T>("setp.lt." + type, [](T a, T b) { return a < b; });
    add<bool, T, T>("setp.le." + type, [](T a, T b) { return a <= b; });
    add<bool, T, T>("setp.gt." + type, [](T a, T b) { return a > b; });
    add<bool, T, T>("setp.ge." + type, [](T a, T b) { return a >= b; });
  }

  template <class U, class S, class WideU, class WideS>
  void products(const std::string& width) {
    add<WideU, U, U>("mul.wide.u" + width, [](U a, U b) { return WideU(a) * b; });
    add<WideS, S, S>("mul.wide.s" + width, [](S a, S b) { return WideS(a) * b; });
    add<WideU, U, U, WideU>("mad.wide.u" + width,
                            [](U a, U b, WideU c) { return WideU(a) * b + c; });
    add<WideU, S, S, WideU>("mad.wide.s" + width,
                            [](S a, S b, WideU c) { return WideU(WideS(a) * b) + c; });
    add<U, U, U>("mul.hi.u" + width, [](U a, U b) { return WideU(a) * b >> 8 * sizeof(U); });
  }

  // ---------------------------------------------------------------- floating point, predicates

  // Without a mode a sum or product is rounded to nearest; a device may then fuse the two.
  template <class T>
  void floats(const std::string& type) {
    add<T, T>("mov." + type, [](T a) { return a; });
    add<T, T, T, bool>("selp." + type, [](T a, T b, bool first) { return first ? a : b; });
    for (const std::string mode : {".", ".rn."}) {
      add<T, T, T>("add" + mode + type, [](T a, T b) { return a + b; });
      add<T, T, T>("sub" + mode + type, [](T a, T b) { return a - b; });
      add<T, T, T>("mul" + mode + type, [](T a, T b) { return a * b; });
    }
    add<T, T, T, T>("fma.rn." + type, [](T a, T b, T c) { return std::fma(a, b, c); });
    add<T, T, T>("div.rn." + type, [](T a, T b) { return a / b; });
    add<T, T>("rcp.rn." + type, [](T a) { return 1 / a; });
    add<T, T>("neg." + type, [](T a) { return -a; });
    add<T, T>("abs." + type, [](T a) { return std::fabs(a); });
    comparisons<T>(type);
    // Ordered but for `neu`, "not equal or unordered": false where a value is NaN.
    add<bool, T, T>("setp.eq." + type, [](T a, T b) { return a == b; });
    add<bool, T, T>("setp.neu." + type, [](T a, T b) { return a != b; });
  }

  void predicates() {
    add<bool, bool>("mov.pred", [](bool a) { return a; });
    add<bool, bool>("not.pred", [](bool a) { return !a; });
    add<bool, bool, bool>("and.pred", [](bool a, bool b) { return a && b; });
    add<bool, bool, bool>("or.pred", [](bool a, bool b) { return a || b; });
    add<bool, bool, bool>("xor.pred", [](bool a, bool b) { return a != b; });
  }

  // ---------------------------------------------------------------- from type to type

  template <class To, class From>
  void convert(const std::string& to, const std::string& from) {
    add<To, From>("cvt." + to + "." + from, [](From a) { return To(a); });
  }

  void conversions() {
    between<uint32_t>("u32"), between<int32_t>("s32");
    between<uint64_t>("u64"), between<int64_t>("s64");
    convert<double, float>("f64", "f32");
    convert<float, double>("rn.f32", "f64");
    convert<float, Half>("f32", "f16");
    convert<Half, float>("rn.f16", "f32");
    convert<float, BFloat16>("f32", "bf16");
    convert<BFloat16, float>("rn.bf16", "f32");
    // Two floats to one register; the first becomes the upper half.
    packed<Half>("cvt.rn.f16x2.f32");
    packed<BFloat16>("cvt.rn.bf16x2.f32");
    add<uint64_t, uint64_t>("cvta.to.global.u64", [](uint64_t a) { return a; });
  }

  // An integer type to the others, and to floating point.
  template <class From>
  void between(const std::string& from) {
    convert<uint16_t, From>("u16", from);
    convert<uint32_t, From>("u32", from), convert<int32_t, From>("s32", from);
    convert<uint64_t, From>("u64", from), convert<int64_t, From>("s64", from);
    convert<float, From>("rn.f32", from), convert<double, From>("rn.f64", from);
  }

  template <class T>
  void packed(const std::string& name) {
    add<uint32_t, float, float>(name, [](float upper, float lower) {
      return uint32_t(bits_of(T(upper)) << 16 | bits_of(T(lower)));
    });
  }

  // `mov` of two halves to a register and back; the first half is the lower one.
  template <class Part, class Whole>
  void pairs(const std::string& width) {
    constexpr int BITS = 8 * sizeof(Part);
    add<Whole, Part, Part>("pack.b" + width,
                           [](Part a, Part b) { return Whole(b) << BITS | a; });
    steps["unpack.b" + width] = [](Warp& warp, const Instruction& i, Mask active) {
      const Register from = warp.read(i.operand[2], i, active);
      for (int half = 0; half < 2; ++half) {
        Register& to = warp.registers[i.operand[half]];
        to.defined |= active;
        for (int lane = 0; lane < LANES; ++lane)
          if (has(active, lane)) to.lane[lane] = Part(from.lane[lane] >> half * BITS);
      }
    };
  }

  // ---------------------------------------------------------------- loads and stores

  template <class T>
  void accesses(const std::string& width) {
    for (const std::string& type : {"b" + width, "u" + width, "f" + width}) {
      vectors<T, 1>("." + type);
      vectors<T, 2>(".v2." + type);
      if constexpr (sizeof(T) < 8) vectors<T, 4>(".v4." + type);
    }
  }

  template <class T, int COUNT>
  void vectors(const std::string& type) {
    for (const std::string space : {"global", "global.nc", "shared"}) {
      const bool shared = space == "shared";
      steps["ld." + space + type] = [shared](Warp& warp, const Instruction& i, Mask active) {
        access<T, COUNT>(warp, i, active, shared, false);
      };
    }
    for (const std::string space : {"global", "shared"}) {
      const bool shared = space == "shared";
      steps["st." + space + type] = [shared](Warp& warp, const Instruction& i, Mask active) {
        access<T, COUNT>(warp, i, active, shared, true);
      };
    }
  }

  // Operands: the address, bytes to add to it, the values.
  template <class T, int COUNT>
  static void access(Warp& warp, const Instruction& i, Mask active, bool shared, bool store) {
    const Register& base = warp.read(i.operand[0], i, active);
    uint64_t address[LANES];
    char* place[LANES];
    // Shared addresses have 32 bits.
    for (int lane = 0; lane < LANES; ++lane)
      address[lane] = (shared ? uint32_t(base.lane[lane]) : base.lane[lane]) + i.operand[1];
    warp.memory->reach(warp, i, address, active, COUNT * sizeof(T), shared, store, place);
    for (int k = 0; k < COUNT; ++k) {
      const int number = i.operand[2 + k];
      Register& values =
          store ? const_cast<Register&>(warp.read(number, i, active)) : warp.registers[number];
      if (!store) values.defined |= active;
      for (int lane = 0; lane < LANES; ++lane) {
        if (!place[lane]) continue;
        T* const at = reinterpret_cast<T*>(place[lane]) + k;
        if (store)
          std::memcpy(at, &values.lane[lane], sizeof(T));
        else
          values.lane[lane] = bits_of(*at);
      }
    }
  }
};

}  // namespace ptx
