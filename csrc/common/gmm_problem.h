// What the mixture kernels of every instruction set are told.
#pragma once

#include <cstdint>

#include "kind.h"

namespace vitlite {

// A matrix per row of y: (rows, components, columns); the last dimension lies together. Strides are in elements.
struct GmmTable {
  const void* data;
  int64_t row_stride, component_stride;
};

// y (rows, dims) and logits (rows, components) hold their rows one after the other. Strides may be zero: a table that
// is the same for all rows need not be copied.
struct GmmProblem {
  Kind kind;
  int64_t rows, components, dims;
  bool shared;  // one deviation for all dimensions of a component
  const void* y;
  const void* logits;
  GmmTable mean, std;
};

// Gradients that are written, in the dtype of the problem; null where not wanted. `grad` (rows) and `log_shares` (rows,
// components) are float, or double for float64.
struct GmmGradients {
  const void* grad;
  const void* log_shares;
  void* y;
  void* logits;
  void* mean;
  void* std;
};

// Columns whose sums over rows are taken together.
constexpr int64_t kSumColumns = 256;

// Some rows against a chunk of the components of a mixture density head; T is float or double. Pointers are to the
// first row, and to the first component of the chunk.
template <class T>
struct GmmChunk {
  int64_t size, components, dims;  // components of the chunk and of all
  T min_std;
  const T* y;          // (rows, dims)
  const T* mean_bias;  // (size, dims) or null
  const T* std_bias;
  T* mean;             // (rows, size, dims): products without bias, overwritten
  T* std;              // the same before softplus
  double* densities;  // (rows, components), written by the forward pass
  const T* shares;    // (rows, components) of the gradient, read by the backward pass
  T* grad_y;          // (rows, dims) or null, is added to by the backward pass
};

}  // namespace vitlite
