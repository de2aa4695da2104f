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

}  // namespace vitlite
