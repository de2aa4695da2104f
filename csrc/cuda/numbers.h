// The numbers that the kernels compute with, and their way from and to memory of any of the four floating dtypes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../common/host_device.h"
#include "../common/kind.h"

namespace vitlite::device {

// What is computed in: float, or double for double.
template <class In>
using Compute = std::conditional_t<std::is_same_v<In, double>, double, float>;

VITLITE_HD float number(float a) { return a; }
VITLITE_HD double number(double a) { return a; }
VITLITE_HD float number(__half a) { return __half2float(a); }
VITLITE_HD float number(__nv_bfloat16 a) { return __bfloat162float(a); }

VITLITE_HD void assign(float& to, float a) { to = a; }
VITLITE_HD void assign(double& to, double a) { to = a; }
VITLITE_HD void assign(__half& to, float a) { to = __float2half_rn(a); }
VITLITE_HD void assign(__nv_bfloat16& to, float a) { to = __float2bfloat16_rn(a); }

VITLITE_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
VITLITE_HD double fma(double a, double b, double c) { return ::fma(a, b, c); }

// Several neighbours in memory that are read or written at once; the address is a multiple of their size, at most 16.
template <class In, int n>
struct alignas(sizeof(In) * n < 16 ? sizeof(In) * n : 16) Pack {
  In v[n];
};

#include "../common/float_layout.h"

VITLITE_HD int32_t bits_of(float a) {
  int32_t bits;
  memcpy(&bits, &a, sizeof(bits));
  return bits;
}
VITLITE_HD int64_t bits_of(double a) {
  int64_t bits;
  memcpy(&bits, &a, sizeof(bits));
  return bits;
}

template <class T>
VITLITE_HD T value_of(typename Layout<T>::Int bits) {
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// Calls work(In{}) for the dtype of this kind.
template <class Work>
auto with_kind(Kind kind, const Work& work) {
  switch (kind) {
    case Kind::float64:
      return work(double{});
    case Kind::float16:
      return work(__half{});
    case Kind::bfloat16:
      return work(__nv_bfloat16{});
    default:
      return work(float{});
  }
}

}  // namespace vitlite::device
