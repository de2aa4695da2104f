// SSIM under a window of 11, forward and backward. A block walks down a strip of a tile of columns with the rows of
// kRows steps in shared memory: each thread filters down one column, with the unfinished sums in registers; then the
// threads share out the rows and filter along them. The backward pass does so twice, for the moments and for the
// derivatives of SSIM by them. So the images are read once (twice backward) and only results are written.

#include "ssim.h"

#include "launch.h"
#include "numbers.h"

namespace vitlite::device {
namespace {

constexpr int kMoments = 4;

// One approximate reciprocal and a correction, which gives exactly one for equal numbers. The divisors of SSIM are at
// least its constants, and so no subnormal numbers.
VITLITE_HD float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  const float result = a * inverse;
  return fma(fma(-result, b, a), inverse, result);
#else
  return a / b;
#endif
}
VITLITE_HD double quotient(double a, double b) { return a / b; }

template <class T>
VITLITE_HD T bounded(T a) {
  return a > T(1) ? T(1) : a < T(-1) ? T(-1) : a;
}

#include "../common/ssim_point.h"

template <class T>
__device__ inline SsimConstants<T> constants_of(const SsimProblem& problem) {
  return {T(problem.c1), T(problem.c2), T(1)};
}

// The first pixel of a plane.
template <class In>
__device__ inline const In* x_plane(const SsimProblem& p, int64_t plane) {
  return static_cast<const In*>(p.x) + plane / p.channels * p.x_batch + plane % p.channels * p.x_channel;
}
template <class In>
__device__ inline const In* y_plane(const SsimProblem& p, int64_t plane) {
  return static_cast<const In*>(p.y) + plane / p.channels * p.y_batch + plane % p.channels * p.y_channel;
}

constexpr int kReach = kWindow - 1;

// Sizes for which neither the registers nor the 48 KiB of shared memory overflow, with two blocks to a multiprocessor in
// float and one in double.
template <class T>
struct Sizes {
  static constexpr bool wide = sizeof(T) == 8;
  static constexpr int run = wide ? 2 : 4;  // neighbouring results of a row that one thread filters
  static constexpr int blocks = wide ? 1 : 2;
  static constexpr int forward_threads = wide ? 160 : 288, forward_rows = wide ? 4 : 8;
  static constexpr int backward_threads = wide ? 160 : 192, backward_rows = wide ? 4 : 6;
};

// Places for one row: the filter along it reads whole runs, a little beyond what the threads write.
VITLITE_HD constexpr int pitch_for(int threads) { return threads + 8; }

// Half of the symmetric window with its middle, w(k) for k = 0 .. kReach, and the constants of SSIM: kernel parameters,
// which take no registers.
template <class T>
struct Weights {
  T half[kReach / 2 + 1];
  T c1, c2;

  VITLITE_HD T operator()(int k) const { return half[k <= kReach / 2 ? k : kReach - k]; }
};

// The filter down the columns of some maps, for one column: the sums that later rows will finish.
template <class T, int kMaps>
struct Column {
  T open[kMaps][kReach];

  VITLITE_HD void clear() {
#pragma unroll
    for (int m = 0; m < kMaps; ++m) {
#pragma unroll
      for (int k = 0; k < kReach; ++k) open[m][k] = T(0);
    }
  }
  // Takes the next row's value and returns the sum that it finishes, of this and the kReach values before.
  VITLITE_HD T push(int m, T value, const Weights<T>& w) {
    const T done = fma(w(kReach), value, open[m][0]);
#pragma unroll
    for (int k = 0; k + 1 < kReach; ++k) open[m][k] = fma(w(kReach - 1 - k), value, open[m][k + 1]);
    open[m][kReach - 1] = w(0) * value;
    return done;
  }
};

// The filter along a row for a run of neighbours; `from` is the first number of the first window.
template <class T>
__device__ inline void filter_along(const T* from, const Weights<T>& w, T* sums) {
  constexpr int kRun = Sizes<T>::run, kPack = 16 / sizeof(T), kNear = (kRun + kReach + kPack - 1) / kPack * kPack;
  T near[kNear];
#pragma unroll
  for (int i = 0; i < kNear; i += kPack) {
    const Pack<T, kPack> pack = *reinterpret_cast<const Pack<T, kPack>*>(from + i);
#pragma unroll
    for (int j = 0; j < kPack; ++j) near[i + j] = pack.v[j];
  }
#pragma unroll
  for (int c = 0; c < kRun; ++c) {
    sums[c] = w(0) * near[c];
#pragma unroll
    for (int k = 1; k <= kReach; ++k) sums[c] = fma(w(k), near[c + k], sums[c]);
  }
}

// Runs of a row in memory, of which the first n are there; `whole` if the run is aligned and complete.
template <class In, class T>
__device__ inline void load_run(const In* from, int n, T* to) {
#pragma unroll
  for (int c = 0; c < Sizes<T>::run; ++c) to[c] = c < n ? number(from[c]) : T(0);
}

template <class Out, class T>
__device__ inline void store_run(const T* from, int n, bool whole, Out* to) {
  constexpr int kRun = Sizes<T>::run;
  if (whole) {
    Pack<Out, kRun> pack;
#pragma unroll
    for (int c = 0; c < kRun; ++c) assign(pack.v[c], from[c]);
    *reinterpret_cast<Pack<Out, kRun>*>(to) = pack;
  } else {
#pragma unroll
    for (int c = 0; c < kRun; ++c) {
      if (c < n) assign(to[c], from[c]);
    }
  }
}

// Shares out the runs of some rows among the threads, without a division for each.
struct Turns {
  int runs, row, run, rows_on, runs_on;

