// Which instruction set the kernels use: 0 the compiler's default for the target, 1 AVX2 with FMA, 2 AVX-512.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace vitlite {

// The level of the operator call that this thread works for; outside of one, that of the process: the best the processor
// and its operating system have, or what VITLITE_ISA says, unless it was lowered.
int isa_level();

// Lowers the level of the process, for tests and comparisons; more than the processor has is ignored. Returns the level.
// Calls that are under way keep theirs.
int set_isa_level(int level);

// Fixes the level of this thread until the end of the block. Every operator begins with one: what is laid out for one
// instruction set is never read by another, whatever other threads do.
class IsaScope {
 public:
  explicit IsaScope(int level = isa_level());
  ~IsaScope();
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;

 private:
  int before_;
};

// torch's parallel_for, with the caller's level on every thread.
template <class Work>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Work& work) {
  const int level = isa_level();
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    const IsaScope scope(level);
    work(first, last);
  });
}

}  // namespace vitlite
