// A mixture density head and its log-likelihood on the CPU. The means and deviations (T, K, D) exist only for a block of
// rows and a chunk of components at a time, between a matrix product and the next; the backward pass computes them again.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/dtypes.h"
#include "../common/huge_pages.h"
#include "../common/products.h"
#include "../common/tensors.h"
#include "gmm_problem.h"
#include "product.h"

#define VITLITE_KERNEL "../cpu/gmm_linear_kernel.h"
#include "../common/each_isa.h"

namespace vitlite {
namespace {

using Shape = torch::headeronly::IntHeaderOnlyArrayRef;
using Bias = std::optional<Tensor>;

// Elements that are worth another thread, and elements of a block of means.
constexpr int64_t kGrain = 1 << 13, kBlockElements = 1 << 20;
// Rows of a block: more do not make the matrix products faster, much fewer make them slower.
constexpr int64_t kMostRows = 512, kFewestRows = 64;

template <class T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <class T>
const T* data_of(const Bias& bias) {
  return bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
}

// The arguments of one call in memory order, and how they are cut.
struct Head {
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
    constexpr int64_t kNone[1] = {0};
    return huge_pages(torch::stable::new_empty(x, wanted ? Shape(shape.begin(), shape.size()) : Shape(kNone, 1)));
  }
  Tensor empty_weights(bool wanted) const {
    const int64_t shape[2] = {wanted ? components * dims : 0, features};
    return huge_pages(torch::stable::new_empty(w_mean, Shape(shape, 2)));
  }
  bool widened() const {
    return weight_kind != kind;
  }
  template <class T>
  Matrix<T> rows_of(const Tensor& matrix, int64_t begin, int64_t count) const {
    const int64_t width = matrix.size(1);
    return Matrix<T>(data_of<T>(matrix) + begin * width, count, width);
  }
};

template <class Work>
void for_range(int64_t count, int64_t cost, const Work& work) {
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, kGrain / cost), work);
}

// Weights of a chunk of components in the dtype of the computation, from their own or by way of a buffer.
template <class T>
struct Weights {
  const Head& head;
  const Tensor& all;
  std::optional<Tensor> buffer;

  Weights(const Head& head, const Tensor& all) : head(head), all(all) {
    if (head.widened()) buffer = head.empty({head.chunk * head.dims, head.features});
  }

  Matrix<T> chunk(int64_t begin, int64_t count) const {
    const int64_t height = count * head.dims, offset = begin * head.dims * head.features;
    if (!head.widened()) return Matrix<T>(data_of<T>(all) + offset, height, head.features);
    if constexpr (sizeof(T) == 4) {
      const char* from = static_cast<const char*>(all.const_data_ptr()) + offset * 2;
      const int64_t width = head.features;
      float* to = data_of<float>(*buffer);
      for_range(height, width, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(gmm_widen(from + first * width * 2, head.weight_kind, (last - first) * width,
                                   to + first * width));
      });
    }
    return Matrix<T>(data_of<T>(*buffer), height, head.features);
  }
};

// Gradients of such weights, one chunk after the other.
template <class T>
struct WeightGrads {
  const Head& head;
  const Tensor& all;
  std::optional<Tensor> buffer;

  WeightGrads(const Head& head, const Tensor& all) : head(head), all(all) {
    if (head.widened() && wanted()) buffer = head.empty({head.chunk * head.dims, head.features});
  }

  bool wanted() const {
    return all.numel() > 0;
  }
  T* chunk(int64_t begin) const {
    return head.widened() ? data_of<T>(*buffer) : data_of<T>(all) + begin * head.dims * head.features;
  }
  // Brings a finished chunk to its place.
  void finish(int64_t begin, int64_t count) const {
    if (!wanted() || !head.widened()) return;
    if constexpr (sizeof(T) == 4) {
      const int64_t width = head.features;
      const float* from = data_of<float>(*buffer);
      char* to = static_cast<char*>(all.mutable_data_ptr()) + begin * head.dims * width * 2;
      for_range(count * head.dims, width, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(gmm_narrow(from + first * width, head.weight_kind, (last - first) * width,
                                    to + first * width * 2));
      });
    }
  }
};

