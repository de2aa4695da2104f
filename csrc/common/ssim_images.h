// The arguments of the SSIM operators, checked.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "tensors.h"

namespace vitlite {

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// Both images of one call; rows are contiguous.
struct SsimImages {
  Tensor x, y;
  Kind kind;
  int64_t batch, channels, planes;
  int64_t height, width;          // of the images
  int64_t out_height, out_width;  // of the map
  int64_t window, pad;            // window length; rows and columns of zeros around the images
  std::vector<double> weights;    // of the window, along one axis; they sum to one
  double c1, c2;

  SsimImages(const Tensor& x_in, const Tensor& y_in, int64_t window, double sigma, double data_range, bool same)
      : x(with_rows(x_in)), y(with_rows(y_in)), window(window) {
    STD_TORCH_CHECK(window >= 1 && window % 2 == 1, "window_size: expected an odd number");
    weights = window_weights(window, sigma);
    STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "y: another dtype than x");
    for (int64_t d = 0; d < 4; ++d) STD_TORCH_CHECK(x.size(d) == y.size(d), "y: another shape than x");
    kind = checked_kind(x, "x");
    batch = x.size(0);
    channels = x.size(1);
    planes = batch * channels;
    height = x.size(2);
    width = x.size(3);
    const int64_t cut = same ? 0 : window - 1;
    out_height = height - cut;
    out_width = width - cut;
    STD_TORCH_CHECK(out_height > 0 && out_width > 0, "x: smaller than the window");
    pad = same ? window / 2 : 0;
    // The constants K1 = 0.01 and K2 = 0.03 of the paper.
    c1 = std::pow(0.01 * data_range, 2);
    c2 = std::pow(0.03 * data_range, 2);
  }

  // A Gaussian of the given deviation, or equal weights for deviation 0.
  static std::vector<double> window_weights(int64_t size, double sigma) {
    std::vector<double> weights(size, 1.0);
    double sum = 0;
    for (int64_t k = 0; k < size; ++k) {
      const double offset = static_cast<double>(k - size / 2);
      if (sigma > 0) weights[k] = std::exp(-offset * offset / (2 * sigma * sigma));
      sum += weights[k];
    }
    for (double& weight : weights) weight /= sum;
    return weights;
  }
  static Tensor with_rows(const Tensor& image) {
    STD_TORCH_CHECK(image.dim() == 4, "ssim: expected images (B, C, H, W)");
    return image.stride(3) == 1 || image.size(3) == 1 ? image : torch::stable::contiguous(image);
  }
  int64_t places() const {
    return out_height * out_width;
  }
  // What a sum over all places is divided by.
  double divisor(int64_t reduction) const {
    return reduction == kMean ? static_cast<double>(planes * places()) : 1.0;
  }
  // The gradient of the map, or of the one number that it is reduced to, in memory order.
  Tensor checked_gradient(const Tensor& grad, int64_t reduction) const {
    STD_TORCH_CHECK(grad.numel() == (reduction == kNone ? planes * places() : 1), "grad: wrong shape");
    STD_TORCH_CHECK(grad.scalar_type() == compute_type(kind), "grad: wrong dtype");
    return in_memory_order(grad);
  }
  Tensor new_map() const {
    return empty(x, {batch, channels, out_height, out_width}, compute_type(kind));
  }
  Tensor new_gradient(bool wanted) const {
    return empty(x, {batch, channels, height, width}, wanted);
  }
};

}  // namespace vitlite