  __device__ Turns(int columns, int length) : runs((columns + length - 1) / length) {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    row = thread / runs;
    run = thread % runs;
    rows_on = threads / runs;
    runs_on = threads % runs;
  }
  __device__ void next() {
    row += rows_on;
    run += runs_on;
    if (run >= runs) {
      run -= runs;
      ++row;
    }
  }
};

// Where a job lies.
struct Place {
  int64_t plane, left, begin;  // first column and row of the results
  int columns, rows;

  __device__ Place(const SsimCut& cut, int64_t job, int64_t width, int64_t height) {
    const int64_t strip = job % cut.strips, tile = job / cut.strips % cut.tiles;
    plane = job / cut.strips / cut.tiles;
    left = tile * cut.tile;
    columns = static_cast<int>(left + cut.tile < width ? cut.tile : width - left);
    begin = strip * cut.strip;
    rows = static_cast<int>(begin + cut.strip < height ? cut.strip : height - begin);
  }
};

// The thread's column of both images, from the first row on that a strip needs, padding included.
template <class In>
struct Source {
  const In* x;
  const In* y;
  int first, last;  // rows that are there, none in a column of padding

  __device__ Source(const SsimProblem& p, int64_t plane, int64_t top, int64_t column, int rows, bool wanted)
      : x(x_plane<In>(p, plane) + top * p.x_row + column), y(y_plane<In>(p, plane) + top * p.y_row + column) {
    const bool inside = wanted && column >= 0 && column < p.width;
    first = top < 0 ? static_cast<int>(-top) : 0;
    last = !inside ? 0 : top + rows < p.height ? rows : static_cast<int>(p.height - top);
  }
};

// The first half of both passes: filters kRows more rows of the images, from `step` on, down the columns into `moments`.
template <int kRows, class In, class T>
__device__ inline void filter_images(Source<In>& from, const SsimProblem& p, int step, const Weights<T>& w,
                                     Column<T, kMoments>& column, T* moments, int pitch) {
  T a[kRows], b[kRows];
  const In* x = from.x;
  const In* y = from.y;
  if (step >= from.first && step + kRows <= from.last) {
#pragma unroll
    for (int r = 0; r < kRows; ++r, x += p.x_row, y += p.y_row) {
      a[r] = number(*x);
      b[r] = number(*y);
    }
  } else {
#pragma unroll
    for (int r = 0; r < kRows; ++r, x += p.x_row, y += p.y_row) {
      const bool there = step + r >= from.first && step + r < from.last;
      a[r] = there ? number(*x) : T(0);
      b[r] = there ? number(*y) : T(0);
    }
  }
  from.x = x;
  from.y = y;
  T* to = moments + threadIdx.x;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const T squares = a[r] * a[r] + b[r] * b[r], product = a[r] * b[r];
    to[(0 * kRows + r) * pitch] = column.push(0, a[r], w);
    to[(1 * kRows + r) * pitch] = column.push(1, b[r], w);
    to[(2 * kRows + r) * pitch] = column.push(2, squares, w);
    to[(3 * kRows + r) * pitch] = column.push(3, product, w);
  }
}

