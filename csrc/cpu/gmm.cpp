// Log-likelihood of Gaussian mixtures on the CPU: every mean and deviation is read once in each direction.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <tuple>

#include "../common/dtypes.h"
#include "../common/huge_pages.h"
#include "../common/mixture.h"

#define VITLITE_KERNEL "../cpu/gmm_kernel.h"
#include "../common/each_isa.h"

namespace vitlite {
namespace {

// Elements that are worth another thread.
constexpr int64_t kGrain = 1 << 13;

using Shape = torch::headeronly::IntHeaderOnlyArrayRef;

template <class T>
void forward(const GmmProblem& problem, double* densities, void* likelihood, void* log_shares) {
  const int64_t bytes = VITLITE_ISA_CALL(gmm_scratch_bytes(problem));
  const int64_t pairs = problem.rows * problem.components;
  const auto densities_of = [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_densities<T>(problem, begin, end, densities, thread_memory(bytes)));
  };
  const auto likelihoods_of = [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_likelihoods(problem, begin, end, densities, static_cast<T*>(likelihood),
                                     static_cast<T*>(log_shares), thread_memory(bytes)));
  };
  torch::stable::parallel_for(0, pairs, std::max<int64_t>(1, kGrain / problem.dims), densities_of);
  torch::stable::parallel_for(0, problem.rows, std::max<int64_t>(1, kGrain / problem.components), likelihoods_of);
}

template <class T>
void backward(const GmmProblem& problem, const GmmGradients& gradients) {
  const int64_t bytes = VITLITE_ISA_CALL(gmm_scratch_bytes(problem));
  const int64_t grain = std::max<int64_t>(1, kGrain / problem.dims / problem.components);
  torch::stable::parallel_for(0, problem.rows, grain, [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(gmm_gradients<T>(problem, gradients, begin, end, thread_memory(bytes)));
  });
}

Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape, bool wanted = true) {
  constexpr int64_t kNone[1] = {0};
  return huge_pages(torch::stable::new_empty(like, wanted ? Shape(shape.begin(), shape.size()) : Shape(kNone, 1)));
}

void* data_of(const Tensor& tensor, bool wanted = true) {
  return wanted ? tensor.mutable_data_ptr() : nullptr;
}

// The log-likelihood (T,), and for the backward pass the logarithms of the components' shares of it (T, K).
std::tuple<Tensor, Tensor> gmm_forward(const Tensor& y, const Tensor& logits, const Tensor& mean, const Tensor& std) {
  const Mixture mixture(y, logits, mean, std);
  const GmmProblem& problem = mixture.problem;
  const auto type = compute_type(problem.kind);
  const int64_t shape[2] = {problem.rows, problem.components};
  const Tensor likelihood = torch::stable::new_empty(y, Shape(shape, 1), type);
  const Tensor log_shares = torch::stable::new_empty(y, Shape(shape, 2), type);
  const Tensor densities = torch::stable::new_empty(y, Shape(shape, 2), torch::headeronly::ScalarType::Double);
  double* wide = static_cast<double*>(densities.mutable_data_ptr());
  if (mixture.problem.kind == Kind::float64) {
    forward<double>(problem, wide, likelihood.mutable_data_ptr(), log_shares.mutable_data_ptr());
  } else {
    forward<float>(problem, wide, likelihood.mutable_data_ptr(), log_shares.mutable_data_ptr());
  }
  return {likelihood, log_shares};
}

// Gradients for y, logits, mean and std; empty where not wanted.
std::tuple<Tensor, Tensor, Tensor, Tensor> gmm_backward(const Tensor& grad, const Tensor& y, const Tensor& logits,
                                                        const Tensor& mean, const Tensor& std,
                                                        const Tensor& log_shares, bool need_y, bool need_logits,
                                                        bool need_mean, bool need_std) {
  const Mixture mixture(y, logits, mean, std);
  const GmmProblem& problem = mixture.problem;
  const auto type = compute_type(problem.kind);
  STD_TORCH_CHECK(grad.numel() == problem.rows && grad.scalar_type() == type, "grad: wrong shape or dtype");
  STD_TORCH_CHECK(log_shares.numel() == problem.rows * problem.components && log_shares.scalar_type() == type &&
                      log_shares.is_contiguous(),
                  "log_shares: wrong shape or dtype");
  const Tensor grads = in_memory_order(grad);
  const Tensor grad_y = empty(y, {problem.rows, problem.dims}, need_y);
  const Tensor grad_logits = empty(y, {problem.rows, problem.components}, need_logits);
  const Tensor grad_mean = empty(y, {problem.rows, problem.components, problem.dims}, need_mean);
  const Tensor grad_std = empty(y, {problem.rows, problem.components, mixture.std.size(2)}, need_std);
  const GmmGradients gradients{grads.const_data_ptr(),      log_shares.const_data_ptr(),
                               data_of(grad_y, need_y),     data_of(grad_logits, need_logits),
                               data_of(grad_mean, need_mean), data_of(grad_std, need_std)};
  if (mixture.problem.kind == Kind::float64) {
    backward<double>(problem, gradients);
  } else {
    backward<float>(problem, gradients);
  }
  return {grad_y, grad_logits, grad_mean, grad_std};
}

}  // namespace
}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CPU, m) {
  m.impl("gmm_log_likelihood_forward", TORCH_BOX(&vitlite::gmm_forward));
  m.impl("gmm_log_likelihood_backward", TORCH_BOX(&vitlite::gmm_backward));
}
