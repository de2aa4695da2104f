// Gaussian mixtures on the GPU: every mean and deviation is read once in each direction, in pieces of 16 bytes.

#include "gmm.h"

#include "launch.h"
#include "numbers.h"

namespace vitlite::device {
namespace {

#include "../common/gmm_point.h"

constexpr int kThreads = 128;
// Blocks of that size that one multiprocessor holds.
constexpr int64_t kResident = 16;

template <class T>
using Product = MantissaProduct<T, T, typename Layout<T>::Int, typename Layout<T>::Unsigned>;

template <class In>
__device__ inline const In* row_of(const GmmTable& table, int64_t t, int64_t k) {
  return static_cast<const In*>(table.data) + t * table.row_stride + k * table.component_stride;
}

template <class In, int n, class T>
__device__ inline void load(const In* from, T* to) {
  const Pack<In, n> pack = *reinterpret_cast<const Pack<In, n>*>(from);
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = number(pack.v[i]);
}

template <class Out, int n, class T>
__device__ inline void store(const T* from, Out* to) {
  Pack<Out, n> pack;
#pragma unroll
  for (int i = 0; i < n; ++i) assign(pack.v[i], from[i]);
  *reinterpret_cast<Pack<Out, n>*>(to) = pack;
}

// The sum over a group of neighbouring lanes, in every one of them.
template <int lanes>
__device__ inline double lanes_sum(double value) {
#pragma unroll
  for (int mask = lanes / 2; mask > 0; mask /= 2) value += from_lane(value, mask);
  return value;
}

// One lane's part of a component: the sum of squares of (y - mean) / std, and of the logarithms of its deviations.
template <class In, int n, int lanes, bool shared>
__device__ inline void add_elements(const In* y, const In* mean, const In* std, int64_t dims, int lane,
                                    double* squares, double* logs) {
  typedef Compute<In> T;
  constexpr double kLog2 = 0.69314718055994530942;
  Product<T> product(T(1));
  int64_t count = 0;  // deviations so far
  int recent = 0;     // of which in the product
  T same = T(1);
  if constexpr (shared) same = number(std[0]);
  for (int64_t d = int64_t{lane} * n; d < dims; d += lanes * n) {
    T a[n], b[n], s[n], sum = T(0);
    load<In, n>(y + d, a);
    load<In, n>(mean + d, b);
    if constexpr (!shared) load<In, n>(std + d, s);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      if constexpr (shared) s[i] = same;
      const T z = (a[i] - b[i]) / s[i];
      sum = fma(z, z, sum);
      if constexpr (!shared) product.add(s[i]);
    }
    *squares += static_cast<double>(sum);
    if constexpr (!shared) {
      count += n;
      recent += n;
      if (recent + n > Product<T>::kMost) {
        *logs += static_cast<double>(::log(product.product));
        product.product = T(1);
        recent = 0;
      }
    }
  }
  if constexpr (!shared) {
    // Each exponent is kept with a bias.
    const double exponents = static_cast<double>(product.exponent) - static_cast<double>(count) * Layout<T>::bias;
    *logs += static_cast<double>(::log(product.product)) + kLog2 * exponents;
    if (product.odd != 0) {
      *logs = 0;
      for (int64_t d = int64_t{lane} * n; d < dims; d += lanes * n) {
        for (int i = 0; i < n; ++i) *logs += static_cast<double>(::log(number(std[d + i])));
      }
    }
  }
}

// A group of lanes for each pair of a row and a component. If grad_std is null, log-densities without log weight and
// without -dims/2 log 2 pi; or else the gradient of a deviation that the dimensions of a component share.
template <class In, int n, int lanes, bool shared>
__global__ void __launch_bounds__(kThreads)
    gmm_pairs_kernel(const GmmProblem p, double* densities, const Compute<In>* shares, In* grad_std) {
  const int64_t pairs = p.rows * p.components, stride = int64_t{gridDim.x} * (kThreads / lanes);
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t begin = int64_t{blockIdx.x} * (kThreads / lanes);
  // All lanes of a warp go on together, those without a pair too.
  for (int64_t base = begin; base < pairs; base += stride) {
    const int64_t pair = base + threadIdx.x / lanes;
    const bool there = pair < pairs;
    const int64_t t = pair / p.components, k = pair % p.components;
    double squares = 0, logs = 0;
    if (there) {
      add_elements<In, n, lanes, shared>(static_cast<const In*>(p.y) + t * p.dims, row_of<In>(p.mean, t, k),
                                         row_of<In>(p.std, t, k), p.dims, lane, &squares, &logs);
    }
    squares = lanes_sum<lanes>(squares);
    if constexpr (!shared) logs = lanes_sum<lanes>(logs);
    if (!there || lane != 0) continue;
    if (grad_std != nullptr) {
      const double share = static_cast<double>(shares[pair]), dims = static_cast<double>(p.dims);
      // Where nothing is gained the deviation does not matter, and may be anything.
      const double slope = share * (squares - dims) / static_cast<double>(number(row_of<In>(p.std, t, k)[0]));
      assign(grad_std[pair], share == 0 ? Compute<In>(0) : Compute<In>(slope));
    } else {
      if (shared) logs = static_cast<double>(p.dims) * ::log(static_cast<double>(number(row_of<In>(p.std, t, k)[0])));
      densities[pair] = -0.5 * squares - logs;
    }
  }
}

__device__ inline double block_max(double value, double* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  scratch[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half && scratch[thread] < scratch[thread + half]) scratch[thread] = scratch[thread + half];
    __syncthreads();
  }
  const double top = scratch[0];
  __syncthreads();
  return top;
}

