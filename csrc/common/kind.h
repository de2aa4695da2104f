// The four floating dtypes as the kernels see them.
#pragma once

#include <cstdint>

namespace vitlite {

enum class Kind { float32, float64, float16, bfloat16 };

inline int64_t bytes_of(Kind kind) {
  return kind == Kind::float64 ? 8 : kind == Kind::float32 ? 4 : 2;
}

}  // namespace vitlite