template <class In>
__global__ void __launch_bounds__(Sizes<Compute<In>>::forward_threads, Sizes<Compute<In>>::blocks)
    ssim_forward_kernel(const SsimProblem p, const SsimCut cut, const Weights<Compute<In>> w, Compute<In>* map,
                        double* sums) {
  typedef Compute<In> T;
  constexpr int kRun = Sizes<T>::run, kRows = Sizes<T>::forward_rows;
  T* moments = shared_memory<T>();  // (kMoments, kRows, pitch)
  const int pitch = pitch_for(static_cast<int>(blockDim.x)), thread = static_cast<int>(threadIdx.x);
  const SsimConstants<T> constants{w.c1, w.c2, T(1)};
  for (int64_t job = blockIdx.x; job < cut.jobs; job += gridDim.x) {
    const Place at(cut, job, p.out_width, p.out_height);
    const int steps = at.rows + kReach;
    Source<In> source(p, at.plane, at.begin - p.pad, at.left - p.pad + thread, steps, thread < at.columns + kReach);
    T* results = map == nullptr ? nullptr : map + (at.plane * p.out_height + at.begin) * p.out_width + at.left;
    Column<T, kMoments> column;
    column.clear();
    double total = 0;
    for (int step = 0; step < steps; step += kRows) {
      filter_images<kRows>(source, p, step, w, column, moments, pitch);
      __syncthreads();
      for (Turns turn(at.columns, kRun); turn.row < kRows; turn.next()) {
        const int r = step - kReach + turn.row;  // of the strip of the map
        if (r < 0 || r >= at.rows) continue;
        T m[kMoments][kRun], values[kRun];
#pragma unroll
        for (int i = 0; i < kMoments; ++i) {
          filter_along(moments + (i * kRows + turn.row) * pitch + turn.run * kRun, w, m[i]);
        }
#pragma unroll
        for (int c = 0; c < kRun; ++c) values[c] = ssim_value(m[0][c], m[1][c], m[2][c], m[3][c], constants);
        const int n = at.columns - turn.run * kRun;
        if (results != nullptr) {
          store_run(values, n, n >= kRun && p.out_width % kRun == 0, results + r * p.out_width + turn.run * kRun);
        } else {
          T sum = T(0);
#pragma unroll
          for (int c = 0; c < kRun; ++c) sum += c < n ? values[c] : T(0);
          total += static_cast<double>(sum);
        }
      }
      __syncthreads();
    }
    if (sums != nullptr) {
      total = block_sum(total, reinterpret_cast<double*>(moments));
      if (thread == 0) sums[job] = total;
    }
  }
}

// Derivatives by the moments in the order in which they are kept: that by the mean of y last, which only the gradient of
// y needs.
constexpr int kByMeanX = 0, kBySquares = 1, kByProduct = 2, kByMeanY = 3;

// The slopes at a run of places of a row of the map, from `column` on, none beside its `columns`; to[i * map_pitch] are
// those by the i-th moment.
template <int kSlopes, class T>
__device__ inline void write_slopes(const T* moments, int map_pitch, const Weights<T>& w,
                                    const SsimConstants<T>& constants, const T* grads, T scale, int64_t column,
                                    int64_t columns, T* to) {
  constexpr int kRun = Sizes<T>::run;
  T m[kMoments][kRun], all[kSlopes][kRun];
#pragma unroll
  for (int i = 0; i < kMoments; ++i) filter_along(moments + i * map_pitch, w, m[i]);
#pragma unroll
  for (int c = 0; c < kRun; ++c) {
    const bool there = column + c >= 0 && column + c < columns;
    const T grad = grads == nullptr ? scale : there ? grads[c] : T(0);
    const SsimSlopes<T> found = ssim_slopes(grad, m[0][c], m[1][c], m[2][c], m[3][c], constants);
    all[kByMeanX][c] = there ? found.mean_x : T(0);
    all[kBySquares][c] = there ? found.squares : T(0);
    all[kByProduct][c] = there ? found.product : T(0);
    if constexpr (kSlopes == 4) all[kByMeanY][c] = there ? found.mean_y : T(0);
  }
#pragma unroll
  for (int i = 0; i < kSlopes; ++i) store_run(all[i], kRun, true, to + i * map_pitch);
}

