// SSIM (Wang et al. 2004, eq. 13) on the CPU: splits planes into strips of rows and gives them to threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "../common/dtypes.h"
#include "../common/huge_pages.h"
#include "../common/ssim_weights.h"
#include "../common/tensors.h"
#include "ssim_problem.h"

#define VITLITE_KERNEL "../cpu/ssim_kernel.h"
#include "../common/each_isa.h"

namespace vitlite {
namespace {

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// Both images of one call; rows are contiguous.
struct Images {
  Tensor x, y;
  int64_t batch, channels;
  std::vector<double> weights;
  SsimProblem problem;

  Images(const Tensor& x_in, const Tensor& y_in, int64_t window, double sigma, double data_range, bool same)
      : x(with_rows(x_in)), y(with_rows(y_in)), weights(ssim_window_weights(window, sigma)) {
    batch = x.size(0);
    channels = x.size(1);
    const int64_t height = x.size(2), width = x.size(3), cut = same ? 0 : window - 1;
    // The constants K1 = 0.01 and K2 = 0.03 of the paper.
    const double c1 = std::pow(0.01 * data_range, 2), c2 = std::pow(0.03 * data_range, 2);
    problem = {checked_kind(x, "x"), height,  width, height - cut, width - cut, window, same ? window / 2 : 0,
               weights.data(),       c1,      c2,    x.stride(2),  y.stride(2)};
  }

  int64_t planes() const {
    return batch * channels;
  }
  const void* plane(const Tensor& image, int64_t index) const {
    const int64_t offset = index / channels * image.stride(0) + index % channels * image.stride(1);
    return static_cast<const char*>(image.const_data_ptr()) + offset * bytes_of(problem.kind);
  }
  static Tensor with_rows(const Tensor& image) {
    STD_TORCH_CHECK(image.dim() == 4, "ssim: expected images (B, C, H, W)");
    return image.stride(3) == 1 || image.size(3) == 1 ? image : torch::stable::contiguous(image);
  }
};

Images checked_images(const Tensor& x, const Tensor& y, int64_t window, double sigma, double data_range, bool same) {
  STD_TORCH_CHECK(window >= 1 && window % 2 == 1, "window_size: expected an odd number");
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "y: another dtype than x");
  Images images(x, y, window, sigma, data_range, same);
  for (int64_t d = 0; d < 4; ++d) STD_TORCH_CHECK(x.size(d) == y.size(d), "y: another shape than x");
  STD_TORCH_CHECK(images.problem.out_height > 0 && images.problem.out_width > 0, "x: smaller than the window");
  return images;
}

// Calls work(plane, begin, end) for strips that cover `rows` rows of every plane, on all threads. Few planes are cut
// into strips, which costs a window of rows more for each; tiny images stay on one thread.
template <class Work>
void for_strips(const Images& images, int64_t rows, const Work& work) {
  constexpr int64_t kFewestRows = 32, kPixelsPerThread = 1 << 13;
  const int64_t planes = images.planes(), wanted = 4 * static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t cuts = std::max<int64_t>(1, std::min(wanted / std::max<int64_t>(planes, 1), rows / kFewestRows));
  const int64_t height = (rows + cuts - 1) / cuts, strips = (rows + height - 1) / height;
  const int64_t grain = std::max<int64_t>(1, kPixelsPerThread / (height * images.problem.width));
  torch::stable::parallel_for(0, planes * strips, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % strips * height;
      work(i / strips, begin, std::min(begin + height, rows));
    }
  });
}

