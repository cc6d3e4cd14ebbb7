// The memory that a kernel sees: the tensors it was given and a block's shared memory. Every
// access is checked before it happens and counted as the hardware moves it.
//
//   global   in sectors of 32 bytes: those that the lanes of one instruction touch
//   shared   in waves: 32 banks of 4 bytes each give one word a wave. Lanes at one word share
//            it; 8 bytes a lane go in halves of a warp, 16 bytes in quarters
#pragma once

#include <algorithm>

#include "warp.h"

namespace ptx {

// Who touched two bytes last, to see two threads meet. Threads of a block are apart if a
// barrier lies between; those of different blocks never are.
struct Trace {
  static constexpr uint32_t NOBODY = ~0u, SEVERAL = ~0u - 1;
  struct Touch {
    uint32_t thread = NOBODY, barriers = 0;
  };
  Touch write, read;
};

// Bytes that may be touched: a tensor, at its own address, or shared memory, from address 0.
struct Region {
  static constexpr int SECTOR = 32;
  char* begin = nullptr;
  uint64_t address = 0, bytes = 0;
  bool writable = true;
  std::vector<Trace> traces;       // per two bytes; empty: races are not looked for
  std::vector<uint32_t> seen[2];   // the last block that loaded, or stored, a sector

  bool holds(uint64_t place, uint64_t size) const {
    return place >= address && size <= bytes && place - address <= bytes - size;
  }
};

struct Memory {
  std::vector<Region> tensors;
  Region shared;
  std::vector<unsigned char> shared_bytes;
  std::vector<Cost> costs;   // per instruction
  int64_t distinct[2] = {};  // sectors that blocks loaded and stored, each once per block
  uint32_t block_threads = 1;

  void begin_block(uint64_t bytes) {
    // NaN in every floating type, should anybody use what nobody wrote.
    shared_bytes.assign(bytes + 16, 0xff);
    auto* const begin = reinterpret_cast<char*>(shared_bytes.data());
    shared.begin = begin + (16 - reinterpret_cast<uintptr_t>(begin) % 16) % 16;
    shared.bytes = bytes;
    shared.traces.assign(bytes / 2, {});
  }

  // The bytes behind each lane's address, null where the access is not allowed.
  void reach(Warp& warp, const Instruction& i, const uint64_t (&address)[LANES], Mask active,
             int size, bool is_shared, bool store, char* (&place)[LANES]) {
    Region* last = is_shared ? &shared : nullptr;
    for (int lane = 0; lane < LANES; ++lane) {
      place[lane] = nullptr;
      if (!has(active, lane)) continue;
      const uint64_t a = address[lane];
      if (!is_shared && !(last && last->holds(a, size))) last = tensor_of(a, size);
      if (!last || !last->holds(a, size))
        warp.fault(OUTSIDE, i, lane, a);
      else if (a % size)
        warp.fault(MISALIGNED, i, lane, a);
      else if (store && !last->writable)
        warp.fault(READ_ONLY, i, lane, a);
      else
        place[lane] = last->begin + (a - last->address);
      if (place[lane] && !last->traces.empty()) touch(warp, i, lane, *last, a, size, store);
      if (place[lane] && !is_shared) see(*last, uint32_t(warp.block), a, store);
    }
    Cost& cost = costs[i.number];
    cost.moved += is_shared ? waves(address, active, size) : sectors(address, active, size);
    cost.ideal += fewest(active, size, is_shared);
  }

 private:
  Region* tensor_of(uint64_t place, int size) {
    for (Region& tensor : tensors)
      if (tensor.holds(place, size)) return &tensor;
    return nullptr;
  }

  // A sector counts once for a block: its later loads find it in the L1 cache.
  void see(Region& region, uint32_t block, uint64_t address, bool store) {
    // Sectors begin at multiples of 32 of the address, not of the tensor.
    uint32_t& last = region.seen[store][address / Region::SECTOR -
                                        region.address / Region::SECTOR];
    distinct[store] += last != block + 1;
    last = block + 1;
  }

  void touch(Warp& warp, const Instruction& i, int lane, Region& region, uint64_t address,
             int size, bool store) {
    const Trace::Touch now{uint32_t(warp.first_thread + lane), warp.barriers};
    const uint64_t first = (address - region.address) / 2;
    bool race = false, unwritten = false;
    for (uint64_t k = first; k < first + size / 2; ++k) {
      Trace& trace = region.traces[k];
      race |= meet(trace.write, now) || (store && meet(trace.read, now));
      unwritten |= &region == &shared && !store && trace.write.thread == Trace::NOBODY;
      if (store)
        trace.write = now;
      else if (!meet(trace.read, now))
        trace.read = now;
      else
        trace.read = {Trace::SEVERAL, now.barriers};
    }
    if (race) warp.fault(RACE, i, lane, address);
    if (unwritten) warp.fault(UNWRITTEN, i, lane, address);
  }

  bool meet(const Trace::Touch& before, const Trace::Touch& now) const {
    if (before.thread == Trace::NOBODY || before.thread == now.thread) return false;
    // Several read shared memory alone: what a kernel stores to, it does not read.
    if (before.thread == Trace::SEVERAL) return before.barriers == now.barriers;
    return before.thread / block_threads != now.thread / block_threads ||
           before.barriers == now.barriers;
  }

  static int64_t sectors(const uint64_t (&address)[LANES], Mask active, int size) {
    return distinct_of(address, active, 0, LANES, size, Region::SECTOR, nullptr);
  }

  static int64_t waves(const uint64_t (&address)[LANES], Mask active, int size) {
    const int together = size <= 4 ? LANES : size == 8 ? LANES / 2 : LANES / 4;
    int64_t sum = 0;
    for (int lane = 0; lane < LANES; lane += together) {
      int words_of_bank[32] = {};
      distinct_of(address, active, lane, lane + together, size, 4, words_of_bank);
      sum += *std::max_element(words_of_bank, words_of_bank + 32);
    }
    return sum;
  }

  static int64_t fewest(Mask active, int size, bool is_shared) {
    const int64_t bytes = int64_t(__builtin_popcount(active)) * size;
    return is_shared ? (bytes + 127) / 128 : (bytes + Region::SECTOR - 1) / Region::SECTOR;
  }

  // How many units of `unit` bytes the lanes touch, and how many of each bank.
  static int64_t distinct_of(const uint64_t (&address)[LANES], Mask active, int from, int to,
                             int size, int unit, int* of_bank) {
    uint64_t units[LANES * 4];
    int count = 0;
    for (int lane = from; lane < to; ++lane) {
      if (!has(active, lane)) continue;
      for (uint64_t u = address[lane] / unit; u <= (address[lane] + size - 1) / unit; ++u)
        if (count == 0 || units[count - 1] != u) units[count++] = u;
    }
    if (!std::is_sorted(units, units + count)) std::sort(units, units + count);
    const auto* const end = std::unique(units, units + count);
    for (const uint64_t* u = units; of_bank && u != end; ++u) ++of_bank[*u % 32];
    return end - units;
  }
};

}  // namespace ptx
