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
#include "../common/tensors.h"
#include "gmm_problem.h"

#define VITLITE_KERNEL "../cpu/gmm_kernel.h"
#include "../common/each_isa.h"

namespace vitlite {
namespace {

// Elements that are worth another thread.
constexpr int64_t kGrain = 1 << 13;

using Shape = torch::headeronly::IntHeaderOnlyArrayRef;

// The arguments of one call; y and logits are brought into memory order, the tables only in their last dimension.
struct Mixture {
  Tensor y, logits, mean, std;
  GmmProblem problem;

  Mixture(const Tensor& y_in, const Tensor& logits_in, const Tensor& mean_in, const Tensor& std_in)
      : y(in_memory_order(y_in)),
        logits(in_memory_order(logits_in)),
        mean(with_rows(mean_in)),
        std(with_rows(std_in)) {
    STD_TORCH_CHECK(y.dim() == 2 && logits.dim() == 2, "gmm: expected y (T, D) and logits (T, K)");
    const int64_t rows = y.size(0), dims = y.size(1), components = logits.size(1);
    STD_TORCH_CHECK(components > 0 && dims > 0 && logits.size(0) == rows, "logits: wrong shape");
    check(mean, "mean", rows, components, dims, dims);
    check(std, "std", rows, components, dims, 1);
    STD_TORCH_CHECK(logits.scalar_type() == y.scalar_type(), "logits: another dtype than y");
    problem = {checked_kind(y, "y"),
               rows,
               components,
               dims,
               std.size(2) == 1 && dims > 1,
               y.const_data_ptr(),
               logits.const_data_ptr(),
               {mean.const_data_ptr(), mean.stride(0), mean.stride(1)},
               {std.const_data_ptr(), std.stride(0), std.stride(1)}};
  }

  void check(const Tensor& table, const char* name, int64_t rows, int64_t components, int64_t dims, int64_t fewest) {
    STD_TORCH_CHECK(table.size(0) == rows && table.size(1) == components &&
                        (table.size(2) == dims || table.size(2) == fewest),
                    name, ": wrong shape");
    STD_TORCH_CHECK(table.scalar_type() == y.scalar_type(), name, ": another dtype than y");
  }
  static Tensor with_rows(const Tensor& table) {
    STD_TORCH_CHECK(table.dim() == 3, "gmm: expected mean and std (T, K, D)");
    return table.stride(2) == 1 || table.size(2) == 1 ? table : in_memory_order(table);
  }
  bool is_double() const {
    return problem.kind == Kind::float64;
  }
};

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
  if (mixture.is_double()) {
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
  if (mixture.is_double()) {
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
