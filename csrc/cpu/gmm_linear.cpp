// A mixture density head and its log-likelihood on the CPU. The means and deviations (T, K, D) exist only for a block
// of rows and a chunk of components at a time, between a matrix product and the next; the backward pass computes
// them again.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "../common/library.h"
#include "gmm_head.h"

#define VITLITE_KERNEL "gmm_linear_kernel.h"
#include "each_isa.h"

namespace vitlite {

void gmm_widen_rows(const void* from, Kind kind, int64_t n, float* to) {
  VITLITE_ISA_CALL(gmm_widen(from, kind, n, to));
}

namespace {

template <class T>
void forward(const Head& head, const Tensor& likelihood, const Tensor& log_shares, const Tensor& logits) {
  const int64_t components = head.components;
  const Tensor mean = head.empty({head.block, head.chunk, head.dims});
  const Tensor std = head.empty({head.block, head.chunk, head.dims});
  const Tensor wide = empty(head.x, {head.rows, components}, ScalarType::Double);
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
    to_mean.set(w_mean.chunk(k, count).transposed(), head.rows);
    to_std.set(w_std.chunk(k, count).transposed(), head.rows);
    for (int64_t t = 0; t < head.rows; t += head.block) {
      const int64_t rows = std::min(head.block, head.rows - t);
      const Matrix<T> x = head.rows_of<T>(head.x, t, rows);
      GmmChunk<T> chunk = head_products(head, x, k, count, to_mean, to_std, mean, std);
      chunk.y = data_of<const T>(head.y) + t * head.dims;
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
  in_compute_type(head.kind, [&](auto t) { forward<decltype(t)>(head, likelihood, log_shares, logits); });
  return {likelihood, log_shares, logits};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("linear_gmm_log_likelihood_forward", TORCH_BOX(&vitlite::linear_gmm_forward));
}