// Logarithm of the sum of exponentials of logits[k] (plus more[k] less `less`, if more is not null) over the block.
template <class In>
__device__ inline double log_sum_exp(const In* logits, const double* more, double less, int64_t n, double* scratch) {
  const double infinity = value_of<double>(Layout<double>::infinity);
  double top = -infinity;
  // Not unrolled, here and below: around a call of exp or log what is live must fit into the registers that calls keep.
#pragma unroll 1
  for (int64_t k = threadIdx.x; k < n; k += kThreads) {
    const double a = static_cast<double>(number(logits[k])), x = more == nullptr ? a : (a - less) + more[k];
    top = top < x ? x : top;
  }
  top = block_max(top, scratch);
  // Infinities would be subtracted from each other.
  if (top == infinity || top == -infinity) top = 0;
  double sum = 0;
#pragma unroll 1
  for (int64_t k = threadIdx.x; k < n; k += kThreads) {
    const double a = static_cast<double>(number(logits[k])), x = more == nullptr ? a : (a - less) + more[k];
    sum += ::exp(x - top);
  }
  return top + ::log(block_sum(sum, scratch));
}

// A block for each row. All in double: the shares of a mixture in many dimensions are differences of large numbers.
template <class In>
__global__ void __launch_bounds__(kThreads)
    gmm_likelihoods_kernel(const GmmProblem p, const double* densities, Compute<In>* likelihood,
                           Compute<In>* log_shares) {
  constexpr double kHalfLogTwoPi = 0.91893853320467274178;
  double* scratch = shared_memory<double>();
  for (int64_t t = blockIdx.x; t < p.rows; t += gridDim.x) {
    const In* logits = static_cast<const In*>(p.logits) + t * p.components;
    const double* density = densities + t * p.components;
    const double norm = log_sum_exp(logits, nullptr, 0.0, p.components, scratch);
    const double total = log_sum_exp(logits, density, norm, p.components, scratch);
#pragma unroll 1
    for (int64_t k = threadIdx.x; k < p.components; k += kThreads) {
      const double joint = (static_cast<double>(number(logits[k])) - norm) + density[k];
      log_shares[t * p.components + k] = Compute<In>(joint - total);
    }
    if (threadIdx.x == 0) likelihood[t] = Compute<In>(total - kHalfLogTwoPi * static_cast<double>(p.dims));
  }
}

template <class In>
__global__ void __launch_bounds__(kThreads)
    gmm_shares_kernel(const GmmProblem p, const GmmGradients to, Compute<In>* shares) {
  typedef Compute<In> T;
  double* scratch = shared_memory<double>();
  for (int64_t t = blockIdx.x; t < p.rows; t += gridDim.x) {
    const In* logits = static_cast<const In*>(p.logits) + t * p.components;
    const T* log_shares = static_cast<const T*>(to.log_shares) + t * p.components;
    const T grad = static_cast<const T*>(to.grad)[t];
    const double norm = log_sum_exp(logits, nullptr, 0.0, p.components, scratch);
#pragma unroll 1
    for (int64_t k = threadIdx.x; k < p.components; k += kThreads) {
      const T share = ::exp(log_shares[k]), weight = ::exp(T(static_cast<double>(number(logits[k])) - norm));
      if (to.logits != nullptr) assign(static_cast<In*>(to.logits)[t * p.components + k], (share - weight) * grad);
      shares[t * p.components + k] = share * grad;
    }
  }
}

