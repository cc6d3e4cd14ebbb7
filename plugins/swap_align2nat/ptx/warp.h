// A warp of the executor: 32 lanes, each a CUDA thread with its own values of all registers,
// which step through one list of instructions. What a lane does wrong is noted, not hidden: the
// instruction goes on with the other lanes.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace ptx {

constexpr int LANES = 32, OPERANDS = 8;
using Mask = uint32_t;  // a bit per lane

inline bool has(Mask lanes, int lane) { return lanes >> lane & 1; }

// ---------------------------------------------------------------- what is found

enum Fault {
  OUTSIDE,      // an address in no tensor, or beyond the block's shared memory
  READ_ONLY,    // a store into a tensor that the kernel only reads
  MISALIGNED,   // an address that is no multiple of the access
  RACE,         // two threads, the same bytes, one of them stores, and no barrier between
  UNWRITTEN,    // shared memory read before any thread stored there
  UNDEFINED,    // a register read before it was set
  DIVERGED,     // a barrier that some threads of the block never reach
  ENDLESS,      // a warp that does not come to an end
  FAULT_KINDS,
};

// The number of faults of each kind, and where the first ones are.
struct Findings {
  static constexpr int SHOWN = 16;
  struct Place {
    int64_t kind, instruction, block, thread, address;
  };
  int64_t count[FAULT_KINDS] = {};
  Place first[SHOWN] = {};
  int64_t shown = 0;

  void add(const Place& place) {
    ++count[place.kind];
    if (shown < SHOWN) first[shown++] = place;
  }
};

// What one instruction cost in a whole launch. `moved`: 32-byte sectors of global memory, or
// waves of shared memory; `ideal`: as few as the same bytes could take.
struct Cost {
  int64_t issued, lanes, moved, ideal;
};

// ---------------------------------------------------------------- instructions

struct Warp;
struct Instruction;
using Step = std::function<void(Warp&, const Instruction&, Mask)>;

enum Flow { STEP, BRANCH, RETURN, BARRIER };

struct Instruction {
  const Step* step;  // of Flow::STEP alone
  Flow flow;
  int number, guard, target;  // guard: a register, -1: none
  bool negated;               // runs where the guard is false
  int operand[OPERANDS];      // registers; of loads and stores, one is the offset in bytes
};

// Narrow values are the low bits.
struct Register {
  uint64_t lane[LANES];
  Mask defined;
};

// Lanes at the same instruction.
struct Fragment {
  int at;
  Mask lanes;
};

struct Memory;

struct Warp {
  std::vector<Register> registers;
  std::vector<Fragment> fragments;  // those that can go on
  int64_t block = 0, first_thread = 0;
  uint32_t barriers = 0;  // that the block has passed
  Mask waiting = 0;
  int waits_at = -1;
  Memory* memory = nullptr;
  Findings* findings = nullptr;

  void fault(Fault kind, const Instruction& i, int lane, uint64_t address = 0) {
    findings->add({kind, i.number, block, first_thread + lane, int64_t(address)});
  }

  // The register as a source: notes a lane that reads it before it was set.
  const Register& read(int number, const Instruction& i, Mask active) {
    Register& source = registers[number];
    const Mask undefined = active & ~source.defined;
    if (undefined) {
      fault(UNDEFINED, i, __builtin_ctz(undefined));
      source.defined |= undefined;  // said once
    }
    return source;
  }
};

// ---------------------------------------------------------------- values

template <class T>
T value(uint64_t bits) {
  T result;
  static_assert(sizeof(T) <= 8, "a register has 64 bits");
  std::memcpy(&result, &bits, sizeof(T));
  return result;
}

template <>
inline bool value<bool>(uint64_t bits) {
  return bits & 1;
}

template <class T>
uint64_t bits_of(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

}  // namespace ptx