Tensor ssim_forward(const Tensor& x, const Tensor& y, int64_t window_size, double sigma, double data_range, bool same,
                    int64_t reduction) {
  const Images images = checked_images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& problem = images.problem;
  const int64_t rows = problem.out_height;
  std::vector<int64_t> shape;
  if (reduction == kNone) shape = {images.batch, images.channels, rows, problem.out_width};
  Tensor result = huge_pages(torch::stable::new_empty(x, shape, compute_type(problem.kind)));
  char* map = static_cast<char*>(result.mutable_data_ptr());
  const int64_t plane_bytes = rows * problem.out_width * bytes_of(problem.kind == Kind::float64 ? Kind::float64 : Kind::float32);
  // A sum for each row, added up in order: the result does not depend on the number of threads.
  std::vector<double> sums(reduction == kNone ? 0 : images.planes() * rows, 0.0);
  const int64_t bytes = VITLITE_ISA_CALL(ssim_workspace(problem));
  for_strips(images, rows, [&](int64_t plane, int64_t begin, int64_t end) {
    const SsimForwardStrip strip{images.plane(images.x, plane),
                                 images.plane(images.y, plane),
                                 reduction == kNone ? map + plane * plane_bytes : nullptr,
                                 reduction == kNone ? nullptr : sums.data() + plane * rows,
                                 begin,
                                 end};
    VITLITE_ISA_CALL(ssim_forward_strip(problem, strip, thread_memory(bytes)));
  });
  if (reduction != kNone) {
    double total = 0;
    for (const double sum : sums) total += sum;
    if (reduction == kMean) total /= static_cast<double>(images.planes() * rows * problem.out_width);
    if (problem.kind == Kind::float64) {
      *reinterpret_cast<double*>(map) = total;
    } else {
      *reinterpret_cast<float*>(map) = static_cast<float>(total);
    }
  }
  return result;
}

std::tuple<Tensor, Tensor> ssim_backward(const Tensor& grad, const Tensor& x, const Tensor& y, int64_t window_size,
                                         double sigma, double data_range, bool same, int64_t reduction, bool need_x,
                                         bool need_y) {
  const Images images = checked_images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& problem = images.problem;
  const int64_t rows = problem.out_height, pixels = rows * problem.out_width;
  STD_TORCH_CHECK(grad.numel() == (reduction == kNone ? images.planes() * pixels : 1), "grad: wrong shape");
  STD_TORCH_CHECK(grad.scalar_type() == compute_type(problem.kind), "grad: wrong dtype");
  const Tensor grads = torch::stable::contiguous(grad);
  const std::vector<int64_t> shape{images.batch, images.channels, problem.height, problem.width}, none{0};
  Tensor grad_x = huge_pages(torch::stable::new_empty(x, need_x ? shape : none));
  Tensor grad_y = huge_pages(torch::stable::new_empty(y, need_y ? shape : none));
  const char* map = static_cast<const char*>(grads.const_data_ptr());
  double scale = 0;
  if (reduction != kNone) {
    scale = problem.kind == Kind::float64 ? *reinterpret_cast<const double*>(map) : *reinterpret_cast<const float*>(map);
    if (reduction == kMean) scale /= static_cast<double>(images.planes() * pixels);
  }
  const int64_t grad_bytes = pixels * bytes_of(problem.kind == Kind::float64 ? Kind::float64 : Kind::float32);
  const int64_t image_bytes = problem.height * problem.width * bytes_of(problem.kind);
  char* to_x = static_cast<char*>(grad_x.mutable_data_ptr());
  char* to_y = static_cast<char*>(grad_y.mutable_data_ptr());
  if (!need_x && !need_y) return {grad_x, grad_y};
  // SSIM is symmetric: where only y needs its gradient, the two change places.
  const bool swap = !need_x;
  SsimProblem seen = problem;
  if (swap) std::swap(seen.x_row, seen.y_row);
  const int64_t bytes = VITLITE_ISA_CALL(ssim_workspace(problem));
  for_strips(images, problem.height, [&](int64_t plane, int64_t begin, int64_t end) {
    const SsimBackwardStrip strip{images.plane(swap ? images.y : images.x, plane),
                                  images.plane(swap ? images.x : images.y, plane),
                                  reduction == kNone ? map + plane * grad_bytes : nullptr,
                                  scale,
                                  (swap ? to_y : to_x) + plane * image_bytes,
                                  need_x && need_y ? to_y + plane * image_bytes : nullptr,
                                  begin,
                                  end};
    VITLITE_ISA_CALL(ssim_backward_strip(seen, strip, thread_memory(bytes)));
  });
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CPU, m) {
  m.impl("ssim_forward", TORCH_BOX(&vitlite::ssim_forward));
  m.impl("ssim_backward", TORCH_BOX(&vitlite::ssim_backward));
}