// The products of a block of rows with a chunk of components.
template <class T>
GmmChunk<T> products(const Head& head, int64_t row, int64_t rows, int64_t component, int64_t count,
                     const RightFactor<T>& to_mean, const RightFactor<T>& to_std, const Tensor& mean,
                     const Tensor& std) {
  const Matrix<T> x = head.rows_of<T>(head.x, row, rows);
  to_mean.multiply(x, data_of<T>(mean));
  to_std.multiply(x, data_of<T>(std));
  const T* mean_bias = data_of<T>(head.b_mean);
  const T* std_bias = data_of<T>(head.b_std);
  return {count,
          head.components,
          head.dims,
          T(head.min_std),
          data_of<T>(head.y) + row * head.dims,
          mean_bias == nullptr ? nullptr : mean_bias + component * head.dims,
          std_bias == nullptr ? nullptr : std_bias + component * head.dims,
          data_of<T>(mean),
          data_of<T>(std),
          nullptr,
          nullptr,
          nullptr};
}

// Where the row of one thread of numbers in double begins.
double* wide_row(int64_t components) {
  return reinterpret_cast<double*>(thread_memory(components * static_cast<int64_t>(sizeof(double))));
}

template <class T>
void forward(const Head& head, const Tensor& likelihood, const Tensor& log_shares, const Tensor& logits) {
  const int64_t components = head.components, shape[2] = {head.rows, components};
  const Tensor mean = head.empty({head.block, head.chunk, head.dims});
  const Tensor std = head.empty({head.block, head.chunk, head.dims});
  const Tensor wide = torch::stable::new_empty(head.x, Shape(shape, 2), torch::headeronly::ScalarType::Double);
  double* densities = data_of<double>(wide);
  const Weights<T> w_mean(head, head.w_mean), w_std(head, head.w_std);
  const RightFactor<T> to_logits(head.rows_of<T>(head.w_logits, 0, components).transposed());
  to_logits.multiply(head.rows_of<T>(head.x, 0, head.rows), data_of<T>(logits));
  RightFactor<T> to_mean, to_std;
  if (head.b_logits) {
    VITLITE_ISA_CALL(gmm_add_bias(data_of<T>(logits), head.rows, components, data_of<T>(head.b_logits)));
  }
  for (int64_t k = 0; k < components; k += head.chunk) {
    const int64_t count = std::min(head.chunk, components - k);
    to_mean.set(w_mean.chunk(k, count).transposed());
    to_std.set(w_std.chunk(k, count).transposed());
    for (int64_t t = 0; t < head.rows; t += head.block) {
      const int64_t rows = std::min(head.block, head.rows - t);
      GmmChunk<T> chunk = products(head, t, rows, k, count, to_mean, to_std, mean, std);
      chunk.densities = densities + t * components + k;
      for_range(rows * count, head.dims,
                [&](int64_t first, int64_t last) { VITLITE_ISA_CALL(gmm_chunk_densities(chunk, first, last)); });
    }
  }
  for_range(head.rows, components, [&](int64_t first, int64_t last) {
    VITLITE_ISA_CALL(gmm_rows_likelihoods<T>(data_of<T>(logits), densities, components, head.dims,
                                             data_of<T>(likelihood), data_of<T>(log_shares), wide_row(components),
                                             first, last));
  });
}

// The log-likelihood (T,), and for the backward pass the logarithms of the components' shares of it (T, K), and the
// logits.
std::tuple<Tensor, Tensor, Tensor> linear_gmm_forward(const Tensor& x, const Tensor& y, const Tensor& w_logits,
                                                      const Tensor& w_mean, const Tensor& w_std, const Bias& b_logits,
                                                      const Bias& b_mean, const Bias& b_std, double min_std,
                                                      int64_t chunk) {
  const Head head(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std, chunk);
  const Tensor likelihood = head.empty({head.rows}), log_shares = head.empty({head.rows, head.components});
  const Tensor logits = head.empty({head.rows, head.components});
  if (head.kind == Kind::float64) {
    forward<double>(head, likelihood, log_shares, logits);
  } else {
    forward<float>(head, likelihood, log_shares, logits);
  }
  return {likelihood, log_shares, logits};
}

// Results of the backward pass; empty where not wanted.
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
    VITLITE_ISA_CALL(gmm_rows_shares<T>(data_of<T>(logits), data_of<T>(log_shares), components, data_of<T>(grad),
                                        data_of<T>(shares), data_of<T>(grad_logits), wide_row(components), first,
                                        last));
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

