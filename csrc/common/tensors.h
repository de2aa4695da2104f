// What the operators ask of tensors. Arguments were checked in Python with messages for the user; these checks only
// keep a direct call of an operator from reading out of bounds.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>

#include "kind.h"

namespace vitlite {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = torch::headeronly::IntHeaderOnlyArrayRef;

inline Kind checked_kind(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Kind::float32;
    case ScalarType::Double:
      return Kind::float64;
    case ScalarType::Half:
      return Kind::float16;
    case ScalarType::BFloat16:
      return Kind::bfloat16;
    default:
      STD_TORCH_CHECK(false, name, ": expected a floating dtype");
  }
}

// The dtype that is computed in, and that sums and per-row results are returned in.
inline ScalarType compute_type(Kind kind) {
  return kind == Kind::float64 ? ScalarType::Double : ScalarType::Float;
}

// The tensor with its elements in the order of its dimensions; one that has it already costs no call of an operator.
inline Tensor in_memory_order(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A tensor like another, without numbers.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  return torch::stable::new_empty(like, Shape(shape.begin(), shape.size()), type);
}

// The same in the dtype of the other; of shape (0,) if it is not wanted.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape, bool wanted = true) {
  constexpr int64_t kNone[1] = {0};
  return torch::stable::new_empty(like, wanted ? Shape(shape.begin(), shape.size()) : Shape(kNone, 1));
}

inline void* data_if(const Tensor& tensor, bool wanted) {
  return wanted ? tensor.mutable_data_ptr() : nullptr;
}

}  // namespace vitlite