// A thread for n columns of one row and for one part of the components, which it goes through: the gradient of y needs
// no other thread's numbers. `y_parts` is null if that is not wanted.
template <class In, int n, bool shared>
__global__ void __launch_bounds__(kThreads)
    gmm_gradients_kernel(const GmmProblem p, const Compute<In>* shares, int64_t parts, In* grad_mean, In* grad_std,
                         In* grad_y, Compute<In>* y_parts) {
  typedef Compute<In> T;
  const int64_t pieces = (p.dims / n + kThreads - 1) / kThreads, jobs = p.rows * parts * pieces;
  for (int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
    const int64_t d = (job % pieces * kThreads + threadIdx.x) * n;
    const int64_t part = job / pieces % parts, t = job / pieces / parts;
    if (d >= p.dims) continue;
    T a[n], total[n];
    load<In, n>(static_cast<const In*>(p.y) + t * p.dims + d, a);
#pragma unroll
    for (int i = 0; i < n; ++i) total[i] = T(0);
    const int64_t end = p.components * (part + 1) / parts;
    for (int64_t k = p.components * part / parts; k < end; ++k) {
      const int64_t pair = t * p.components + k;
      const T share = shares[pair];
      T by_mean[n], by_std[n];
      if (share == T(0)) {
        // Most components of a high-dimensional mixture; they need not be read.
#pragma unroll
        for (int i = 0; i < n; ++i) by_mean[i] = by_std[i] = T(0);
      } else {
        T b[n], s[n];
        load<In, n>(row_of<In>(p.mean, t, k) + d, b);
        if constexpr (shared) {
          const T same = number(row_of<In>(p.std, t, k)[0]);
#pragma unroll
          for (int i = 0; i < n; ++i) s[i] = same;
        } else {
          load<In, n>(row_of<In>(p.std, t, k) + d, s);
        }
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const T inverse = T(1) / s[i];
          const GmmSlopes<T> slopes = gmm_slopes((a[i] - b[i]) * inverse, inverse, share, T(-1));
          by_mean[i] = slopes.mean;
          by_std[i] = slopes.std;
          total[i] -= slopes.mean;
        }
      }
      if (grad_mean != nullptr) store<In, n>(by_mean, grad_mean + pair * p.dims + d);
      if (!shared && grad_std != nullptr) store<In, n>(by_std, grad_std + pair * p.dims + d);
    }
    if (y_parts != nullptr) {
#pragma unroll
      for (int i = 0; i < n; ++i) y_parts[(part * p.rows + t) * p.dims + d + i] = total[i];
    } else if (grad_y != nullptr) {
      store<In, n>(total, grad_y + t * p.dims + d);
    }
  }
}

// Adds up the parts (parts, count) in order.
template <class In>
__global__ void __launch_bounds__(kThreads)
    gmm_add_parts_kernel(const Compute<In>* from, int64_t parts, int64_t count, In* to) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    Compute<In> sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += from[part * count + i];
    assign(to[i], sum);
  }
}

constexpr int64_t kScratch = kThreads * sizeof(double);

bool aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

bool aligned(const GmmTable& table, int64_t n) {
  return aligned(table.data) && table.row_stride % n == 0 && table.component_stride % n == 0;
}

// Whether rows can be read in packs of n.
bool in_packs(const GmmProblem& p, int64_t n) {
  return p.dims % n == 0 && aligned(p.y) && aligned(p.mean, n) && (p.shared || aligned(p.std, n));
}

// Few lanes to a component if more would have nothing to do.
template <class In, int n, bool shared>
const char* pairs_of(const GmmProblem& p, double* densities, const void* shares, void* grad_std, int multiprocessors,
                     void* stream) {
  const bool few = p.dims <= 16 * n;
  const int64_t groups = kThreads / (few ? 8 : 32), needed = (p.rows * p.components + groups - 1) / groups;
  const int64_t resident = kResident * multiprocessors, blocks = needed < resident ? needed : resident;
  const auto kernel = few ? gmm_pairs_kernel<In, n, 8, shared> : gmm_pairs_kernel<In, n, 32, shared>;
  return launch(kernel, blocks, kThreads, 0, stream, p, densities, static_cast<const Compute<In>*>(shares),
                static_cast<In*>(grad_std));
}

