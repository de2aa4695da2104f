// The floating dtypes of torch, and conversions that need no instruction set.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <cstring>

#include "kind.h"

namespace vitlite {

inline Kind kind_of(torch::headeronly::ScalarType type) {
  switch (type) {
    case torch::headeronly::ScalarType::Double:
      return Kind::float64;
    case torch::headeronly::ScalarType::Half:
      return Kind::float16;
    case torch::headeronly::ScalarType::BFloat16:
      return Kind::bfloat16;
    default:
      return Kind::float32;
  }
}

// IEEE binary16, bit by bit; subnormals, infinities and not-a-numbers included.
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);

}  // namespace vitlite
