// What the operators ask of tensors. Arguments were checked in Python with messages for the user; these checks only
// keep a direct call of an operator from reading out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "dtypes.h"

namespace vitlite {

using torch::stable::Tensor;

inline Kind checked_kind(const Tensor& tensor, const char* name) {
  using torch::headeronly::ScalarType;
  const ScalarType type = tensor.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                      type == ScalarType::BFloat16,
                  name, ": expected a floating dtype");
  return kind_of(type);
}

// The dtype that is computed in, and that sums and per-row results are returned in.
inline torch::headeronly::ScalarType compute_type(Kind kind) {
  return kind == Kind::float64 ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
}

// The tensor with its elements in the order of its dimensions; one that has it already costs no call of an operator.
inline Tensor in_memory_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Memory of one thread, kept between calls so that a small call does not pay for page faults.
inline char* thread_memory(int64_t bytes) {
  struct Release {
    void operator()(char* memory) const {
      ::operator delete(memory, std::align_val_t{64});
    }
  };
  static thread_local std::unique_ptr<char, Release> memory;
  static thread_local int64_t size = 0;
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory.reset(static_cast<char*>(::operator new(static_cast<std::size_t>(bytes), std::align_val_t{64})));
    size = bytes;
  }
  return memory.get();
}

}  // namespace vitlite
