// SSIM (Wang et al. 2004, eq. 13) on the GPU: tensors in, kernels of ssim.cu and ssim_any.cu on the current stream.

#include "ssim.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>

#include "tensors.h"

namespace vitlite {
namespace {

using device::SsimGradients;
using device::SsimProblem;

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

constexpr auto kDouble = torch::headeronly::ScalarType::Double;
// Of the workspace that windows other than the usual need, in numbers.
constexpr int64_t kMostWorkspace = int64_t{1} << 26;

// Both images of one call; rows are contiguous.
struct Images {
  OnDevice on;
  Tensor x, y;
  SsimProblem problem;

  Images(const Tensor& x_in, const Tensor& y_in, int64_t window, double sigma, double data_range, bool same)
      : on(x_in), x(with_rows(x_in)), y(with_rows(y_in)) {
    check_device(x, x, "x");
    check_device(y, x, "y");
    STD_TORCH_CHECK(window >= 1 && window % 2 == 1, "window_size: expected an odd number");
    STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "y: another dtype than x");
    for (int64_t d = 0; d < 4; ++d) STD_TORCH_CHECK(x.size(d) == y.size(d), "y: another shape than x");
    const int64_t cut = same ? 0 : window - 1;
    problem.kind = checked_kind(x, "x");
    problem.channels = x.size(1);
    problem.planes = x.size(0) * x.size(1);
    problem.height = x.size(2);
    problem.width = x.size(3);
    problem.out_height = problem.height - cut;
    problem.out_width = problem.width - cut;
    STD_TORCH_CHECK(problem.out_height > 0 && problem.out_width > 0, "x: smaller than the window");
    problem.window = window;
    problem.pad = same ? window / 2 : 0;
    problem.sigma = sigma;
    // The constants K1 = 0.01 and K2 = 0.03 of the paper.
    problem.c1 = std::pow(0.01 * data_range, 2);
    problem.c2 = std::pow(0.03 * data_range, 2);
    problem.x = x.const_data_ptr();
    problem.y = y.const_data_ptr();
    problem.x_batch = x.stride(0);
    problem.x_channel = x.stride(1);
    problem.x_row = x.stride(2);
    problem.y_batch = y.stride(0);
    problem.y_channel = y.stride(1);
    problem.y_row = y.stride(2);
  }

  static Tensor with_rows(const Tensor& image) {
    STD_TORCH_CHECK(image.dim() == 4, "ssim: expected images (B, C, H, W)");
    return image.stride(3) == 1 || image.size(3) == 1 ? image : torch::stable::contiguous(image);
  }
  int64_t places() const {
    return problem.out_height * problem.out_width;
  }
  int multiprocessors() const {
    int count = 0;
    check_launch(device::device_multiprocessors(&count));
    return count;
  }
  int64_t compute_bytes() const {
    return problem.kind == Kind::float64 ? 8 : 4;
  }
  // The value, or the value of the mean of all places, of a sum of SSIM values.
  double divisor(int64_t reduction) const {
    return reduction == kMean ? static_cast<double>(problem.planes * places()) : 1.0;
  }
};

// The workspace of windows other than the usual, which takes some planes at a time.
struct Chunks {
  int64_t planes;
  Tensor memory;
  char* weights;
  char* workspace;

