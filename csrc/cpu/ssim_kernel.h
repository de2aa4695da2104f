// SSIM of one strip of one plane, forward and backward. No include guard, see each_isa.h.
//
// Both passes walk down the image with rings of rows: a row of the images gives one row of the four moments, filtered
// along the row; when enough rows are in the ring, the filter down the columns gives the moments of kBlock rows of the
// map. The backward pass has a second ring behind the first, for the derivatives of SSIM by the moments, which are
// filtered with the same (symmetric) window and gathered into the gradients of the pixels. So the images are read once
// or twice, and nothing but the result is written to memory.

#include "convert.h"
#include "ssim_window.h"

// Columns that one walk covers: the rings of the backward pass then fit into a level-2 cache.
template <class T>
constexpr int64_t kTile = 2048 / sizeof(T);

VL_INLINE int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

VL_INLINE int64_t max_of(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// Rows of several maps, of which the last `capacity` are kept.
template <class T>
struct Ring {
  T* data;
  int64_t capacity, pitch;
  int64_t next;  // the row to be written next

  VL_INLINE T* row(int64_t i) const {
    const int64_t slot = i % capacity;
    return data + (slot < 0 ? slot + capacity : slot) * kMoments * pitch;
  }
  VL_INLINE void gather(int64_t first, int64_t count, const T** rows) const {
    for (int64_t t = 0; t < count; ++t) rows[t] = row(first + t);
  }
};

// Memory of one walk, cut from one piece.
template <class T>
struct Arena {
  char* at;

  VL_INLINE T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(at);
    at += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
};

// A row long enough for `columns` results of a filter: the results and their neighbours are handled in whole vectors,
// and the squares and products start anywhere.
template <class T>
VL_INLINE int64_t pitch_for(int64_t columns, int64_t window) {
  const int64_t lanes = 64 / sizeof(T);
  return (columns + lanes - 1) / lanes * lanes + (window + lanes - 2) / lanes * lanes + lanes;
}

// The images are read once, at the pace of the arithmetic; the processor alone does not look far enough ahead.
constexpr int64_t kAhead = 4;

VL_INLINE void prefetch(const char* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at);
}

// The first half of both passes: images to moments.
template <class T, int K>
struct Moments {
  const SsimProblem* problem;
  Window<T, K> window;
  const char* x;
  const char* y;
  int64_t begin, end;  // columns of the map
  T* lines;            // one line each of x, y, x^2 + y^2 and x y
  Ring<T> ring;

  // Filters image rows along the row until row `until` (not included) is in the ring.
  void advance(int64_t until) {
    while (ring.next < until) {
      filter(ring.next, ring.row(ring.next));
      ++ring.next;
    }
  }

  // Points to the rows of the ring that `count` rows of the map from `r` on are made of.
  void rows_for(int64_t r, int64_t count, const T** rows) {
    const int64_t first = r - problem->pad;
    advance(first + window.size() - 1 + count);
    ring.gather(first, window.size() - 1 + kBlock, rows);
  }

  // The moments of kBlock rows of the map, for the vector of columns from j on; returns how many columns these are.
  VL_INLINE int64_t down(const T* const* rows, int64_t j, Vec<T> (*m)[kBlock]) const {
#pragma GCC unroll 4
    for (int i = 0; i < kMoments; ++i) window.down(rows, i * ring.pitch + j, m[i]);
    return min_of(Vec<T>::size, end - begin - j);
  }

  void filter(int64_t i, T* to) {
    const int64_t pitch = ring.pitch;
    if (i < 0 || i >= problem->height) {
      __builtin_memset(to, 0, kMoments * pitch * sizeof(T));
      return;
    }
    const int64_t start = begin - problem->pad;
    const int64_t low = max_of(0, start);
    const int64_t high = min_of(problem->width, end - problem->pad + window.size() - 1);
    const int64_t bytes = bytes_of(problem->kind);
    load_row(x + (i * problem->x_row + low) * bytes, problem->kind, lines + (low - start), high - low);
    load_row(y + (i * problem->y_row + low) * bytes, problem->kind, lines + pitch + (low - start), high - low);
    if (i + kAhead < problem->height) {
      prefetch(x + ((i + kAhead) * problem->x_row + low) * bytes, (high - low) * bytes);
      prefetch(y + ((i + kAhead) * problem->y_row + low) * bytes, (high - low) * bytes);
    }
    for (int64_t j = low - start; j < high - start; j += Vec<T>::size) {
      const Vec<T> a = Vec<T>::load(lines + j), b = Vec<T>::load(lines + pitch + j);
      (a * a + b * b).store(lines + 2 * pitch + j);
      (a * b).store(lines + 3 * pitch + j);
    }
    for (int m = 0; m < kMoments; ++m) {
      for (int64_t j = 0; j < end - begin; j += Vec<T>::size) {
        window.along(lines + m * pitch + j).store(to + m * pitch + j);
      }
    }
  }
};