template <class T>
void backward(const Head& head, const Tensor& shares, const HeadGrads& to) {
  const Tensor mean = head.empty({head.block, head.chunk, head.dims});
  const Tensor std = head.empty({head.block, head.chunk, head.dims});
  const Weights<T> w_mean(head, head.w_mean), w_std(head, head.w_std);
  const WeightGrads<T> grad_w_mean(head, to.w_mean), grad_w_std(head, to.w_std);
  const bool need_x = to.x.numel() > 0, need_y = to.y.numel() > 0;
  RightFactor<T> to_mean, to_std, from_mean, from_std;
  std::vector<RightFactor<T>> x;  // one for each block of rows
  for (int64_t t = 0; t < head.rows; t += head.block) {
    x.emplace_back(head.rows_of<T>(head.x, t, std::min(head.block, head.rows - t)));
  }
  for (const Tensor* sums : {&to.y, &to.b_mean, &to.b_std}) zero<T>(*sums);
  for (int64_t k = 0; k < head.components; k += head.chunk) {
    const int64_t count = std::min(head.chunk, head.components - k), columns = count * head.dims;
    const Matrix<T> means = w_mean.chunk(k, count), deviations = w_std.chunk(k, count);
    to_mean.set(means.transposed());
    to_std.set(deviations.transposed());
    if (need_x) {
      from_mean.set(means);
      from_std.set(deviations);
    }
    for (int64_t t = 0, i = 0; t < head.rows; t += head.block, ++i) {
      const int64_t rows = std::min(head.block, head.rows - t);
      GmmChunk<T> chunk = products(head, t, rows, k, count, to_mean, to_std, mean, std);
      chunk.shares = data_of<T>(shares) + t * head.components + k;
      if (need_y) chunk.grad_y = data_of<T>(to.y) + t * head.dims;
      for_range(rows, columns, [&](int64_t first, int64_t last) {
        T* scratch = reinterpret_cast<T*>(thread_memory(2 * head.dims * static_cast<int64_t>(sizeof(T))));
        VITLITE_ISA_CALL(gmm_chunk_gradients(chunk, first, last, scratch));
      });
      const Matrix<T> by_mean(chunk.mean, rows, columns), by_std(chunk.std, rows, columns);
      if (need_x) {
        T* grad_x = data_of<T>(to.x) + t * head.features;
        from_mean.multiply(by_mean, grad_x, true);
        from_std.multiply(by_std, grad_x, true);
      }
      if (grad_w_mean.wanted()) x[i].multiply(by_mean.transposed(), grad_w_mean.chunk(k), t > 0);
      if (grad_w_std.wanted()) x[i].multiply(by_std.transposed(), grad_w_std.chunk(k), t > 0);
      if (to.b_mean.numel() > 0) add_rows(by_mean.data, rows, columns, data_of<T>(to.b_mean) + k * head.dims);
      if (to.b_std.numel() > 0) add_rows(by_std.data, rows, columns, data_of<T>(to.b_std) + k * head.dims);
    }
    grad_w_mean.finish(k, count);
    grad_w_std.finish(k, count);
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
                     head.empty_weights(need_w_mean),
                     head.empty_weights(need_w_std),
                     head.empty({head.components}, b_logits.has_value()),
                     head.empty({head.components * head.dims}, b_mean.has_value()),
                     head.empty({head.components * head.dims}, b_std.has_value())};
  const Tensor grads = in_memory_order(grad);
  if (head.rows == 0) {
    for (const Tensor* result : {&to.w_logits, &to.b_logits, &to.b_mean, &to.b_std, &to.w_mean, &to.w_std}) {
      std::fill_n(static_cast<char*>(result->mutable_data_ptr()), result->numel() * result->element_size(), char(0));
    }
  } else if (head.kind == Kind::float64) {
    backward<double>(head, logits_backward<double>(head, grads, log_shares, logits, to), to);
  } else {
    backward<float>(head, logits_backward<float>(head, grads, log_shares, logits, to), to);
  }
  return {to.x, to.y, to.w_logits, to.w_mean, to.w_std, to.b_logits, to.b_mean, to.b_std};
}

}  // namespace
}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CPU, m) {
  m.impl("linear_gmm_log_likelihood_forward", TORCH_BOX(&vitlite::linear_gmm_forward));
  m.impl("linear_gmm_log_likelihood_backward", TORCH_BOX(&vitlite::linear_gmm_backward));
}