template <class In>
const char* pairs_in(const GmmProblem& p, double* densities, const void* shares, void* grad_std, int multiprocessors,
                     void* stream) {
  constexpr int n = 16 / sizeof(In);
  const auto run = in_packs(p, n) ? (p.shared ? pairs_of<In, n, true> : pairs_of<In, n, false>)
                                  : (p.shared ? pairs_of<In, 1, true> : pairs_of<In, 1, false>);
  return run(p, densities, shares, grad_std, multiprocessors, stream);
}

template <class In>
const char* gradients_in(const GmmProblem& p, const GmmGradients& to, const void* shares, int64_t parts,
                         void* partial_y, void* stream) {
  typedef Compute<In> T;
  constexpr int n = 16 / sizeof(In);
  const bool packs = in_packs(p, n);
  const auto kernel = packs ? (p.shared ? gmm_gradients_kernel<In, n, true> : gmm_gradients_kernel<In, n, false>)
                            : (p.shared ? gmm_gradients_kernel<In, 1, true> : gmm_gradients_kernel<In, 1, false>);
  const int64_t pieces = (p.dims / (packs ? n : 1) + kThreads - 1) / kThreads;
  T* y_parts = parts > 1 && to.y != nullptr ? static_cast<T*>(partial_y) : nullptr;
  const char* error = launch(kernel, blocks_for(p.rows * parts * pieces), kThreads, 0, stream, p,
                             static_cast<const T*>(shares), parts, static_cast<In*>(to.mean), static_cast<In*>(to.std),
                             static_cast<In*>(to.y), y_parts);
  if (error != nullptr || y_parts == nullptr) return error;
  const int64_t count = p.rows * p.dims;
  return launch(gmm_add_parts_kernel<In>, blocks_for((count + kThreads - 1) / kThreads), kThreads, 0, stream,
                static_cast<const T*>(y_parts), parts, count, static_cast<In*>(to.y));
}

}  // namespace

const char* gmm_forward(const GmmProblem& p, double* densities, void* likelihood, void* log_shares,
                        int multiprocessors, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    typedef decltype(in) In;
    typedef Compute<In> T;
    const char* error = pairs_in<In>(p, densities, nullptr, nullptr, multiprocessors, stream);
    if (error != nullptr) return error;
    return launch(gmm_likelihoods_kernel<In>, blocks_for(p.rows), kThreads, kScratch, stream, p,
                  static_cast<const double*>(densities), static_cast<T*>(likelihood), static_cast<T*>(log_shares));
  });
}

const char* gmm_shares(const GmmProblem& p, const GmmGradients& gradients, void* shares, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    typedef decltype(in) In;
    return launch(gmm_shares_kernel<In>, blocks_for(p.rows), kThreads, kScratch, stream, p, gradients,
                  static_cast<Compute<In>*>(shares));
  });
}

int64_t gmm_parts(const GmmProblem& p, int multiprocessors) {
  const int64_t pack = 16 / bytes_of(p.kind), threads = in_packs(p, pack) ? p.dims / pack : p.dims;
  const int64_t blocks = p.rows * ((threads + kThreads - 1) / kThreads);
  const int64_t wanted = blocks > 0 ? kResident * multiprocessors / blocks : 1;
  const int64_t parts = wanted < p.components ? wanted : p.components;
  return parts > 1 ? parts : 1;
}

const char* gmm_gradients(const GmmProblem& p, const GmmGradients& gradients, const void* shares, int64_t parts,
                          void* partial_y, int multiprocessors, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    typedef decltype(in) In;
    const char* error = nullptr;
    if (p.shared && gradients.std != nullptr) {
      error = pairs_in<In>(p, nullptr, shares, gradients.std, multiprocessors, stream);
    }
    if (error != nullptr || (gradients.y == nullptr && gradients.mean == nullptr && (p.shared || !gradients.std))) {
      return error;
    }
    return gradients_in<In>(p, gradients, shares, parts, partial_y, stream);
  });
}

}  // namespace vitlite::device