template <class T>
VL_INLINE const T** take_pointers(Arena<T>& arena, int64_t count) {
  return reinterpret_cast<const T**>(arena.take(count * int64_t(sizeof(T*)) / int64_t(sizeof(T))));
}

// Weights in the dtype of the computation.
template <class T>
VL_INLINE const T* take_weights(const SsimProblem& problem, Arena<T>& arena) {
  T* weights = arena.take(problem.window);
  for (int64_t k = 0; k < problem.window; ++k) weights[k] = T(problem.weights[k]);
  return weights;
}

template <class T, int K>
VL_INLINE Moments<T, K> take_moments(const SsimProblem& problem, Window<T, K> window, const void* x, const void* y,
                                     int64_t begin, int64_t end, Arena<T>& arena) {
  const int64_t pitch = pitch_for<T>(end - begin, window.size());
  const int64_t capacity = window.size() - 1 + kBlock;
  T* lines = arena.take(kMoments * pitch);
  T* rows = arena.take(capacity * kMoments * pitch);
  // The columns of padding are never written again; the rows must only hold numbers before they are.
  __builtin_memset(lines, 0, kMoments * pitch * sizeof(T));
  __builtin_memset(rows, 0, capacity * kMoments * pitch * sizeof(T));
  return {&problem, window, static_cast<const char*>(x), static_cast<const char*>(y), begin, end, lines,
          {rows, capacity, pitch, 0}};
}

template <class T>
VL_INLINE Vec<T> quotient(Vec<T> a, Vec<T> b) {
  return a / b;
}

template <class T>
VL_INLINE Vec<T> bounded(Vec<T> a) {
  const Vec<T> most(T(1)), least(T(-1));
  return Vec<T>(a.v > most.v ? most.v : a.v < least.v ? least.v : a.v);
}

#include "../common/ssim_point.h"

template <class T>
VL_INLINE SsimConstants<Vec<T>> constants_of(const SsimProblem& problem) {
  return {Vec<T>(T(problem.c1)), Vec<T>(T(problem.c2)), Vec<T>(T(1))};
}

template <class T, int K>
void ssim_tile(const SsimProblem& problem, const SsimForwardStrip& strip, int64_t left, int64_t right, char* memory) {
  Arena<T> arena{memory};
  const Window<T, K> window{problem.window, take_weights<T>(problem, arena)};
  Moments<T, K> moments = take_moments<T, K>(problem, window, strip.x, strip.y, left, right, arena);
  const int64_t columns = right - left;
  const T** rows = take_pointers(arena, window.size() - 1 + kBlock);
  const SsimConstants<Vec<T>> constants = constants_of<T>(problem);
  T* map = static_cast<T*>(strip.map);
  moments.ring.next = strip.begin - problem.pad;
  for (int64_t r = strip.begin; r < strip.end; r += kBlock) {
    const int64_t count = min_of(kBlock, strip.end - r);
    moments.rows_for(r, count, rows);
    Vec<T> sums[kBlock];
    for (int v = 0; v < kBlock; ++v) sums[v] = Vec<T>(T(0));
    for (int64_t j = 0; j < columns; j += Vec<T>::size) {
      Vec<T> m[kMoments][kBlock];
      const int64_t lanes = moments.down(rows, j, m);
#pragma GCC unroll 8
      for (int v = 0; v < kBlock; ++v) {
        Vec<T> value = ssim_value(m[0][v], m[1][v], m[2][v], m[3][v], constants);
        if (map != nullptr) {
          if (v < count) value.store(map + (r + v) * problem.out_width + left + j, lanes);
        } else {
          if (lanes < Vec<T>::size) {
            T all[Vec<T>::size];
            value.store(all);
            value = Vec<T>::load(all, lanes);
          }
          sums[v] = sums[v] + value;
        }
      }
    }
    if (map == nullptr) {
      for (int64_t v = 0; v < count; ++v) strip.row_sums[r + v] += double(sums[v].sum());
    }
  }
}

// Where the derivative by the mean of y lies: the one that only the gradient of y needs.
constexpr int kByMeanY = 1;

