// Log-likelihood of Gaussian mixtures on the GPU: tensors in, kernels of gmm.cu on the current stream.

#include "gmm.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>

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
  int multiprocessors() const {
    int count = 0;
    check_launch(device::device_multiprocessors(&count));
    return count;
  }
};

// The log-likelihood (T,), and for the backward pass the logarithms of the components' shares of it (T, K).
std::tuple<Tensor, Tensor> gmm_forward(const Tensor& y, const Tensor& logits, const Tensor& mean, const Tensor& std) {
  const DeviceMixture mixture(y, logits, mean, std);
  const GmmProblem& p = mixture.problem;
  const auto type = compute_type(p.kind);
  const Tensor likelihood = new_tensor(y, {p.rows}, type), log_shares = new_tensor(y, {p.rows, p.components}, type);
  if (p.rows == 0) return {likelihood, log_shares};
  const Tensor densities = new_tensor(y, {p.rows, p.components}, torch::headeronly::ScalarType::Double);
  check_launch(device::gmm_forward(p, static_cast<double*>(densities.mutable_data_ptr()), likelihood.mutable_data_ptr(),
                                   log_shares.mutable_data_ptr(), mixture.multiprocessors(), mixture.on.stream));
  return {likelihood, log_shares};
}

// Gradients for y, logits, mean and std; empty where not wanted.
std::tuple<Tensor, Tensor, Tensor, Tensor> gmm_backward(const Tensor& grad, const Tensor& y, const Tensor& logits,
                                                        const Tensor& mean, const Tensor& std,
                                                        const Tensor& log_shares, bool need_y, bool need_logits,
                                                        bool need_mean, bool need_std) {
  const DeviceMixture mixture(y, logits, mean, std);
  const GmmProblem& p = mixture.problem;
  const auto type = compute_type(p.kind);
  check_device(grad, y, "grad");
  check_device(log_shares, y, "log_shares");
  STD_TORCH_CHECK(grad.numel() == p.rows && grad.scalar_type() == type, "grad: wrong shape or dtype");
  STD_TORCH_CHECK(log_shares.numel() == p.rows * p.components && log_shares.scalar_type() == type &&
                      log_shares.is_contiguous(),
                  "log_shares: wrong shape or dtype");
  const Tensor grads = in_memory_order(grad);
  const Tensor grad_y = new_gradient(y, {p.rows, p.dims}, need_y);
  const Tensor grad_logits = new_gradient(y, {p.rows, p.components}, need_logits);
  const Tensor grad_mean = new_gradient(y, {p.rows, p.components, p.dims}, need_mean);
  const Tensor grad_std = new_gradient(y, {p.rows, p.components, mixture.std.size(2)}, need_std);
  if (p.rows == 0 || !(need_y || need_logits || need_mean || need_std)) {
    return {grad_y, grad_logits, grad_mean, grad_std};
  }
  const GmmGradients to{grads.const_data_ptr(),       log_shares.const_data_ptr(),   data_if(grad_y, need_y),
                        data_if(grad_logits, need_logits), data_if(grad_mean, need_mean), data_if(grad_std, need_std)};
  const Tensor shares = new_tensor(y, {p.rows, p.components}, type);
  check_launch(device::gmm_shares(p, to, shares.mutable_data_ptr(), mixture.on.stream));
  const int multiprocessors = mixture.multiprocessors();
  const int64_t parts = device::gmm_parts(p, multiprocessors);
  const Tensor partial = new_tensor(y, {need_y && parts > 1 ? parts * p.rows * p.dims : 0}, type);
  check_launch(device::gmm_gradients(p, to, shares.const_data_ptr(), parts, partial.mutable_data_ptr(), multiprocessors,
                                     mixture.on.stream));
  return {grad_y, grad_logits, grad_mean, grad_std};
}

}  // namespace
}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CUDA, m) {
  m.impl("gmm_log_likelihood_forward", TORCH_BOX(&vitlite::gmm_forward));
  m.impl("gmm_log_likelihood_backward", TORCH_BOX(&vitlite::gmm_backward));
}
