// SSIM under a window of any length: filters along the rows and down the columns go through a workspace in memory, with
// a thread for each place. Slower than ssim.cu, which has the usual window.

#include "launch.h"
#include "numbers.h"
#include "ssim.h"
#include "ssim_device.h"

namespace vitlite::device {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 4096;

// Four maps of so many places each, one after the other.
template <class T>
struct Maps {
  T* data;
  int64_t size;

  __device__ T& at(int map, int64_t place) const { return data[map * size + place]; }
};

struct Range {
  int64_t low, high;

  // The window's elements k that meet rows or columns 0 .. n - 1 when its first is at `start`.
  __device__ Range(int64_t start, int64_t window, int64_t n)
      : low(start < 0 ? -start : 0), high(start + window < n ? window : n - start) {}
};

// One block; the weights sum to one.
template <class T>
__global__ void any_weights_kernel(int64_t size, double sigma, T* weights) {
  double* scratch = shared_memory<double>();
  double sum = 0;
  for (int pass = 0; pass < 2; ++pass) {
    double mine = 0;
    for (int64_t k = threadIdx.x; k < size; k += blockDim.x) {
      const double offset = static_cast<double>(k - size / 2);
      const double weight = sigma > 0 ? ::exp(-offset * offset / (2 * sigma * sigma)) : 1.0;
      mine += weight;
      if (pass == 1) weights[k] = T(weight / sum);
    }
    if (pass == 0) sum = block_sum(mine, scratch);
  }
}

// Images to moments, filtered along the rows: (kMoments, planes, height, out_width).
template <class In>
__global__ void __launch_bounds__(kThreads)
    any_rows_kernel(const SsimProblem p, int64_t first, const Compute<In>* weights, Maps<Compute<In>> to) {
  typedef Compute<In> T;
  for (int64_t place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; place < to.size;
       place += int64_t{gridDim.x} * blockDim.x) {
    const int64_t column = place % p.out_width, row = place / p.out_width % p.height;
    const int64_t plane = first + place / p.out_width / p.height, start = column - p.pad;
    const In* x = x_plane<In>(p, plane) + row * p.x_row + start;
    const In* y = y_plane<In>(p, plane) + row * p.y_row + start;
    const Range range(start, p.window, p.width);
    T sums[kMoments] = {};
    for (int64_t k = range.low; k < range.high; ++k) {
      const T a = number(x[k]), b = number(y[k]), w = weights[k];
      sums[0] = fma(w, a, sums[0]);
      sums[1] = fma(w, b, sums[1]);
      sums[2] = fma(w, a * a + b * b, sums[2]);
      sums[3] = fma(w, a * b, sums[3]);
    }
    for (int i = 0; i < kMoments; ++i) to.at(i, place) = sums[i];
  }
}

// The moments at a place of the map, from rows that are already filtered.
template <class T>
__device__ inline void filter_down(const SsimProblem& p, const T* weights, const Maps<T>& rows, int64_t place,
                                   T* sums) {
  const int64_t column = place % p.out_width, row = place / p.out_width % p.out_height;
  const int64_t plane = place / p.out_width / p.out_height, start = row - p.pad;
  const Range range(start, p.window, p.height);
  for (int i = 0; i < kMoments; ++i) sums[i] = T(0);
  for (int64_t k = range.low; k < range.high; ++k) {
    const int64_t from = (plane * p.height + start + k) * p.out_width + column;
    for (int i = 0; i < kMoments; ++i) sums[i] = fma(weights[k], rows.at(i, from), sums[i]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    any_values_kernel(const SsimProblem p, int64_t places, const T* weights, Maps<T> rows, T* map, double* sums) {
  double* scratch = shared_memory<double>();
  const SsimConstants<T> constants = constants_of<T>(p);
  double total = 0;
  for (int64_t place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; place < places;
       place += int64_t{gridDim.x} * blockDim.x) {
    T m[kMoments];
    filter_down(p, weights, rows, place, m);
    const T value = ssim_value(m[0], m[1], m[2], m[3], constants);
    if (map != nullptr) map[place] = value;
    total += static_cast<double>(value);
  }
  if (sums != nullptr) {
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
  }
}

// Derivatives by the moments: (kMoments, planes, out_height, out_width), by the means of x and y, the squares and the
// product.
template <class T>
__global__ void __launch_bounds__(kThreads)
    any_slopes_kernel(const SsimProblem p, const T* weights, Maps<T> rows, const T* grads, bool by_map, double divisor,
                      Maps<T> to) {
  const SsimConstants<T> constants = constants_of<T>(p);
  const T scale = by_map ? T(0) : T(static_cast<double>(grads[0]) / divisor);
  for (int64_t place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; place < to.size;
       place += int64_t{gridDim.x} * blockDim.x) {
    T m[kMoments];
    filter_down(p, weights, rows, place, m);
    const SsimSlopes<T> slopes = ssim_slopes(by_map ? grads[place] : scale, m[0], m[1], m[2], m[3], constants);
    to.at(0, place) = slopes.mean_x;
    to.at(1, place) = slopes.mean_y;
    to.at(2, place) = slopes.squares;
    to.at(3, place) = slopes.product;
  }
}

// Derivatives gathered along the rows: (kMoments, planes, out_height, width).
template <class T>
__global__ void __launch_bounds__(kThreads)
    any_gather_kernel(const SsimProblem p, const T* weights, Maps<T> slopes, Maps<T> to) {
  for (int64_t place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; place < to.size;
       place += int64_t{gridDim.x} * blockDim.x) {
    const int64_t column = place % p.width, row = place / p.width, start = column - (p.window - 1 - p.pad);
    const Range range(start, p.window, p.out_width);
    T sums[kMoments] = {};
    for (int64_t k = range.low; k < range.high; ++k) {
      for (int i = 0; i < kMoments; ++i) {
        sums[i] = fma(weights[k], slopes.at(i, row * p.out_width + start + k), sums[i]);
      }
    }
    for (int i = 0; i < kMoments; ++i) to.at(i, place) = sums[i];
  }
}

// The same down the columns, and the gradients of the pixels.
template <class In>
__global__ void __launch_bounds__(kThreads)
    any_pixels_kernel(const SsimProblem p, int64_t first, int64_t places, const Compute<In>* weights,
                      Maps<Compute<In>> rows, In* grad_x, In* grad_y) {
  typedef Compute<In> T;
  for (int64_t place = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; place < places;
       place += int64_t{gridDim.x} * blockDim.x) {
    const int64_t column = place % p.width, row = place / p.width % p.height, plane = place / p.width / p.height;
    const int64_t start = row - (p.window - 1 - p.pad);
    const Range range(start, p.window, p.out_height);
    T sums[kMoments] = {};
    for (int64_t k = range.low; k < range.high; ++k) {
      const int64_t from = (plane * p.out_height + start + k) * p.width + column;
      for (int i = 0; i < kMoments; ++i) sums[i] = fma(weights[k], rows.at(i, from), sums[i]);
    }
    const T a = number(x_plane<In>(p, first + plane)[row * p.x_row + column]);
    const T b = number(y_plane<In>(p, first + plane)[row * p.y_row + column]);
    assign(grad_x[place], ssim_pixel(sums[0], sums[2], sums[3], a, b));
    if (grad_y != nullptr) assign(grad_y[place], ssim_pixel(sums[1], sums[2], sums[3], b, a));
  }
}

// One block.
template <class T>
__global__ void sum_kernel(const double* sums, int64_t count, double divisor, T* result) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) mine += sums[i];
  mine = block_sum(mine, shared_memory<double>());
  if (threadIdx.x == 0) result[0] = T(mine / divisor);
}

constexpr int64_t kScratch = kThreads * sizeof(double);

int64_t blocks_of(int64_t places) {
  const int64_t blocks = (places + kThreads - 1) / kThreads;
  return blocks < kMostBlocks ? blocks : kMostBlocks;
}

const char* first_error(const char* a, const char* b) {
  return a != nullptr ? a : b;
}

template <class In>
const char* forward_of(const SsimProblem& p, int64_t first, int64_t planes, const void* weights_in, void* workspace,
                       void* map, double* sums, void* stream) {
  typedef Compute<In> T;
  const T* weights = static_cast<const T*>(weights_in);
  const Maps<T> rows{static_cast<T*>(workspace), planes * p.height * p.out_width};
  const int64_t places = planes * p.out_height * p.out_width;
  const char* error =
      launch(any_rows_kernel<In>, blocks_of(rows.size), kThreads, 0, stream, p, first, weights, rows);
  return first_error(error, launch(any_values_kernel<T>, blocks_of(places), kThreads, kScratch, stream, p, places,
                                   weights, rows, static_cast<T*>(map), sums));
}

template <class In>
const char* backward_of(const SsimProblem& p, int64_t first, int64_t planes, const void* weights_in, void* workspace,
                        const SsimGradients& gradients, void* stream) {
  typedef Compute<In> T;
  const T* weights = static_cast<const T*>(weights_in);
  T* memory = static_cast<T*>(workspace);
  const int64_t places = planes * p.out_height * p.out_width, pixels = planes * p.height * p.width;
  const Maps<T> rows{memory, planes * p.height * p.out_width};
  const Maps<T> gathered{memory, planes * p.out_height * p.width};  // takes the place of the rows, later
  const Maps<T> slopes{memory + kMoments * pixels, places};
  const T* grads = static_cast<const T*>(gradients.grad);
  if (gradients.by_map) grads += first * p.out_height * p.out_width;
  const int64_t offset = first * p.height * p.width;
  In* to_x = static_cast<In*>(gradients.x) + offset;
  In* to_y = gradients.y == nullptr ? nullptr : static_cast<In*>(gradients.y) + offset;
  const char* error =
      launch(any_rows_kernel<In>, blocks_of(rows.size), kThreads, 0, stream, p, first, weights, rows);
  if (error == nullptr) {
    error = launch(any_slopes_kernel<T>, blocks_of(places), kThreads, 0, stream, p, weights, rows, grads,
                   gradients.by_map, gradients.divisor, slopes);
  }
  if (error == nullptr) {
    error = launch(any_gather_kernel<T>, blocks_of(gathered.size), kThreads, 0, stream, p, weights, slopes, gathered);
  }
  if (error == nullptr) {
    error = launch(any_pixels_kernel<In>, blocks_of(pixels), kThreads, 0, stream, p, first, pixels, weights, gathered,
                   to_x, to_y);
  }
  return error;
}

}  // namespace

int64_t ssim_any_workspace(const SsimProblem& p, int64_t planes, bool backward) {
  const int64_t places = p.out_height * p.out_width, pixels = p.height * p.width;
  return kMoments * planes * (backward ? pixels + places : p.height * p.out_width);
}

int64_t ssim_any_blocks(const SsimProblem& p, int64_t planes) {
  return blocks_of(planes * p.out_height * p.out_width);
}

const char* ssim_any_weights(const SsimProblem& p, void* weights, void* stream) {
  if (p.kind == Kind::float64) {
    return launch(any_weights_kernel<double>, 1, kThreads, kScratch, stream, p.window, p.sigma,
                  static_cast<double*>(weights));
  }
  return launch(any_weights_kernel<float>, 1, kThreads, kScratch, stream, p.window, p.sigma,
                static_cast<float*>(weights));
}

const char* ssim_any_forward(const SsimProblem& p, int64_t first, int64_t planes, const void* weights, void* workspace,
                             void* map, double* sums, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    return forward_of<decltype(in)>(p, first, planes, weights, workspace, map, sums, stream);
  });
}

const char* ssim_any_backward(const SsimProblem& p, int64_t first, int64_t planes, const void* weights,
                              void* workspace, const SsimGradients& gradients, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    return backward_of<decltype(in)>(p, first, planes, weights, workspace, gradients, stream);
  });
}

const char* ssim_sum(Kind kind, const double* sums, int64_t count, double divisor, void* result, void* stream) {
  if (kind == Kind::float64) {
    return launch(sum_kernel<double>, 1, kThreads, kScratch, stream, sums, count, divisor,
                  static_cast<double*>(result));
  }
  return launch(sum_kernel<float>, 1, kThreads, kScratch, stream, sums, count, divisor, static_cast<float*>(result));
}

}  // namespace vitlite::device
