// The choice of the instruction set.

#include "isa.h"

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../common/library.h"

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

constexpr const char* kNames[] = {"generic", "avx2", "avx512"};

// The best level, or the one that VITLITE_ISA names. To compute with another than was asked for would be no help to who
// wants the same numbers on every machine: it is an error.
int from_environment() {
  const char* name = std::getenv("VITLITE_ISA");
  if (name == nullptr || *name == '\0') return best();
  for (int level = 0; level < 3; ++level) {
    if (std::strcmp(name, kNames[level]) != 0) continue;
    STD_TORCH_CHECK(level <= best(), "VITLITE_ISA=", name, ": this processor has no more than ", kNames[best()]);
    return level;
  }
  STD_TORCH_CHECK(false, "VITLITE_ISA=", name, ": is not one of avx512, avx2, generic");
}

std::atomic<int>& current() {
  static std::atomic<int> level{from_environment()};
  return level;
}

// The level of the call that this thread works for, or -1.
thread_local int of_the_call = -1;

int64_t isa_level_op(int64_t level) {
  return level < 0 ? isa_level() : set_isa_level(static_cast<int>(level));
}

}  // namespace

int isa_level() {
  return of_the_call >= 0 ? of_the_call : current().load(std::memory_order_relaxed);
}

int set_isa_level(int level) {
  current().store(std::min(level, best()), std::memory_order_relaxed);
  return current().load(std::memory_order_relaxed);
}

IsaScope::IsaScope(int level) : before_(of_the_call) {
  of_the_call = level;
}

IsaScope::~IsaScope() {
  of_the_call = before_;
}

}  // namespace vitlite

VITLITE_KERNELS(CompositeExplicitAutograd, m) {
  m.impl("isa_level", TORCH_BOX(&vitlite::isa_level_op));
}
