// The window of SSIM along one axis.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace vitlite {

// A Gaussian of the given deviation, or equal weights for deviation 0; they sum to one.
inline std::vector<double> ssim_window_weights(int64_t size, double sigma) {
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

}  // namespace vitlite
