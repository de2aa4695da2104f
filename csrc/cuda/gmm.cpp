// Log-likelihood of Gaussian mixtures on the GPU: tensors in, kernels of gmm.cu on the current stream.

#include "gmm.h"

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>

#include "../common/library.h"
#include "../common/mixture.h"
#include "tensors.h"

namespace vitlite {
namespace {

// Entered before anything is computed of the arguments.
struct Entered {
  OnDevice on;
};

// The arguments of one call on a GPU, all on the device of the first.
struct DeviceMixture : Entered, Mixture {
  DeviceMixture(const Tensor& y_in, const Tensor& logits_in, const Tensor& mean_in, const Tensor& std_in)
      : Entered{OnDevice(y_in)}, Mixture(y_in, logits_in, mean_in, std_in) {
    check_device(y, y, "y");
    check_device(logits, y, "logits");
    check_device(mean, y, "mean");
    check_device(std, y, "std");
  }
};

// The log-likelihood (T,), and for the backward pass the logarithms of the components' shares of it (T, K).
std::tuple<Tensor, Tensor> gmm_forward(const Tensor& y, const Tensor& logits, const Tensor& mean, const Tensor& std) {
  const DeviceMixture mixture(y, logits, mean, std);
  const GmmProblem& p = mixture.problem;
  const auto type = compute_type(p.kind);
  const Tensor likelihood = empty(y, {p.rows}, type), log_shares = empty(y, {p.rows, p.components}, type);
  if (p.rows == 0) return {likelihood, log_shares};
  const Tensor densities = empty(y, {p.rows, p.components}, ScalarType::Double);
  check_launch(device::gmm_forward(p, static_cast<double*>(densities.mutable_data_ptr()), likelihood.mutable_data_ptr(),
                                   log_shares.mutable_data_ptr(), multiprocessors(), mixture.on.stream));
  return {likelihood, log_shares};
}

// Gradients for y, logits, mean and std; empty if not wanted.
std::tuple<Tensor, Tensor, Tensor, Tensor> gmm_backward(const Tensor& grad, const Tensor& y, const Tensor& logits,
                                                        const Tensor& mean, const Tensor& std,
                                                        const Tensor& log_shares, bool need_y, bool need_logits,
                                                        bool need_mean, bool need_std) {
  const DeviceMixture mixture(y, logits, mean, std);
  const GmmProblem& p = mixture.problem;
  check_device(grad, y, "grad");
  check_device(log_shares, y, "log_shares");
  const MixtureGradients grads(mixture, grad, log_shares, need_y, need_logits, need_mean, need_std);
  const GmmGradients& to = grads.to;
  if (p.rows == 0 || !(need_y || need_logits || need_mean || need_std)) {
    return {grads.y, grads.logits, grads.mean, grads.std};
  }
  const auto type = compute_type(p.kind);
  const Tensor shares = empty(y, {p.rows, p.components}, type);
  check_launch(device::gmm_shares(p, to, shares.mutable_data_ptr(), mixture.on.stream));
  const int resident = multiprocessors();
  const int64_t parts = device::gmm_parts(p, resident);
  const Tensor partial = empty(y, {need_y && parts > 1 ? parts * p.rows * p.dims : 0}, type);
  check_launch(device::gmm_gradients(p, to, shares.const_data_ptr(), parts, partial.mutable_data_ptr(), resident,
                                     mixture.on.stream));
  return {grads.y, grads.logits, grads.mean, grads.std};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CUDA, m) {
  m.impl("gmm_log_likelihood_forward", TORCH_BOX(&vitlite::gmm_forward));
  m.impl("gmm_log_likelihood_backward", TORCH_BOX(&vitlite::gmm_backward));
}
