// Matrix products whose right factor is laid out for the processor once and then serves many left factors.
#pragma once

#include <cstdint>
#include <optional>

#include "allocation.h"
#include "products.h"

namespace vitlite {

// A product as the kernels see it: out (rows, columns) = or += a (rows, depth) b, where element (i, k) of the left
// factor is a[i * row + k * step], `panels` is b as product_pack leaves it, and the rows of `out` follow each other.
template <class T>
struct Product {
  int64_t rows, columns, depth;
  const T* a;
  int64_t row, step;
  const T* panels;
  T* out;
  bool add;
};

// The right factor b (depth, columns). Where the processor has AVX2 or AVX-512 the product is ours, which on a block
// of rows is faster than the BLAS that torch brings; elsewhere, and for a few rows, it is torch's, and nothing is laid
// out.
template <class T>
class RightFactor {
 public:
  RightFactor() = default;
  explicit RightFactor(const Matrix<T>& b) {
    set(b);
  }

  // Takes another matrix, whose memory must outlive the products with it, for left factors of so many rows in all.
  void set(const Matrix<T>& b, int64_t rows = INT64_MAX);

  // out = a b, or out += a b.
  void multiply(const Matrix<T>& a, T* out, bool add = false) const;

 private:
  std::optional<Matrix<T>> matrix_;
  AlignedMemory<T> panels_;
  int64_t capacity_ = 0;
  int level_ = 0;  // the instruction set that the panels are for
};

extern template class RightFactor<float>;
extern template class RightFactor<double>;

}  // namespace vitlite
