// The arguments of a mixture density head, and how they are cut into chunks.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>

#include "product.h"
#include "tensors.h"

namespace vitlite {

using Bias = std::optional<Tensor>;

// Elements of a block of means.
constexpr int64_t kBlockElements = 1 << 20;
// Rows of a block: more do not make the matrix products faster, much fewer make them slower.
constexpr int64_t kMostRows = 512, kFewestRows = 64;

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

// The arguments of one call in memory order, and how they are cut.
struct Head {
  IsaScope isa;
  Tensor x, y, w_logits, w_mean, w_std;
  Bias b_logits, b_mean, b_std;
  double min_std;
  int64_t rows, features, dims, components;
  Kind kind, weight_kind;  // of the computation, and of w_mean and w_std
  int64_t chunk, block;    // components, rows

  Head(const Tensor& x_in, const Tensor& y_in, const Tensor& w_logits_in, const Tensor& w_mean_in,
       const Tensor& w_std_in, const Bias& b_logits_in, const Bias& b_mean_in, const Bias& b_std_in, double min_std,
       int64_t chunk_in)
      : x(in_memory_order(x_in)),
        y(in_memory_order(y_in)),
        w_logits(in_memory_order(w_logits_in)),
        w_mean(in_memory_order(w_mean_in)),
        w_std(in_memory_order(w_std_in)),
        b_logits(in_order(b_logits_in)),
        b_mean(in_order(b_mean_in)),
        b_std(in_order(b_std_in)),
        min_std(min_std) {
    STD_TORCH_CHECK(x.dim() == 2 && y.dim() == 2 && w_logits.dim() == 2, "gmm: expected matrices");
    rows = x.size(0);
    features = x.size(1);
    dims = y.size(1);
    components = w_logits.size(0);
    kind = checked_kind(x, "x");
    weight_kind = checked_kind(w_mean, "w_mean");
    STD_TORCH_CHECK(kind == Kind::float32 || kind == Kind::float64, "x: expected float32 or float64");
    STD_TORCH_CHECK((weight_kind == Kind::float64) == (kind == Kind::float64), "w_mean: another precision than x");
    STD_TORCH_CHECK(w_std.scalar_type() == w_mean.scalar_type(), "w_std: another dtype than w_mean");
    STD_TORCH_CHECK(rows == y.size(0) && dims > 0 && components > 0 && features > 0, "y: wrong shape");
    check(y, "y", rows, dims);
    check(w_logits, "w_logits", components, features);
    for (const Tensor* weight : {&w_mean, &w_std}) {
      STD_TORCH_CHECK(weight->dim() == 2 && weight->size(0) == components * dims && weight->size(1) == features,
                      "w_mean or w_std: wrong shape");
    }
    check(b_logits, "b_logits", components);
    check(b_mean, "b_mean", components * dims);
    check(b_std, "b_std", components * dims);
    const int64_t fitting = kBlockElements / (std::min(std::max<int64_t>(rows, 1), kMostRows) * dims);
    chunk = std::min(components, chunk_in > 0 ? chunk_in : std::max<int64_t>(1, fitting));
    block = std::min({rows, kMostRows, std::max(kFewestRows, kBlockElements / (chunk * dims))});
  }

  static Bias in_order(const Bias& bias) {
    return bias ? Bias(in_memory_order(*bias)) : bias;
  }
  void check(const Tensor& tensor, const char* name, int64_t height, int64_t width) const {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == height && tensor.size(1) == width &&
                        tensor.scalar_type() == x.scalar_type(),
                    name, ": wrong shape or dtype");
  }
  void check(const Bias& bias, const char* name, int64_t size) const {
    STD_TORCH_CHECK(!bias || (bias->numel() == size && bias->scalar_type() == x.scalar_type()), name,
                    ": wrong shape or dtype");
  }
  Tensor empty(std::initializer_list<int64_t> shape, bool wanted = true) const {
    return new_tensor(x, shape, wanted);
  }
  bool widened() const {
    return weight_kind != kind;
  }
  template <class T>
  Matrix<T> rows_of(const Tensor& matrix, int64_t begin, int64_t count) const {
    const int64_t width = matrix.size(1);
    return Matrix<T>(data_of<const T>(matrix) + begin * width, count, width);
  }
};

// n numbers of half precision to float.
void gmm_widen_rows(const void* from, Kind kind, int64_t n, float* to);

// A table of weights or of their gradients (components * dims, features), a chunk of components at a time. In half
// precision a chunk is computed with in a buffer.
template <class T>
struct Chunks {
  const Head& head;
  const Tensor& all;
  std::optional<Tensor> buffer;

  Chunks(const Head& head, const Tensor& all) : head(head), all(all) {
    if (head.widened() && wanted()) buffer = head.empty({head.chunk * head.dims, head.features});
  }

  bool wanted() const {
    return all.numel() > 0;
  }
  T* data(int64_t begin) const {
    return head.widened() ? data_of<T>(*buffer) : data_of<T>(all) + begin * head.dims * head.features;
  }
  // Calls work(begin, end, half) for parts of the rows of a chunk in half precision; `half` points to the first row of
  // a part, as Bytes that are written (char) or only read (const char).
  template <class Byte, class Work>
  void for_half_rows(int64_t begin, int64_t count, const Work& work) const {
    Byte* half = data_of<Byte>(all) + begin * head.dims * head.features * 2;
    for_range(count * head.dims, head.features, [&](int64_t first, int64_t last) {
      work(first * head.features, (last - first) * head.features, half + first * head.features * 2);
    });
  }
};

// Weights in the dtype of the computation.
template <class T>
struct Weights : Chunks<T> {
  using Chunks<T>::Chunks;

  Matrix<T> chunk(int64_t begin, int64_t count) const {
    const Head& head = this->head;
    const int64_t rows = count * head.dims;
    if (!head.widened()) return head.rows_of<T>(this->all, begin * head.dims, rows);
    if constexpr (sizeof(T) == 4) {
      this->template for_half_rows<const char>(begin, count, [&](int64_t at, int64_t n, const char* half) {
        gmm_widen_rows(half, head.weight_kind, n, this->data(begin) + at);
      });
    }
    return Matrix<T>(this->data(begin), rows, head.features);
  }
};

// The products of rows of features with a chunk of components; the caller sets the pointers to y and what follows.
template <class T>
GmmChunk<T> head_products(const Head& head, const Matrix<T>& x, int64_t component, int64_t count,
                          const RightFactor<T>& to_mean, const RightFactor<T>& to_std, const Tensor& mean,
                          const Tensor& std) {
  to_mean.multiply(x, data_of<T>(mean));
  to_std.multiply(x, data_of<T>(std));
  const T* mean_bias = data_of<T>(head.b_mean);
  const T* std_bias = data_of<T>(head.b_std);
  return {count,
          head.components,
          head.dims,
          T(head.min_std),
          nullptr,
          mean_bias == nullptr ? nullptr : mean_bias + component * head.dims,
          std_bias == nullptr ? nullptr : std_bias + component * head.dims,
          data_of<T>(mean),
          data_of<T>(std),
          nullptr,
          nullptr,
          nullptr};
}

// Where the row of one thread of numbers in double begins.
inline double* wide_row(int64_t components) {
  return reinterpret_cast<double*>(thread_memory(components * static_cast<int64_t>(sizeof(double))));
}

}  // namespace vitlite
