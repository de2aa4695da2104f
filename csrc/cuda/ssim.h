// What the SSIM kernels are told. Every function queues kernels on a stream and returns null, or else what is wrong.
#pragma once

#include <cstdint>

#include "../common/kind.h"

namespace vitlite::device {

// The kernels are for the window of the literature, and keep everything on the chip.
constexpr int kWindow = 11;

// Two batches of images (planes = batch * channels) and everything that is the same for all planes. Strides are in
// elements; the last is one. The moments are those of csrc/cpu/ssim.cpp.
struct SsimProblem {
  Kind kind;
  int64_t planes, channels;
  int64_t height, width;          // of the images
  int64_t out_height, out_width;  // of the map
  int64_t pad;                    // rows and columns of zeros around the images
  const double* weights;          // of the window, in the memory of the host
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

// The map (planes, out_height, out_width) and the sum of each job, either may be null.
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

// The sum of `count` numbers over a divisor, in the dtype of the computation.
const char* ssim_sum(Kind kind, const double* sums, int64_t count, double divisor, void* result, void* stream);

}  // namespace vitlite::device
