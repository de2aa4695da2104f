// The choice of the instruction set.

#include "isa.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace vitlite {
namespace {

int detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  int level = 0;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    level = 1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      level = 2;
    }
  }
  return level;
#else
  return 0;
#endif
}

int best() {
  static const int level = detect();
  return level;
}

std::atomic<int>& current() {
  static std::atomic<int> level{best()};
  return level;
}

int64_t isa_level_op(int64_t level) {
  return level < 0 ? isa_level() : set_isa_level(static_cast<int>(level));
}

}  // namespace

int isa_level() {
  return current().load(std::memory_order_relaxed);
}

int set_isa_level(int level) {
  current().store(std::min(level, best()), std::memory_order_relaxed);
  return isa_level();
}

}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CompositeExplicitAutograd, m) {
  m.impl("isa_level", TORCH_BOX(&vitlite::isa_level_op));
}
