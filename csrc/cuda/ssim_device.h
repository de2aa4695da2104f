// What the SSIM kernels for the usual window and those for any window share.
#pragma once

#include "launch.h"
#include "numbers.h"
#include "ssim.h"

namespace vitlite::device {

constexpr int kMoments = 4;

// One approximate reciprocal and a correction, which gives exactly one for equal numbers. The divisors of SSIM are at
// least its constants, and so no subnormal numbers.
VITLITE_HD float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  const float result = a * inverse;
  return fma(fma(-result, b, a), inverse, result);
#else
  return a / b;
#endif
}
VITLITE_HD double quotient(double a, double b) { return a / b; }

#include "../common/ssim_point.h"

template <class T>
__device__ inline SsimConstants<T> constants_of(const SsimProblem& problem) {
  return {T(problem.c1), T(problem.c2), T(1)};
}

// The first pixel of a plane.
template <class In>
__device__ inline const In* x_plane(const SsimProblem& p, int64_t plane) {
  return static_cast<const In*>(p.x) + plane / p.channels * p.x_batch + plane % p.channels * p.x_channel;
}
template <class In>
__device__ inline const In* y_plane(const SsimProblem& p, int64_t plane) {
  return static_cast<const In*>(p.y) + plane / p.channels * p.y_batch + plane % p.channels * p.y_channel;
}

}  // namespace vitlite::device