// The second half of the backward pass: moments to derivatives to gradients.
template <class T, int K>
struct Gradients {
  const SsimProblem* problem;
  const SsimBackwardStrip* strip;
  Window<T, K> window;
  Moments<T, K> moments;
  int64_t begin, end;  // columns of the images
  int64_t back;        // the map reaches this far to the left and up from a pixel
  T* lines;            // kBlock lines each of the derivatives by the moments
  const T** rows;
  Ring<T> ring;

  // Brings rows of the map until row `until` (not included) into the ring, filtered along the row.
  void advance(int64_t until, int64_t last) {
    const int64_t pitch = ring.pitch, columns = end - begin;
    while (ring.next < until) {
      if (ring.next < 0 || ring.next >= problem->out_height) {
        __builtin_memset(ring.row(ring.next), 0, kMoments * pitch * sizeof(T));
        ++ring.next;
        continue;
      }
      const int64_t count = min_of(kBlock, min_of(last, problem->out_height) - ring.next);
      differentiate(ring.next, count);
      for (int64_t v = 0; v < count; ++v) {
        T* to = ring.row(ring.next + v);
        for (int m = 0; m < kMoments; ++m) {
          if (m == kByMeanY && strip->grad_y == nullptr) continue;
          const T* from = lines + (v * kMoments + m) * pitch;
          for (int64_t j = 0; j < columns; j += Vec<T>::size) window.along(from + j).store(to + m * pitch + j);
        }
      }
      ring.next += count;
    }
  }

  // Derivatives of the weighted sum of SSIM values by the moments, for rows r .. r + count of the map.
  void differentiate(int64_t r, int64_t count) {
    const int64_t columns = moments.end - moments.begin;
    moments.rows_for(r, count, rows);
    const T* grad_map = static_cast<const T*>(strip->grad_map);
    const SsimConstants<Vec<T>> constants = constants_of<T>(*problem);
    T* to = lines + (moments.begin - (begin - back));
    for (int64_t j = 0; j < columns; j += Vec<T>::size) {
      Vec<T> m[kMoments][kBlock];
      const int64_t lanes = moments.down(rows, j, m);
#pragma GCC unroll 8
      for (int v = 0; v < kBlock; ++v) {
        if (v >= count) break;
        Vec<T> grad{T(strip->grad)};
        if (grad_map != nullptr) {
          grad = Vec<T>::load(grad_map + (r + v) * problem->out_width + moments.begin + j, lanes);
        }
        const SsimSlopes<Vec<T>> slopes = ssim_slopes(grad, m[0][v], m[1][v], m[2][v], m[3][v], constants);
        T* line = to + v * kMoments * ring.pitch + j;
        slopes.mean_x.store(line, lanes);
        slopes.mean_y.store(line + ring.pitch, lanes);
        slopes.squares.store(line + 2 * ring.pitch, lanes);
        slopes.product.store(line + 3 * ring.pitch, lanes);
      }
    }
  }

