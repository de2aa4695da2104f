// Gradients of a mixture density head and its log-likelihood on the CPU: the means and deviations are computed again, a
// chunk of components at a time.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/library.h"
#include "gmm_head.h"

#define VITLITE_KERNEL "gmm_linear_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

// Gradients of the weights.
template <class T>
struct WeightGrads : Chunks<T> {
  using Chunks<T>::Chunks;

  // Brings a finished chunk to its place; one that nothing was written to is zero.
  void finish(int64_t begin, int64_t count, bool written) const {
    if (!this->wanted()) return;
    if (!written) std::fill_n(this->data(begin), count * this->head.dims * this->head.features, T(0));
    if constexpr (sizeof(T) == 4) {
      if (!this->head.widened()) return;
      this->template for_half_rows<char>(begin, count, [&](int64_t at, int64_t n, char* half) {
        VITLITE_ISA_CALL(gmm_narrow(this->data(begin) + at, this->head.weight_kind, n, half));
      });
    }
  }
};

// Results of the backward pass; empty if not wanted.
struct HeadGrads {
  Tensor x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std;
};

template <class T>
void zero(const Tensor& tensor) {
  std::fill(data_of<T>(tensor), data_of<T>(tensor) + tensor.numel(), T(0));
}

template <class T>
void add_rows(const T* a, int64_t rows, int64_t columns, T* to) {
  // The cut is the same for any number of threads, and with it the sums.
  for_range((columns + kSumColumns - 1) / kSumColumns, rows * kSumColumns, [&](int64_t first, int64_t last) {
    for (int64_t i = first * kSumColumns; i < std::min(columns, last * kSumColumns); i += kSumColumns) {
      VITLITE_ISA_CALL(gmm_add_rows(a, rows, columns, i, std::min(columns, i + kSumColumns), to));
    }
  });
}

// Gradients by way of the logits; returns each component's share (T, K) of the gradient.
template <class T>
Tensor logits_backward(const Head& head, const Tensor& grad, const Tensor& log_shares, const Tensor& logits,
                       const HeadGrads& to) {
  const int64_t components = head.components;
  const Tensor shares = head.empty({head.rows, components}), grad_logits = head.empty({head.rows, components});
  for_range(head.rows, components, [&](int64_t first, int64_t last) {
    VITLITE_ISA_CALL(gmm_rows_shares<T>(data_of<const T>(logits), data_of<const T>(log_shares), components,
                                        data_of<const T>(grad), data_of<T>(shares), data_of<T>(grad_logits),
                                        wide_row(components), first, last));
  });
  const Matrix<T> by_logits = head.rows_of<T>(grad_logits, 0, head.rows);
  if (to.x.numel() > 0) {
    RightFactor<T>(head.rows_of<T>(head.w_logits, 0, components)).multiply(by_logits, data_of<T>(to.x));
  }
  if (to.w_logits.numel() > 0) {
    RightFactor<T>(head.rows_of<T>(head.x, 0, head.rows)).multiply(by_logits.transposed(), data_of<T>(to.w_logits));
  }
  if (to.b_logits.numel() > 0) {
    zero<T>(to.b_logits);
    add_rows(by_logits.data, head.rows, components, data_of<T>(to.b_logits));
  }
  return shares;
}

// The rows that have a share in a chunk of components, a block at a time, brought together. In many dimensions most
// shares are exactly zero, and so are the gradients that they would give.
template <class T>
struct SharingRows {
  const Head& head;
  const T* shares;            // (T, K)
  std::vector<int64_t> rows;  // with a share in the chunk
  Tensor x, y, part, grad_x, grad_y;

  SharingRows(const Head& head, const T* shares)
      : head(head),
        shares(shares),
        x(head.empty({head.block, head.features})),
        y(head.empty({head.block, head.dims})),
        part(head.empty({head.block, head.chunk})),
        grad_x(head.empty({head.block, head.features})),
        grad_y(head.empty({head.block, head.dims})) {}

  void find(int64_t component, int64_t count) {
    rows.clear();
    for (int64_t t = 0; t < head.rows; ++t) {
      const T* row = shares + t * head.components + component;
      if (std::any_of(row, row + count, [](T share) { return share != T(0); })) rows.push_back(t);
    }
  }
  void gather(int64_t begin, int64_t number, int64_t component, int64_t count) const {
    copy(data_of<const T>(head.x), head.features, 0, head.features, begin, number, data_of<T>(x));
    copy(data_of<const T>(head.y), head.dims, 0, head.dims, begin, number, data_of<T>(y));
    copy(shares, head.components, component, count, begin, number, data_of<T>(part));
    std::fill_n(data_of<T>(grad_y), number * head.dims, T(0));
  }
  // Adds rows of gradients where they belong.
  void scatter(int64_t begin, int64_t number, const Tensor& from, const Tensor& to) const {
    const int64_t width = to.size(1);
    for_range(number, width, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        VITLITE_ISA_CALL(gmm_add_row<T>(data_of<T>(from) + i * width, width, data_of<T>(to) + rows[begin + i] * width));
      }
    });
  }

 private:
  void copy(const T* from, int64_t width, int64_t column, int64_t columns, int64_t begin, int64_t number,
            T* to) const {
    for_range(number, columns, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        std::copy_n(from + rows[begin + i] * width + column, columns, to + i * columns);
      }
    });
  }
};

// What one chunk of components is multiplied with.
template <class T>
struct ChunkFactors {
  RightFactor<T> to_mean, to_std, from_mean, from_std;

  void set(const Matrix<T>& w_mean, const Matrix<T>& w_std, int64_t rows, bool need_x) {
    to_mean.set(w_mean.transposed(), rows);
    to_std.set(w_std.transposed(), rows);
    if (!need_x) return;
    from_mean.set(w_mean, rows);
    from_std.set(w_std, rows);
  }
};

