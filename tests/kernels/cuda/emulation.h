// The few things that the GPU kernels ask of CUDA (csrc/cuda/launch.h), on a processor, so that the tests can run the
// kernels where there is no GPU. A block's threads are coroutines: each runs until it reaches a barrier; there the next
// one goes on. VITLITE_EMULATED_ORDER=1 in the environment lets them run in the opposite order, which shows results that
// depend on it. Shared memory starts as not-a-number and is fenced; a barrier or a shuffle that only some threads reach
// is an error.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include <host_defines.h>
#undef __launch_bounds__
#define __launch_bounds__(...)

struct EmulatedIndex {
  unsigned x;
};
inline EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace vitlite::device {

class Emulator {
 public:
  static Emulator& get() {
    static Emulator emulator;
    return emulator;
  }

  void run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
    body = &kernel;
    blockDim.x = static_cast<unsigned>(threads);
    gridDim.x = static_cast<unsigned>(blocks);
    shared.assign(static_cast<size_t>(shared_bytes) + 2 * kFence, 0);
    for (int64_t block = 0; block < blocks; ++block) {
      blockIdx.x = static_cast<unsigned>(block);
      std::memset(shared.data(), kFenceByte, shared.size());
      std::memset(shared.data() + kFence, 0xff, static_cast<size_t>(shared_bytes));
      run_block(threads);
      for (size_t i = 0; i < kFence; ++i) {
        if (shared[i] != kFenceByte || shared[shared.size() - 1 - i] != kFenceByte) fail("a write beside shared memory");
      }
    }
  }

  unsigned char* memory() { return shared.data() + kFence; }

  void barrier() { wait(kAtBarrier); }

  double exchange(double value, int mask) {
    const int thread = current;
    values[thread] = value;
    wait(kAtShuffle);
    const double other = values[thread ^ mask];
    wait(kAtShuffle);
    return other;
  }

 private:
  enum State { kReady, kAtBarrier, kAtShuffle, kDone };
  static constexpr size_t kFence = 256, kStack = 1 << 17;
  static constexpr unsigned char kFenceByte = 0xa5;
  static constexpr int kWarp = 32;

  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    State state;
  };

  const std::function<void()>* body = nullptr;
  std::vector<unsigned char> shared;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<double> values;
  ucontext_t scheduler;
  int current = 0;

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "emulated GPU: %s\n", what);
    std::abort();
  }

  static void enter() {
    Emulator& self = get();
    (*self.body)();
    self.fibers[self.current]->state = kDone;
  }

  void wait(State state) {
    Fiber& fiber = *fibers[current];
    fiber.state = state;
    swapcontext(&fiber.context, &scheduler);
  }

  void resume(int thread) {
    current = thread;
    threadIdx.x = static_cast<unsigned>(thread);
    swapcontext(&scheduler, &fibers[thread]->context);
  }

  void run_block(int threads) {
    const bool backwards = std::getenv("VITLITE_EMULATED_ORDER") != nullptr;
    values.assign(threads, 0.0);
    while (static_cast<int>(fibers.size()) < threads) fibers.push_back(std::make_unique<Fiber>());
    for (int t = 0; t < threads; ++t) {
      Fiber& fiber = *fibers[t];
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, reinterpret_cast<void (*)()>(enter), 0);
      fiber.state = kReady;
    }
    for (;;) {
      for (int i = 0; i < threads; ++i) {
        const int thread = backwards ? threads - 1 - i : i;
        if (fibers[thread]->state == kReady) resume(thread);
      }
      int done = 0, at_barrier = 0;
      for (int first = 0; first < threads; first += kWarp) {
        int shuffling = 0, all = 0;
        for (int t = first; t < threads && t < first + kWarp; ++t, ++all) {
          shuffling += fibers[t]->state == kAtShuffle;
          done += fibers[t]->state == kDone;
          at_barrier += fibers[t]->state == kAtBarrier;
        }
        if (shuffling != 0 && shuffling != all) fail("a shuffle that only a part of a warp reached");
        for (int t = first; shuffling != 0 && t < first + all; ++t) fibers[t]->state = kReady;
      }
      if (done == threads) return;
      if (at_barrier == threads) {
        for (int t = 0; t < threads; ++t) fibers[t]->state = kReady;
      } else if (at_barrier + done == threads) {
        fail("a barrier that only a part of a block reached");
      }
    }
  }
};

template <class T>
inline T* shared_memory() {
  return reinterpret_cast<T*>(Emulator::get().memory());
}

template <class T>
inline T from_lane(T value, int mask) {
  return static_cast<T>(Emulator::get().exchange(static_cast<double>(value), mask));
}

template <class... Params, class... Args>
inline const char* launch(void (*kernel)(Params...), int64_t blocks, int threads, int64_t shared_bytes, void*,
                          const Args&... args) {
  if (blocks < 1 || threads < 1 || threads > 1024) return "invalid configuration argument";
  if (shared_bytes > 48 * 1024) return "too much shared memory";
  Emulator::get().run(blocks, threads, shared_bytes, [&] { kernel(args...); });
  return nullptr;
}

// Few, so that a kernel's blocks go on to further pieces of work also on small problems.
inline const char* multiprocessors(int* count) {
  *count = 1;
  return nullptr;
}

}  // namespace vitlite::device

inline void __syncthreads() {
  vitlite::device::Emulator::get().barrier();
}
