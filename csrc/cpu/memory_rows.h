// What the memory kernels of every instruction set are told; T is float or double.
#pragma once

#include <cstdint>

namespace vitlite {

// Rows of queries against all items. Matrices hold their rows one after the other.
template <class T>
struct MemoryRows {
  int64_t items, channels;
  T threshold, eps;
  const T* z;   // (rows, channels)
  T* softmax;   // (rows, items)
  T* weights;   // (rows, items), may be the same memory as softmax
  T* entropy;   // (rows)
  T* inverses;  // (rows), of the sums of exponentials
  T* totals;    // (rows), sums of the shrunk weights
};

// Gradients of the same rows.
template <class T>
struct MemoryGradRows {
  int64_t items, channels;
  T threshold, eps;
  const T* z;             // (rows, channels)
  const T* softmax;       // (rows, items)
  const T* totals;        // (rows)
  T* weights;             // (rows, items), written
  T* grad;                // (rows, items): that of the weights; becomes that of the products of z and the unit items
  const T* grad_entropy;  // (rows)
};

}  // namespace vitlite
