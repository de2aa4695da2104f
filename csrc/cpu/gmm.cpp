// Log-likelihood of Gaussian mixtures on the CPU: every mean and deviation is read once in each direction.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>

#include "../common/library.h"
#include "../common/mixture.h"
#include "tensors.h"

#define VITLITE_KERNEL "gmm_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

template <class T>
void forward(const GmmProblem& problem, double* densities, void* likelihood, void* log_shares) {
  const int64_t bytes = VITLITE_ISA_CALL(gmm_scratch_bytes(problem));
  for_range(problem.rows * problem.components, problem.dims, [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_densities<T>(problem, begin, end, densities, thread_memory(bytes)));
  });
  for_range(problem.rows, problem.components, [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_likelihoods(problem, begin, end, densities, static_cast<T*>(likelihood),
                                     static_cast<T*>(log_shares), thread_memory(bytes)));
  });
}

template <class T>
void backward(const GmmProblem& problem, const GmmGradients& gradients) {
  const int64_t bytes = VITLITE_ISA_CALL(gmm_scratch_bytes(problem));
  for_range(problem.rows, problem.dims * problem.components, [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_gradients<T>(problem, gradients, begin, end, thread_memory(bytes)));
  });
}

// The log-likelihood (T,), and for the backward pass the logarithms of the components' shares of it (T, K).
std::tuple<Tensor, Tensor> gmm_forward(const Tensor& y, const Tensor& logits, const Tensor& mean, const Tensor& std) {
  const IsaScope isa;
  const Mixture mixture(y, logits, mean, std);
  const GmmProblem& problem = mixture.problem;
  const auto type = compute_type(problem.kind);
  const Tensor likelihood = empty(y, {problem.rows}, type);
  const Tensor log_shares = empty(y, {problem.rows, problem.components}, type);
  const Tensor densities = empty(y, {problem.rows, problem.components}, ScalarType::Double);
  double* wide = static_cast<double*>(densities.mutable_data_ptr());
  in_compute_type(problem.kind, [&](auto t) {
    forward<decltype(t)>(problem, wide, likelihood.mutable_data_ptr(), log_shares.mutable_data_ptr());
  });
  return {likelihood, log_shares};
}

// Gradients for y, logits, mean and std; empty if not wanted.
std::tuple<Tensor, Tensor, Tensor, Tensor> gmm_backward(const Tensor& grad, const Tensor& y, const Tensor& logits,
                                                        const Tensor& mean, const Tensor& std,
                                                        const Tensor& log_shares, bool need_y, bool need_logits,
                                                        bool need_mean, bool need_std) {
  const IsaScope isa;
  const Mixture mixture(y, logits, mean, std);
  const MixtureGradients grads(mixture, grad, log_shares, need_y, need_logits, need_mean, need_std);
  for (const Tensor* fresh : {&grads.y, &grads.logits, &grads.mean, &grads.std}) in_huge_pages(*fresh);
  in_compute_type(mixture.problem.kind, [&](auto t) { backward<decltype(t)>(mixture.problem, grads.to); });
  return {grads.y, grads.logits, grads.mean, grads.std};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("gmm_log_likelihood_forward", TORCH_BOX(&vitlite::gmm_forward));
  m.impl("gmm_log_likelihood_backward", TORCH_BOX(&vitlite::gmm_backward));
}
