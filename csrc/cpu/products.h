// Matrix products by torch's own GEMM on memory that may lie anywhere, such as a block of a larger matrix.
//
// The C functions below go straight to the CPU kernels: autograd and autocast, whose turn was before the operator,
// are not asked a second time, and a product costs no trip through the dispatcher.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

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

}  // namespace vitlite
