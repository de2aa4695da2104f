// Which instruction set the kernels use: 0 the compiler's default for the target, 1 AVX2 with FMA, 2 AVX-512.
#pragma once

namespace vitlite {

// The level in use: the best the processor and its operating system have, unless it was lowered.
int isa_level();

// Lowers the level, for tests and comparisons; more than the processor has is ignored. Returns the level in use.
int set_isa_level(int level);

}  // namespace vitlite
