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

// Gradients that are written, in the dtype of the problem; null if not wanted. `grad` (rows) and `log_shares` (rows,
// components) are float, or double for float64.
struct GmmGradients {
  const void* grad;
  const void* log_shares;
  void* y;
  void* logits;
  void* mean;
  void* std;
};

}  // namespace vitlite
