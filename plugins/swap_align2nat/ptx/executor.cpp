// A GPU's code, PTX, executed on a CPU: blocks one after another, a block's warps in turns from
// barrier to barrier, a warp's lanes together. tensormask_edu/ops/ptx reads the text, puts
// numbers in the place of names, and calls this library.
//
// Lanes part at a branch and meet again: of a warp's fragments the one that is earliest in the
// text goes on, until it reaches the next.
#include "instructions.h"

namespace ptx {
namespace {

// A barrier or an end is owed long before.
constexpr int64_t LONGEST_RUN = 50'000'000;

// Registers that the executor fills: %tid.x, %ntid.x, %ctaid.x, %nctaid.x.
enum Special { TID, NTID, CTAID, NCTAID };

const Table& table() {
  static const Table all;
  return all;
}

struct Launch {
  int64_t first_block, block_stride, blocks, threads, shared_bytes, grid;
};

struct Grid {
  std::vector<Instruction> code;
  const int64_t* constants;  // pairs: register, bits
  int64_t constant_count, register_count;
  Launch launch;
  Memory memory;
  Findings findings;
  std::vector<Warp> warps;

  void run() {
    warps.resize((launch.threads + LANES - 1) / LANES);
    for (int64_t k = 0; k < launch.blocks; ++k)
      if (!run_block(launch.first_block + k * launch.block_stride)) return;
  }

 private:
  // False: a fault after which nothing that follows would mean anything.
  bool run_block(int64_t block) {
    memory.begin_block(launch.shared_bytes);
    for (size_t w = 0; w < warps.size(); ++w) begin(warps[w], block, int64_t(w) * LANES);
    for (;;) {
      for (Warp& warp : warps)
        if (!run_to_barrier(warp)) return false;
      bool any = false;
      for (const Warp& warp : warps) any |= warp.waiting != 0;
      if (!any) return true;
      if (!all_wait()) return false;
      for (Warp& warp : warps) {
        warp.fragments = {{warp.waits_at + 1, warp.waiting}};
        warp.waiting = 0, warp.waits_at = -1;
        ++warp.barriers;
      }
    }
  }

  void begin(Warp& warp, int64_t block, int64_t first) const {
    warp.registers.resize(register_count);
    for (Register& each : warp.registers) each.defined = 0;
    warp.block = block;
    warp.first_thread = block * launch.threads + first;
    warp.barriers = 0;
    warp.memory = const_cast<Memory*>(&memory);
    warp.findings = const_cast<Findings*>(&findings);
    warp.fragments = {{0, lanes_of(first)}};
    for (int64_t k = 0; k < constant_count; ++k)
      fill(warp.registers[constants[2 * k]], constants[2 * k + 1]);
    fill(warp.registers[NTID], launch.threads);
    fill(warp.registers[CTAID], block);
    fill(warp.registers[NCTAID], launch.grid);
    fill(warp.registers[TID], 0);
    for (int lane = 0; lane < LANES; ++lane) warp.registers[TID].lane[lane] = first + lane;
  }

  Mask lanes_of(int64_t first) const {
    const int64_t there = std::min<int64_t>(launch.threads - first, LANES);
    return there == LANES ? ~Mask(0) : (Mask(1) << there) - 1;
  }

  static void fill(Register& each, int64_t bits) {
    std::fill_n(each.lane, LANES, uint64_t(bits));
    each.defined = ~Mask(0);
  }

  // Every thread at the same barrier: none has ended, none waits at another.
  bool all_wait() {
    int at = -1;
    for (const Warp& warp : warps)
      if (warp.waiting) at = warp.waits_at;
    for (size_t w = 0; w < warps.size(); ++w) {
      Warp& warp = warps[w];
      const Mask away = lanes_of(int64_t(w) * LANES) & ~warp.waiting;
      if (!away && warp.waits_at == at) continue;
      warp.fault(DIVERGED, code[at], away ? __builtin_ctz(away) : 0);
      return false;
    }
    return true;
  }

  // The fragment that is earliest in the text, with all lanes that are there.
  static Fragment next_of(Warp& warp) {
    Fragment first = warp.fragments[0];
    for (const Fragment& each : warp.fragments)
      if (each.at < first.at) first = each;
    first.lanes = 0;
    auto& all = warp.fragments;
    for (size_t k = 0; k < all.size();) {
      if (all[k].at == first.at) {
        first.lanes |= all[k].lanes;
        all[k] = all.back();
        all.pop_back();
      } else {
        ++k;
      }
    }
    return first;
  }