template <class In, bool both>
__global__ void __launch_bounds__(Sizes<Compute<In>>::backward_threads, Sizes<Compute<In>>::blocks)
    ssim_backward_kernel(const SsimProblem p, const SsimCut cut, const Weights<Compute<In>> w,
                         const SsimGradients gradients) {
  typedef Compute<In> T;
  constexpr int kRun = Sizes<T>::run, kRows = Sizes<T>::backward_rows, kSlopes = both ? 4 : 3;
  const int pitch = pitch_for(static_cast<int>(blockDim.x)), thread = static_cast<int>(threadIdx.x);
  T* moments = shared_memory<T>();                 // (kMoments, kRows, pitch), and what is gathered
  T* slopes = moments + kMoments * kRows * pitch;  // (kSlopes, kRows, pitch)
  const SsimConstants<T> constants{w.c1, w.c2, T(1)};
  const T* grads = static_cast<const T*>(gradients.grad);
  const T scale = gradients.by_map ? T(0) : T(static_cast<double>(grads[0]) / gradients.divisor);
  const int64_t back = kReach - p.pad;  // a pixel is in windows that reach this far to the left and up in the map
  for (int64_t job = blockIdx.x; job < cut.jobs; job += gridDim.x) {
    const Place at(cut, job, p.width, p.height);
    const int steps = at.rows + 2 * kReach;
    Source<In> source(p, at.plane, at.begin - kReach, at.left - kReach + thread, steps,
                      thread < at.columns + 2 * kReach);
    // The place of the map that the first step belongs to, were there rows enough above it.
    const int64_t map_row = at.begin - back - kReach, map_left = at.left - back;
    Column<T, kMoments> column;
    Column<T, kSlopes> gathered;
    column.clear();
    gathered.clear();
    for (int step = 0; step < steps; step += kRows) {
      filter_images<kRows>(source, p, step, w, column, moments, pitch);
      __syncthreads();
      for (Turns turn(at.columns + kReach, kRun); turn.row < kRows; turn.next()) {
        const int64_t row = map_row + step + turn.row, left = map_left + turn.run * kRun;
        const int place = turn.row * pitch + turn.run * kRun;
        if (row >= 0 && row < p.out_height && step + turn.row >= kReach) {
          const T* here = gradients.by_map ? grads + (at.plane * p.out_height + row) * p.out_width + left : nullptr;
          write_slopes<kSlopes>(moments + place, kRows * pitch, w, constants, here, scale, left, p.out_width,
                                slopes + place);
        } else {
          const T none[kRun] = {};
#pragma unroll
          for (int i = 0; i < kSlopes; ++i) store_run(none, kRun, true, slopes + i * kRows * pitch + place);
        }
      }
      __syncthreads();
      if (thread < at.columns + kReach) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int i = 0; i < kSlopes; ++i) {
            const int place = (i * kRows + r) * pitch + thread;
            moments[place] = gathered.push(i, slopes[place], w);
          }
        }
      }
      __syncthreads();
      for (Turns turn(at.columns, kRun); turn.row < kRows; turn.next()) {
        const int r = step - 2 * kReach + turn.row;  // of the strip
        if (r < 0 || r >= at.rows) continue;
        T sums[kSlopes][kRun], a[kRun], b[kRun], result[kRun];
#pragma unroll
        for (int i = 0; i < kSlopes; ++i) {
          filter_along(moments + (i * kRows + turn.row) * pitch + turn.run * kRun, w, sums[i]);
        }
        const int n = at.columns - turn.run * kRun;
        // From the thread's own column, which is already at the rows of the next step.
        const int rows_on = turn.row - kRows - kReach, columns_on = turn.run * kRun + kReach - thread;
        load_run(source.x + rows_on * p.x_row + columns_on, n, a);
        load_run(source.y + rows_on * p.y_row + columns_on, n, b);
        const int64_t to = (at.plane * p.height + at.begin + r) * p.width + at.left + turn.run * kRun;
        const bool whole = n >= kRun && p.width % kRun == 0;
#pragma unroll
        for (int c = 0; c < kRun; ++c) {
          result[c] = ssim_pixel(sums[kByMeanX][c], sums[kBySquares][c], sums[kByProduct][c], a[c], b[c]);
        }
        store_run(result, n, whole, static_cast<In*>(gradients.x) + to);
        if constexpr (both) {
#pragma unroll
          for (int c = 0; c < kRun; ++c) {
            result[c] = ssim_pixel(sums[kByMeanY][c], sums[kBySquares][c], sums[kByProduct][c], b[c], a[c]);
          }
          store_run(result, n, whole, static_cast<In*>(gradients.y) + to);
        }
      }
      __syncthreads();
    }
  }
}

