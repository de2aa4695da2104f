// What the SSIM kernels are told. Every function queues kernels on a stream and returns null, or else what is wrong.
#pragma once

#include <cstdint>

#include "../common/kind.h"

namespace vitlite::device {

// The window of the literature has kernels of its own, which keep everything on the chip; all other windows go through
// a workspace in memory.
constexpr int kUsualWindow = 11;

// Two batches of images (planes = batch * channels) and everything that is the same for all planes. Strides are in
// elements; the last is one. The moments are those of csrc/cpu/ssim_problem.h.
struct SsimProblem {
  Kind kind;
  int64_t planes, channels;
  int64_t height, width;          // of the images
  int64_t out_height, out_width;  // of the map
  int64_t window, pad;            // window length; rows and columns of zeros around the images
  double sigma;                   // of the window, 0 for equal weights
  double c1, c2;
  const void* x;
  const void* y;
  int64_t x_batch, x_channel, x_row;
  int64_t y_batch, y_channel, y_row;
};

// How a plane is cut into tiles of columns and strips of rows; a block takes one strip of one tile at a time.
struct SsimCut {
  int64_t jobs, tiles, strips, tile, strip;
  int threads;
};

// For the usual window. The map (planes, out_height, out_width) and the sum of each job, either may be null.
SsimCut ssim_forward_cut(const SsimProblem& problem, int multiprocessors);
const char* ssim_forward(const SsimProblem& problem, const SsimCut& cut, void* map, double* sums, void* stream);

// `grad` is a map if `by_map`, or else one number, that is divided by `divisor`. Gradients are (planes, height, width);
// grad_y may be null.
struct SsimGradients {
  const void* grad;
  bool by_map;
  double divisor;
  void* x;
  void* y;
};

SsimCut ssim_backward_cut(const SsimProblem& problem, int multiprocessors);
const char* ssim_backward(const SsimProblem& problem, const SsimCut& cut, const SsimGradients& gradients, void* stream);

// For any window: so many numbers of the dtype of the computation are needed for `planes` planes, after those for the
// weights; ssim_any_weights fills these first.
int64_t ssim_any_workspace(const SsimProblem& problem, int64_t planes, bool backward);
int64_t ssim_any_blocks(const SsimProblem& problem, int64_t planes);
const char* ssim_any_weights(const SsimProblem& problem, void* weights, void* stream);
// Planes from `first` on; the sums are of ssim_any_blocks blocks.
const char* ssim_any_forward(const SsimProblem& problem, int64_t first, int64_t planes, const void* weights,
                             void* workspace, void* map, double* sums, void* stream);
const char* ssim_any_backward(const SsimProblem& problem, int64_t first, int64_t planes, const void* weights,
                              void* workspace, const SsimGradients& gradients, void* stream);

// The sum of `count` numbers over a divisor, in the dtype of the computation.
const char* ssim_sum(Kind kind, const double* sums, int64_t count, double divisor, void* result, void* stream);

// Multiprocessors of the current device.
const char* device_multiprocessors(int* count);

}  // namespace vitlite::device
