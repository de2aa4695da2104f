// Matrix products: by torch's own GEMM on memory that may lie anywhere, such as a block of a larger matrix; and by ours,
// with a right factor that is laid out for the processor once and then serves many left factors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "allocation.h"

namespace vitlite {

// A matrix of float or double, as they lie in memory; strides are in elements.
template <class T>
struct Matrix {
  const T* data;
  int64_t rows, columns, row_stride, column_stride;

  Matrix(const T* data, int64_t rows, int64_t columns)
      : data(data), rows(rows), columns(columns), row_stride(columns), column_stride(1) {}
  Matrix(const T* data, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride)
      : data(data), rows(rows), columns(columns), row_stride(row_stride), column_stride(column_stride) {}

  Matrix transposed() const {
    return Matrix(data, columns, rows, column_stride, row_stride);
  }

  torch::stable::Tensor tensor() const {
    constexpr auto type =
        sizeof(T) == 8 ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
    const int64_t sizes[2] = {rows, columns}, strides[2] = {row_stride, column_stride};
    return torch::stable::from_blob(const_cast<T*>(data), torch::headeronly::IntHeaderOnlyArrayRef(sizes, 2),
                                    torch::headeronly::IntHeaderOnlyArrayRef(strides, 2),
                                    torch::stable::Device(torch::headeronly::DeviceType::CPU), type);
  }
};

// The C functions of torch go straight to the CPU kernels: autograd and autocast, whose turn was before the operator, are
// not asked a second time, and a product costs no trip through the dispatcher.
// out = a b, or out += a b; `out` (rows of a, columns of b) holds its rows one after the other.
template <class T>
void multiply(const Matrix<T>& a, const Matrix<T>& b, T* out, bool add = false) {
  if (a.rows == 0 || b.columns == 0) return;
  const torch::stable::Tensor left = a.tensor(), right = b.tensor();
  const torch::stable::Tensor result = Matrix<T>(out, a.rows, b.columns).tensor();
  if (add) {
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_cpu_addmm_out(result.get(), result.get(), left.get(), right.get(), 1.0, 1.0));
  } else {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(result.get(), left.get(), right.get()));
  }
}

// A product as the kernels see it: out = or += a (rows, depth) b (depth, columns), and element (i, k) of the left factor
// is a[i * row + k * step], `panels` is b as product_pack leaves it, and rows of `out` are `stride` elements apart. A
// block of the product begins at `out`.
template <class T>
struct Product {
  int64_t rows, columns, depth;
  const T* a;
  int64_t row, step;
  const T* panels;
  T* out;
  int64_t stride;
  bool add;

  Product with_out(T* other) const {
    Product product = *this;
    product.out = other;
    return product;
  }
};

// The right factor b (depth, columns). If the processor has AVX2 or AVX-512 the product is ours, which on a block
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