  // Filters the ring's `rows` down the columns and writes gradient rows r .. r + count. `pixels` has kBlock lines each for
  // x, y and their gradients.
  void collect(int64_t r, int64_t count, T* pixels) {
    const int64_t pitch = ring.pitch, columns = end - begin, bytes = bytes_of(problem->kind), step = kBlock * pitch;
    const char* x = static_cast<const char*>(strip->x);
    const char* y = static_cast<const char*>(strip->y);
    for (int64_t v = 0; v < count; ++v) {
      load_row(x + ((r + v) * problem->x_row + begin) * bytes, problem->kind, pixels + v * pitch, columns);
      load_row(y + ((r + v) * problem->y_row + begin) * bytes, problem->kind, pixels + step + v * pitch, columns);
    }
    const bool both = strip->grad_y != nullptr;
    for (int64_t j = 0; j < columns; j += Vec<T>::size) {
      Vec<T> m[kMoments][kBlock];
#pragma GCC unroll 4
      for (int i = 0; i < kMoments; ++i) {
        if (i != kByMeanY || both) window.down(rows, i * pitch + j, m[i]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kBlock; ++v) {
        T* pixel = pixels + v * pitch + j;
        const Vec<T> a = Vec<T>::load(pixel), b = Vec<T>::load(pixel + step);
        ssim_pixel(m[0][v], m[2][v], m[3][v], a, b).store(pixel + 2 * step);
        if (both) ssim_pixel(m[1][v], m[2][v], m[3][v], b, a).store(pixel + 3 * step);
      }
    }
    for (int64_t v = 0; v < count; ++v) {
      const int64_t offset = ((r + v) * problem->width + begin) * bytes;
      store_row(pixels + 2 * step + v * pitch, static_cast<char*>(strip->grad_x) + offset, problem->kind, columns);
      if (both) {
        store_row(pixels + 3 * step + v * pitch, static_cast<char*>(strip->grad_y) + offset, problem->kind, columns);
      }
    }
  }
};

template <class T, int K>
void ssim_tile(const SsimProblem& problem, const SsimBackwardStrip& strip, int64_t left, int64_t right, char* memory) {
  Arena<T> arena{memory};
  const Window<T, K> window{problem.window, take_weights<T>(problem, arena)};
  const int64_t size = window.size(), back = size - 1 - problem.pad, columns = right - left;
  const int64_t map_left = max_of(0, left - back), map_right = min_of(problem.out_width, right + problem.pad);
  const int64_t pitch = pitch_for<T>(columns, size), capacity = size - 1 + 2 * kBlock, reach = size - 1 + kBlock;
  Moments<T, K> moments = take_moments<T, K>(problem, window, strip.x, strip.y, map_left, map_right, arena);
  T* lines = arena.take(kBlock * kMoments * pitch);
  T* ring = arena.take(capacity * kMoments * pitch);
  T* pixels = arena.take(4 * kBlock * pitch);
  const T** rows = take_pointers(arena, reach);
  __builtin_memset(lines, 0, kBlock * kMoments * pitch * sizeof(T));
  __builtin_memset(ring, 0, capacity * kMoments * pitch * sizeof(T));
  __builtin_memset(pixels, 0, 4 * kBlock * pitch * sizeof(T));
  Gradients<T, K> gradients{&problem, &strip, window, moments, left,
                            right,    back,   lines,  rows,    {ring, capacity, pitch, strip.begin - back}};
  gradients.moments.ring.next = max_of(0, strip.begin - back) - problem.pad;
  for (int64_t r = strip.begin; r < strip.end; r += kBlock) {
    const int64_t count = min_of(kBlock, strip.end - r);
    gradients.advance(r - back + size - 1 + count, strip.end - back + size - 1);
    gradients.ring.gather(r - back, reach, rows);
    gradients.collect(r, count, pixels);
  }
}

// Room for one tile of the backward pass, which needs more than the forward pass, with gaps that align every piece:
// kMoments lines and a ring of kMoments maps for the moments, the same with kBlock lines each for the derivatives, and
// 4 kBlock lines of pixels.
template <class T>
int64_t workspace(const SsimProblem& problem) {
  const int64_t columns = min_of(problem.width, kTile<T>) + 2 * problem.window + 4 * (64 / int64_t(sizeof(T)));
  const int64_t first = kMoments + kMoments * (problem.window + kBlock);
  const int64_t second = kMoments * kBlock + kMoments * (problem.window + 2 * kBlock) + 4 * kBlock;
  const int64_t small = (problem.window + kBlock) * int64_t(sizeof(T*)) + problem.window * int64_t(sizeof(T));
  return (first + second) * columns * int64_t(sizeof(T)) + small + 16 * 64;
}

VL_INLINE int64_t columns_of(const SsimProblem& problem, const SsimForwardStrip&) {
  return problem.out_width;
}

VL_INLINE int64_t columns_of(const SsimProblem& problem, const SsimBackwardStrip&) {
  return problem.width;
}

template <class T, int K, class Strip>
void ssim_tiles(const SsimProblem& problem, const Strip& strip, char* memory) {
  const int64_t columns = columns_of(problem, strip);
  for (int64_t left = 0; left < columns; left += kTile<T>) {
    ssim_tile<T, K>(problem, strip, left, min_of(left + kTile<T>, columns), memory);
  }
}

// The entry points. The default window length of the literature has code of its own.
constexpr int kUsualWindow = 11;

static int64_t ssim_workspace(const SsimProblem& problem) {
  return problem.kind == Kind::float64 ? workspace<double>(problem) : workspace<float>(problem);
}

// One strip of a plane, forward or backward.
template <class Strip>
void ssim_strip(const SsimProblem& problem, const Strip& strip, char* memory) {
  const bool usual = problem.window == kUsualWindow;
  if (problem.kind == Kind::float64) {
    (usual ? ssim_tiles<double, kUsualWindow, Strip> : ssim_tiles<double, 0, Strip>)(problem, strip, memory);
  } else {
    (usual ? ssim_tiles<float, kUsualWindow, Strip> : ssim_tiles<float, 0, Strip>)(problem, strip, memory);
  }
}

template void ssim_strip(const SsimProblem&, const SsimForwardStrip&, char*);
template void ssim_strip(const SsimProblem&, const SsimBackwardStrip&, char*);