template <class T>
void backward(const Head& head, const Tensor& shares, const HeadGrads& to) {
  const Tensor mean = head.empty({head.block, head.chunk, head.dims});
  const Tensor std = head.empty({head.block, head.chunk, head.dims});
  const Weights<T> w_mean(head, head.w_mean), w_std(head, head.w_std);
  const WeightGrads<T> grad_w_mean(head, to.w_mean), grad_w_std(head, to.w_std);
  const bool need_x = to.x.numel() > 0, need_y = to.y.numel() > 0;
  SharingRows<T> sharing(head, data_of<T>(shares));
  ChunkFactors<T> factors;
  RightFactor<T> x;
  for (const Tensor* sums : {&to.y, &to.b_mean, &to.b_std}) zero<T>(*sums);
  for (int64_t k = 0; k < head.components; k += head.chunk) {
    const int64_t count = std::min(head.chunk, head.components - k), columns = count * head.dims;
    sharing.find(k, count);
    const int64_t number = static_cast<int64_t>(sharing.rows.size());
    if (number > 0) factors.set(w_mean.chunk(k, count), w_std.chunk(k, count), number, need_x);
    for (int64_t begin = 0; begin < number; begin += head.block) {
      const int64_t rows = std::min(head.block, number - begin);
      sharing.gather(begin, rows, k, count);
      GmmChunk<T> chunk = head_products(head, Matrix<T>(data_of<T>(sharing.x), rows, head.features), k, count,
                                        factors.to_mean, factors.to_std, mean, std);
      chunk.components = count;
      chunk.y = data_of<T>(sharing.y);
      chunk.shares = data_of<T>(sharing.part);
      if (need_y) chunk.grad_y = data_of<T>(sharing.grad_y);
      for_range(rows, columns, [&](int64_t first, int64_t last) {
        T* scratch = reinterpret_cast<T*>(thread_memory(2 * head.dims * static_cast<int64_t>(sizeof(T))));
        VITLITE_ISA_CALL(gmm_chunk_gradients(chunk, first, last, scratch));
      });
      if (need_y) sharing.scatter(begin, rows, sharing.grad_y, to.y);
      const Matrix<T> by_mean(chunk.mean, rows, columns), by_std(chunk.std, rows, columns);
      if (need_x) {
        factors.from_mean.multiply(by_mean, data_of<T>(sharing.grad_x));
        factors.from_std.multiply(by_std, data_of<T>(sharing.grad_x), true);
        sharing.scatter(begin, rows, sharing.grad_x, to.x);
      }
      if (grad_w_mean.wanted() || grad_w_std.wanted()) x.set(Matrix<T>(data_of<T>(sharing.x), rows, head.features));
      if (grad_w_mean.wanted()) x.multiply(by_mean.transposed(), grad_w_mean.data(k), begin > 0);
      if (grad_w_std.wanted()) x.multiply(by_std.transposed(), grad_w_std.data(k), begin > 0);
      if (to.b_mean.numel() > 0) add_rows(by_mean.data, rows, columns, data_of<T>(to.b_mean) + k * head.dims);
      if (to.b_std.numel() > 0) add_rows(by_std.data, rows, columns, data_of<T>(to.b_std) + k * head.dims);
    }
    grad_w_mean.finish(k, count, number > 0);
    grad_w_std.finish(k, count, number > 0);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> linear_gmm_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& w_logits, const Tensor& w_mean,
    const Tensor& w_std, const Bias& b_logits, const Bias& b_mean, const Bias& b_std, const Tensor& log_shares,
    const Tensor& logits, double min_std, int64_t chunk, bool need_x, bool need_y,
    bool need_w_logits, bool need_w_mean, bool need_w_std) {
  const Head head(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std, chunk);
  STD_TORCH_CHECK(grad.numel() == head.rows && grad.scalar_type() == head.x.scalar_type(),
                  "grad: wrong shape or dtype");
  for (const Tensor* saved : {&log_shares, &logits}) {
    head.check(*saved, "log_shares or logits", head.rows, head.components);
    STD_TORCH_CHECK(saved->is_contiguous(), "log_shares or logits: not contiguous");
  }
  const HeadGrads to{head.empty({head.rows, head.features}, need_x),
                     head.empty({head.rows, head.dims}, need_y),
                     head.empty({head.components, head.features}, need_w_logits),
                     new_tensor(head.w_mean, {head.components * head.dims, head.features}, need_w_mean),
                     new_tensor(head.w_std, {head.components * head.dims, head.features}, need_w_std),
                     head.empty({head.components}, b_logits.has_value()),
                     head.empty({head.components * head.dims}, b_mean.has_value()),
                     head.empty({head.components * head.dims}, b_std.has_value())};
  const Tensor grads = in_memory_order(grad);
  if (head.rows == 0) {
    for (const Tensor* result : {&to.w_logits, &to.b_logits, &to.b_mean, &to.b_std, &to.w_mean, &to.w_std}) {
      std::fill_n(static_cast<char*>(result->mutable_data_ptr()), result->numel() * result->element_size(), char(0));
    }
  } else {
    in_compute_type(head.kind, [&](auto t) {
      backward<decltype(t)>(head, logits_backward<decltype(t)>(head, grads, log_shares, logits, to), to);
    });
  }
  return {to.x, to.y, to.w_logits, to.w_mean, to.w_std, to.b_logits, to.b_mean, to.b_std};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("linear_gmm_log_likelihood_backward", TORCH_BOX(&vitlite::linear_gmm_backward));
}
