// What the mixture kernels are told. Every function queues kernels on a stream and returns null, or else what is wrong.
#pragma once

#include <cstdint>

#include "../common/gmm_problem.h"

namespace vitlite::device {

// The log-densities of all pairs of a row and a component, then the log-likelihoods (rows) and the logarithms of the
// components' shares of them (rows, components). Results are in the dtype of the computation.
const char* gmm_forward(const GmmProblem& problem, double* densities, void* likelihood, void* log_shares,
                        int multiprocessors, void* stream);

// Each component's share of the gradient to `shares` (rows, components), in the dtype of the computation, and the
// gradient of the logits if wanted.
const char* gmm_shares(const GmmProblem& problem, const GmmGradients& gradients, void* shares, void* stream);

// How many parts of the components the gradients are computed in side by side; with more than one part the gradient of
// y needs room for (parts, rows, dims) numbers of the dtype of the computation.
int64_t gmm_parts(const GmmProblem& problem, int multiprocessors);

// The other gradients that are wanted.
const char* gmm_gradients(const GmmProblem& problem, const GmmGradients& gradients, const void* shares, int64_t parts,
                          void* partial_y, int multiprocessors, void* stream);

}  // namespace vitlite::device