  bool run_to_barrier(Warp& warp) {
    for (int64_t issued = 0; !warp.fragments.empty();) {
      auto [at, lanes] = next_of(warp);
      int stop = int(code.size());
      for (const Fragment& each : warp.fragments) stop = std::min(stop, each.at);
      while (lanes && at < stop) {
        const Instruction& i = code[at];
        if (++issued > LONGEST_RUN) return warp.fault(ENDLESS, i, 0), false;
        if (!step(warp, i, at, lanes, stop)) return false;
      }
      if (lanes) warp.fragments.push_back({at, lanes});
    }
    return true;
  }

  // One instruction for the lanes that are at it; `at` and `lanes` become those that go on.
  bool step(Warp& warp, const Instruction& i, int& at, Mask& lanes, int& stop) {
    Mask active = lanes;
    if (i.guard >= 0) {
      const Register& guard = warp.read(i.guard, i, lanes);
      for (int lane = 0; lane < LANES; ++lane)
        if (has(active, lane) && bool(guard.lane[lane] & 1) == i.negated)
          active &= ~(Mask(1) << lane);
    }
    Cost& cost = memory.costs[i.number];
    ++cost.issued;
    cost.lanes += __builtin_popcount(active);
    ++at;
    if (i.flow == STEP) {
      if (active) (*i.step)(warp, i, active);
      return true;
    }
    if (i.flow == BRANCH && active == lanes) return at = i.target, true;
    lanes &= ~active;
    if (i.flow == BRANCH && active) {
      warp.fragments.push_back({i.target, active});
      stop = std::min(stop, i.target);
    } else if (i.flow == BARRIER && active) {
      if (warp.waiting && warp.waits_at != i.number)
        return warp.fault(DIVERGED, i, __builtin_ctz(active)), false;
      warp.waiting |= active, warp.waits_at = i.number;
    }
    return true;
  }
};

Instruction decoded(const int32_t* row, int number) {
  static std::vector<const Step*> steps;  // by their numbers
  if (steps.empty())
    for (const auto& each : table().steps) steps.push_back(&each.second);
  Instruction i{};
  i.flow = Flow(row[0]);
  if (i.flow == STEP) i.step = steps[row[1]];
  i.number = number, i.guard = row[2], i.negated = row[3], i.target = row[4];
  std::copy_n(row + 5, OPERANDS, i.operand);
  return i;
}

}  // namespace
}  // namespace ptx

// The number of an instruction by its name, -1: not known.
extern "C" int32_t ptx_number(const char* name) {
  const auto& steps = ptx::table().steps;
  const auto found = steps.find(name);
  return found == steps.end() ? -1 : int32_t(std::distance(steps.begin(), found));
}

// code: rows of 5 + OPERANDS numbers. constants: pairs (register, bits). tensors: triples
// (address, bytes, 1 if it is written). launch: as in `Launch`, then 1 to watch for races.
// Written: costs, 4 per instruction; distinct: 2; faults: FAULT_KINDS, then `shown` and its
// places of 5 numbers each.
extern "C" void ptx_run(const int32_t* code, int64_t instructions, int64_t registers,
                        const int64_t* constants, int64_t constant_count,
                        const int64_t* tensors, int64_t tensor_count, const int64_t* launch,
                        int64_t* costs, int64_t* distinct, int64_t* faults) {
  using namespace ptx;
  Grid grid{};
  for (int64_t k = 0; k < instructions; ++k)
    grid.code.push_back(decoded(code + k * (5 + OPERANDS), int(k)));
  grid.constants = constants;
  grid.constant_count = constant_count, grid.register_count = registers;
  std::memcpy(&grid.launch, launch, sizeof(Launch));
  Memory& memory = grid.memory;
  memory.block_threads = uint32_t(grid.launch.threads);
  memory.costs.resize(instructions);
  for (const int64_t* t = tensors; t != tensors + 3 * tensor_count; t += 3) {
    Region region;
    region.begin = reinterpret_cast<char*>(t[0]);
    region.address = uint64_t(t[0]), region.bytes = uint64_t(t[1]), region.writable = t[2];
    // What is only read needs no traces: a store there is a fault of its own.
    if (launch[6] && t[2]) region.traces.resize((t[1] + 1) / 2);
    for (auto& seen : region.seen) seen.resize(t[1] / Region::SECTOR + 2);
    memory.tensors.push_back(std::move(region));
  }
  grid.run();
  std::memcpy(costs, memory.costs.data(), instructions * sizeof(Cost));
  std::copy_n(memory.distinct, 2, distinct);
  std::copy_n(grid.findings.count, FAULT_KINDS, faults);
  faults[FAULT_KINDS] = grid.findings.shown;
  std::memcpy(faults + FAULT_KINDS + 1, grid.findings.first, sizeof grid.findings.first);
}
