// What the SSIM kernels of every instruction set are told.
#pragma once

#include <cstdint>

#include "../common/kind.h"

namespace vitlite {

// Moments are weighted means over the window: of x, of y, of x^2 + y^2 and of x y. SSIM needs no others, because the
// two variances only occur as their sum.
constexpr int kMoments = 4;

// Output rows that are filtered together, so that a loaded row serves several of them.
constexpr int kBlock = 4;

// Two images of one plane and everything that is the same for all planes. Strides are in elements; the last is one.
struct SsimProblem {
  Kind kind;
  int64_t height, width;          // of the images
  int64_t out_height, out_width;  // of the map
  int64_t window, pad;            // window length; rows and columns of zeros around the images
  const double* weights;          // window numbers that sum to one, symmetric
  double c1, c2;
  int64_t x_row, y_row;
};

// One strip of one plane, forward. `map` may be null; `row_sums` holds one sum for each row of the plane's map.
struct SsimForwardStrip {
  const void* x;
  const void* y;
  void* map;
  double* row_sums;
  int64_t begin, end;
};

// One strip of one plane, backward. `grad_map` (out_height, out_width) may be null, then `grad` stands for every pixel.
// `grad_y` may be null.
struct SsimBackwardStrip {
  const void* x;
  const void* y;
  const void* grad_map;
  double grad;
  void* grad_x;
  void* grad_y;
  int64_t begin, end;
};

}  // namespace vitlite