  Chunks(const Images& images, bool backward) {
    const SsimProblem& p = images.problem;
    const int64_t each = device::ssim_any_workspace(p, 1, backward);
    planes = std::max<int64_t>(1, std::min(p.planes, kMostWorkspace / each));
    const int64_t padded = (p.window + 63) / 64 * 64;
    memory = new_tensor(images.x, {padded + device::ssim_any_workspace(p, planes, backward)}, compute_type(p.kind));
    weights = static_cast<char*>(memory.mutable_data_ptr());
    workspace = weights + padded * images.compute_bytes();
    check_launch(device::ssim_any_weights(p, weights, images.on.stream));
  }
};

Tensor forward_map(const Images& images) {
  const SsimProblem& p = images.problem;
  Tensor map = new_tensor(images.x, {images.x.size(0), p.channels, p.out_height, p.out_width}, compute_type(p.kind));
  if (p.planes == 0) return map;
  char* to = static_cast<char*>(map.mutable_data_ptr());
  if (p.window == device::kUsualWindow) {
    const device::SsimCut cut = device::ssim_forward_cut(p, images.multiprocessors());
    check_launch(device::ssim_forward(p, cut, to, nullptr, images.on.stream));
    return map;
  }
  const Chunks chunks(images, false);
  for (int64_t first = 0; first < p.planes; first += chunks.planes) {
    const int64_t planes = std::min(chunks.planes, p.planes - first);
    check_launch(device::ssim_any_forward(p, first, planes, chunks.weights, chunks.workspace,
                                          to + first * images.places() * images.compute_bytes(), nullptr,
                                          images.on.stream));
  }
  return map;
}

// A sum for each block, and these added up in order: the result is always the same.
Tensor forward_sum(const Images& images, double divisor) {
  const SsimProblem& p = images.problem;
  Tensor result = new_tensor(images.x, {}, compute_type(p.kind)), sums;
  int64_t count = 0;
  if (p.planes > 0 && p.window == device::kUsualWindow) {
    const device::SsimCut cut = device::ssim_forward_cut(p, images.multiprocessors());
    count = cut.jobs;
    sums = new_tensor(images.x, {count}, kDouble);
    check_launch(
        device::ssim_forward(p, cut, nullptr, static_cast<double*>(sums.mutable_data_ptr()), images.on.stream));
  } else if (p.planes > 0) {
    const Chunks chunks(images, false);
    const int64_t each = device::ssim_any_blocks(p, chunks.planes);
    sums = new_tensor(images.x, {(p.planes + chunks.planes - 1) / chunks.planes * each}, kDouble);
    double* to = static_cast<double*>(sums.mutable_data_ptr());
    for (int64_t first = 0; first < p.planes; first += chunks.planes) {
      const int64_t planes = std::min(chunks.planes, p.planes - first);
      check_launch(device::ssim_any_forward(p, first, planes, chunks.weights, chunks.workspace, nullptr, to + count,
                                            images.on.stream));
      count += device::ssim_any_blocks(p, planes);
    }
  }
  const double* from = count == 0 ? nullptr : static_cast<const double*>(sums.const_data_ptr());
  check_launch(device::ssim_sum(p.kind, from, count, divisor, result.mutable_data_ptr(), images.on.stream));
  return result;
}

Tensor ssim_forward(const Tensor& x, const Tensor& y, int64_t window_size, double sigma, double data_range, bool same,
                    int64_t reduction) {
  const Images images(x, y, window_size, sigma, data_range, same);
  return reduction == kNone ? forward_map(images) : forward_sum(images, images.divisor(reduction));
}

std::tuple<Tensor, Tensor> ssim_backward(const Tensor& grad, const Tensor& x, const Tensor& y, int64_t window_size,
                                         double sigma, double data_range, bool same, int64_t reduction, bool need_x,
                                         bool need_y) {
  const Images images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& p = images.problem;
  check_device(grad, x, "grad");
  STD_TORCH_CHECK(grad.numel() == (reduction == kNone ? p.planes * images.places() : 1), "grad: wrong shape");
  STD_TORCH_CHECK(grad.scalar_type() == compute_type(p.kind), "grad: wrong dtype");
  const Tensor grads = in_memory_order(grad);
  Tensor grad_x = new_gradient(x, {x.size(0), p.channels, p.height, p.width}, need_x);
  Tensor grad_y = new_gradient(y, {x.size(0), p.channels, p.height, p.width}, need_y);
  if (p.planes == 0 || (!need_x && !need_y)) return {grad_x, grad_y};
  // SSIM is symmetric: where only y needs its gradient, the two change places.
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
  if (p.window == device::kUsualWindow) {
    const device::SsimCut cut = device::ssim_backward_cut(seen, images.multiprocessors());
    check_launch(device::ssim_backward(seen, cut, to, images.on.stream));
    return {grad_x, grad_y};
  }
  const Chunks chunks(images, true);
  for (int64_t first = 0; first < p.planes; first += chunks.planes) {
    check_launch(device::ssim_any_backward(seen, first, std::min(chunks.planes, p.planes - first), chunks.weights,
                                           chunks.workspace, to, images.on.stream));
  }
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CUDA, m) {
  m.impl("ssim_forward", TORCH_BOX(&vitlite::ssim_forward));
  m.impl("ssim_backward", TORCH_BOX(&vitlite::ssim_backward));
}
