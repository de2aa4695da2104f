// SSIM (Wang et al. 2004, eq. 13) on the GPU: tensors in, kernels of ssim.cu on the current stream.

#include "ssim.h"

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>
#include <utility>

#include "../common/library.h"
#include "../common/ssim_images.h"
#include "tensors.h"

namespace vitlite {
namespace {

using device::SsimGradients;
using device::SsimProblem;

constexpr auto kDouble = ScalarType::Double;

// Entered before anything is computed from the arguments.
struct Entered {
  OnDevice on;
};

// Both images of one call, on one GPU, and what the kernels are told of them.
struct Images : Entered, SsimImages {
  SsimProblem problem;

  Images(const Tensor& x_in, const Tensor& y_in, int64_t window, double sigma, double data_range, bool same)
      : Entered{OnDevice(x_in)}, SsimImages(x_in, y_in, window, sigma, data_range, same) {
    check_device(x, x, "x");
    check_device(y, x, "y");
    STD_TORCH_CHECK(window == device::kWindow, "window_size: the CUDA kernels are for windows of 11");
    problem = {kind,
               planes,
               channels,
               height,
               width,
               out_height,
               out_width,
               pad,
               weights.data(),
               c1,
               c2,
               x.const_data_ptr(),
               y.const_data_ptr(),
               x.stride(0),
               x.stride(1),
               x.stride(2),
               y.stride(0),
               y.stride(1),
               y.stride(2)};
  }
};

// The map; or a sum for each block, and these added up in order: the result is always the same.
Tensor ssim_forward(const Tensor& x, const Tensor& y, int64_t window_size, double sigma, double data_range, bool same,
                    int64_t reduction) {
  const Images images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& p = images.problem;
  const bool whole = reduction != kNone;
  const Tensor result = whole ? empty(x, {}, compute_type(p.kind)) : images.new_map();
  Tensor sums;
  int64_t count = 0;
  if (p.planes > 0) {
    const device::SsimCut cut = device::ssim_forward_cut(p, multiprocessors());
    count = whole ? cut.jobs : 0;
    sums = empty(x, {count}, kDouble);
    double* to = whole ? static_cast<double*>(sums.mutable_data_ptr()) : nullptr;
    check_launch(device::ssim_forward(p, cut, whole ? nullptr : result.mutable_data_ptr(), to, images.on.stream));
  }
  if (!whole) return result;
  const double* from = count == 0 ? nullptr : static_cast<const double*>(sums.const_data_ptr());
  check_launch(device::ssim_sum(p.kind, from, count, images.divisor(reduction), result.mutable_data_ptr(),
                                images.on.stream));
  return result;
}

std::tuple<Tensor, Tensor> ssim_backward(const Tensor& grad, const Tensor& x, const Tensor& y, int64_t window_size,
                                         double sigma, double data_range, bool same, int64_t reduction, bool need_x,
                                         bool need_y) {
  const Images images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& p = images.problem;
  check_device(grad, x, "grad");
  const Tensor grads = images.checked_gradient(grad, reduction);
  const Tensor grad_x = images.new_gradient(need_x), grad_y = images.new_gradient(need_y);
  if (p.planes == 0 || (!need_x && !need_y)) return {grad_x, grad_y};
  // SSIM is symmetric: if only y needs its gradient, the two change places.
  SsimProblem seen = p;
  SsimGradients to{grads.const_data_ptr(), reduction == kNone, images.divisor(reduction), data_if(grad_x, need_x),
                   data_if(grad_y, need_y)};
  if (!need_x) {
    std::swap(seen.x, seen.y);
    std::swap(seen.x_batch, seen.y_batch);
    std::swap(seen.x_channel, seen.y_channel);
    std::swap(seen.x_row, seen.y_row);
    std::swap(to.x, to.y);
  }
  const device::SsimCut cut = device::ssim_backward_cut(seen, multiprocessors());
  check_launch(device::ssim_backward(seen, cut, to, images.on.stream));
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CUDA, m) {
  m.impl("ssim_forward", TORCH_BOX(&vitlite::ssim_forward));
  m.impl("ssim_backward", TORCH_BOX(&vitlite::ssim_backward));
}
