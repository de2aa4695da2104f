// The arguments of the Gaussian mixtures' operators, checked and as their kernels are told of them.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "gmm_problem.h"
#include "tensors.h"

namespace vitlite {

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
};

// The gradients of one call: new tensors, empty if not wanted, and what their kernels are told of them.
struct MixtureGradients {
  Tensor given, y, logits, mean, std;
  GmmGradients to;

  MixtureGradients(const Mixture& mixture, const Tensor& grad, const Tensor& log_shares, bool need_y, bool need_logits,
                   bool need_mean, bool need_std)
      : given(in_memory_order(grad)) {
    const GmmProblem& p = mixture.problem;
    const ScalarType type = compute_type(p.kind);
    STD_TORCH_CHECK(grad.numel() == p.rows && grad.scalar_type() == type, "grad: wrong shape or dtype");
    STD_TORCH_CHECK(log_shares.numel() == p.rows * p.components && log_shares.scalar_type() == type &&
                        log_shares.is_contiguous(),
                    "log_shares: wrong shape or dtype");
    y = empty(mixture.y, {p.rows, p.dims}, need_y);
    logits = empty(mixture.y, {p.rows, p.components}, need_logits);
    mean = empty(mixture.y, {p.rows, p.components, p.dims}, need_mean);
    std = empty(mixture.y, {p.rows, p.components, mixture.std.size(2)}, need_std);
    to = {given.const_data_ptr(),        log_shares.const_data_ptr(), data_if(y, need_y),
          data_if(logits, need_logits), data_if(mean, need_mean),    data_if(std, need_std)};
  }
};

}  // namespace vitlite