// A tile is as wide as the threads of a block allow less the `halo`. Planes are cut into as many strips, each of which
// costs a halo of rows that are only filtered down the columns, as make the rounds in which all blocks run the shortest.
SsimCut cut_for(int64_t planes, int64_t height, int64_t width, int halo, int most_threads, int multiprocessors) {
  constexpr int64_t kFewestRows = 32, kMostRows = 1 << 20, kMostStrips = 64, kRun = Sizes<float>::run;
  SsimCut cut;
  const int64_t widest = (most_threads - halo) / kRun * kRun;
  cut.tiles = (width + widest - 1) / widest;
  cut.tile = ((width + cut.tiles - 1) / cut.tiles + kRun - 1) / kRun * kRun;
  cut.threads = static_cast<int>((cut.tile + halo + 31) / 32 * 32);
  const int64_t whole = planes * cut.tiles, together = int64_t{Sizes<float>::blocks} * multiprocessors;
  const int64_t fewest = height / kMostRows + 1;
  const int64_t most = height / kFewestRows < kMostStrips ? height / kFewestRows : kMostStrips;
  int64_t best = 0;
  for (int64_t strips = fewest; strips == fewest || strips <= most; ++strips) {
    const int64_t strip = (height + strips - 1) / strips, used = (height + strip - 1) / strip;
    const int64_t rounds = (whole * used + together - 1) / together, time = rounds * (2 * strip + halo);
    if (strips > fewest && time >= best) continue;
    best = time;
    cut.strip = strip;
    cut.strips = used;
  }
  cut.jobs = whole * cut.strips;
  return cut;
}

template <class T>
Weights<T> weights_of(const SsimProblem& p) {
  Weights<T> weights;
  for (int k = 0; k <= kReach / 2; ++k) weights.half[k] = T(p.weights[k]);
  weights.c1 = T(p.c1);
  weights.c2 = T(p.c2);
  return weights;
}

// One block.
template <class T>
__global__ void sum_kernel(const double* sums, int64_t count, double divisor, T* result) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) mine += sums[i];
  mine = block_sum(mine, shared_memory<double>());
  if (threadIdx.x == 0) result[0] = T(mine / divisor);
}

template <class T>
const char* sum_of(const double* sums, int64_t count, double divisor, void* result, void* stream) {
  constexpr int kThreads = 256;
  return launch(sum_kernel<T>, 1, kThreads, int64_t{kThreads} * sizeof(double), stream, sums, count, divisor,
                static_cast<T*>(result));
}

template <class T>
int64_t shared_bytes(int threads, int maps, int rows) {
  return int64_t{maps} * rows * pitch_for(threads) * static_cast<int64_t>(sizeof(T));
}

}  // namespace

SsimCut ssim_forward_cut(const SsimProblem& p, int multiprocessors) {
  const int threads = p.kind == Kind::float64 ? Sizes<double>::forward_threads : Sizes<float>::forward_threads;
  return cut_for(p.planes, p.out_height, p.out_width, kReach, threads, multiprocessors);
}

SsimCut ssim_backward_cut(const SsimProblem& p, int multiprocessors) {
  const int threads = p.kind == Kind::float64 ? Sizes<double>::backward_threads : Sizes<float>::backward_threads;
  return cut_for(p.planes, p.height, p.width, 2 * kReach, threads, multiprocessors);
}

const char* ssim_forward(const SsimProblem& p, const SsimCut& cut, void* map, double* sums, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    typedef decltype(in) In;
    typedef Compute<In> T;
    return launch(ssim_forward_kernel<In>, blocks_for(cut.jobs), cut.threads,
                  shared_bytes<T>(cut.threads, kMoments, Sizes<T>::forward_rows), stream, p, cut, weights_of<T>(p), static_cast<T*>(map), sums);
  });
}

const char* ssim_backward(const SsimProblem& p, const SsimCut& cut, const SsimGradients& gradients, void* stream) {
  return with_kind(p.kind, [&](auto in) {
    typedef decltype(in) In;
    typedef Compute<In> T;
    const auto kernel = gradients.y == nullptr ? ssim_backward_kernel<In, false> : ssim_backward_kernel<In, true>;
    const int maps = kMoments + (gradients.y == nullptr ? 3 : 4);
    return launch(kernel, blocks_for(cut.jobs), cut.threads,
                  shared_bytes<T>(cut.threads, maps, Sizes<T>::backward_rows), stream, p, cut,
                  weights_of<T>(p), gradients);
  });
}

const char* ssim_sum(Kind kind, const double* sums, int64_t count, double divisor, void* result, void* stream) {
  const auto sum = kind == Kind::float64 ? sum_of<double> : sum_of<float>;
  return sum(sums, count, divisor, result, stream);
}

const char* device_multiprocessors(int* count) {
  return multiprocessors(count);
}

}  // namespace vitlite::device
