// SSIM (Wang et al. 2004, eq. 13) on the CPU: splits planes into strips of rows and gives them to threads.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "../common/library.h"
#include "../common/ssim_images.h"
#include "tensors.h"

namespace vitlite {

// What the kernels of every instruction set are told.

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

#define VITLITE_KERNEL "ssim_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

// Both images of one call, and what the kernels are told of them.
struct Images : SsimImages {
  IsaScope isa;
  SsimProblem problem;

  Images(const Tensor& x_in, const Tensor& y_in, int64_t window, double sigma, double data_range, bool same)
      : SsimImages(x_in, y_in, window, sigma, data_range, same) {
    problem = {kind, height,         width, out_height, out_width,   window,
               pad,  weights.data(), c1,    c2,         x.stride(2), y.stride(2)};
  }

  const void* plane(const Tensor& image, int64_t index) const {
    const int64_t offset = index / channels * image.stride(0) + index % channels * image.stride(1);
    return static_cast<const char*>(image.const_data_ptr()) + offset * bytes_of(kind);
  }
  int64_t compute_bytes() const {
    return kind == Kind::float64 ? 8 : 4;
  }
};

// Calls work(plane, begin, end) for strips that cover `rows` rows of every plane, on all threads. Few planes are cut
// into strips, which costs a window of rows more for each; tiny images stay on one thread.
template <class Work>
void for_strips(const Images& images, int64_t rows, const Work& work) {
  constexpr int64_t kFewestRows = 32, kPixelsPerThread = 1 << 13;
  const int64_t planes = images.planes, wanted = 4 * static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t cuts = std::max<int64_t>(1, std::min(wanted / std::max<int64_t>(planes, 1), rows / kFewestRows));
  const int64_t height = (rows + cuts - 1) / cuts, strips = (rows + height - 1) / height;
  const int64_t grain = std::max<int64_t>(1, kPixelsPerThread / (height * images.problem.width));
  parallel_for(0, planes * strips, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % strips * height;
      work(i / strips, begin, std::min(begin + height, rows));
    }
  });
}

Tensor ssim_forward(const Tensor& x, const Tensor& y, int64_t window_size, double sigma, double data_range, bool same,
                    int64_t reduction) {
  const Images images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& problem = images.problem;
  const int64_t rows = problem.out_height;
  const Tensor result =
      reduction == kNone ? in_huge_pages(images.new_map()) : empty(x, {}, compute_type(problem.kind));
  char* map = static_cast<char*>(result.mutable_data_ptr());
  const int64_t plane_bytes = images.places() * images.compute_bytes();
  // A sum for each row, added up in order: the result does not depend on the number of threads.
  std::vector<double> sums(reduction == kNone ? 0 : images.planes * rows, 0.0);
  const int64_t bytes = VITLITE_ISA_CALL(ssim_workspace(problem));
  for_strips(images, rows, [&](int64_t plane, int64_t begin, int64_t end) {
    const SsimForwardStrip strip{images.plane(images.x, plane),
                                 images.plane(images.y, plane),
                                 reduction == kNone ? map + plane * plane_bytes : nullptr,
                                 reduction == kNone ? nullptr : sums.data() + plane * rows,
                                 begin,
                                 end};
    VITLITE_ISA_CALL(ssim_strip(problem, strip, thread_memory(bytes)));
  });
  if (reduction != kNone) {
    double total = 0;
    for (const double sum : sums) total += sum;
    total /= images.divisor(reduction);
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
  const Images images(x, y, window_size, sigma, data_range, same);
  const SsimProblem& problem = images.problem;
  const Tensor grads = images.checked_gradient(grad, reduction);
  const Tensor grad_x = in_huge_pages(images.new_gradient(need_x));
  const Tensor grad_y = in_huge_pages(images.new_gradient(need_y));
  if (!need_x && !need_y) return {grad_x, grad_y};
  const char* map = static_cast<const char*>(grads.const_data_ptr());
  double scale = 0;
  if (reduction != kNone) {
    scale = problem.kind == Kind::float64 ? *reinterpret_cast<const double*>(map) : *reinterpret_cast<const float*>(map);
    scale /= images.divisor(reduction);
  }
  const int64_t grad_bytes = images.places() * images.compute_bytes();
  const int64_t image_bytes = problem.height * problem.width * bytes_of(problem.kind);
  char* to_x = static_cast<char*>(grad_x.mutable_data_ptr());
  char* to_y = static_cast<char*>(grad_y.mutable_data_ptr());
  // SSIM is symmetric: if only y needs its gradient, the two change places.
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
    VITLITE_ISA_CALL(ssim_strip(seen, strip, thread_memory(bytes)));
  });
  return {grad_x, grad_y};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("ssim_forward", TORCH_BOX(&vitlite::ssim_forward));
  m.impl("ssim_backward", TORCH_BOX(&vitlite::ssim_backward));
}
