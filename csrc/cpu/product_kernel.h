// Matrix products on panels. No include guard, see each_isa.h.
//
// The right factor is packed into panels of a few vectors of columns, cut every kDepth rows or fewer. A tile of the
// result, as many rows of a panel as the registers hold, is summed over such a cut without touching memory: the left
// factor comes from the level-1 cache, the panels, kGroup at a time, from level 2.

#include "vec_math.h"

template <class T>
constexpr int64_t kDepth = 1536 / sizeof(T);
constexpr int64_t kGroup = 12;

template <class T>
struct Tile {
  // With two vectors of the right factor and one number of the left these fill 31 or 15 of 32 or 16 registers.
#if defined(VL_AVX512)
  static constexpr int rows = 14;
#else
  static constexpr int rows = 6;
#endif
  static constexpr int vectors = 2;
  static constexpr int columns = vectors * Vec<T>::size;
};

VL_INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

template <class T>
int64_t product_tile_rows(const T*) {
  return Tile<T>::rows;
}

template <class T>
int64_t product_panel_columns(const T*) {
  return Tile<T>::columns;
}

// Rows of a cut: as few cuts as there must be, of about the same size.
template <class T>
VL_INLINE int64_t cut_rows(int64_t depth) {
  const int64_t cuts = depth > 0 ? (depth + kDepth<T> - 1) / kDepth<T> : 1;
  return ((depth + cuts - 1) / cuts + 7) / 8 * 8;
}

// Where a panel begins, in a cut that begins at row `cut` and has so many rows.
template <class T>
VL_INLINE int64_t panel_at(int64_t panel, int64_t cut, int64_t rows, int64_t panels) {
  return (cut * panels + panel * rows) * Tile<T>::columns;
}

// a0 b0 a1 b1 ..., from the lower (0) or upper (1) halves of a and b.
template <class T>
VL_INLINE Vec<T> zip(Vec<T> a, Vec<T> b, int half) {
  constexpr int lanes = Vec<T>::size;
#if defined(__clang__)
  T zipped[lanes];
  for (int i = 0; i < lanes; ++i) zipped[i] = (i % 2 ? b : a).v[half * lanes / 2 + i / 2];
  return Vec<T>::load(zipped);
#else
  typename Integers<T>::Native from;
  for (int i = 0; i < lanes; ++i) from[i] = half * lanes / 2 + i / 2 + i % 2 * lanes;
  return Vec<T>(__builtin_shuffle(a.v, b.v, from));
#endif
}

// Turns a square of vectors: zipping its halves as often as a power of two makes the number of lanes.
template <class T>
VL_INLINE void transpose(Vec<T>* square) {
  constexpr int lanes = Vec<T>::size;
#pragma GCC unroll 4
  for (int step = 1; step < lanes; step *= 2) {
    Vec<T> zipped[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) zipped[i] = zip(square[i / 2], square[i / 2 + lanes / 2], i % 2);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) square[i] = zipped[i];
  }
}

// A cut of a panel from columns whose elements follow each other.
template <class T>
VL_INLINE void pack_columns(const T* b, int64_t column_stride, int64_t depth, int64_t columns, T* to) {
  constexpr int64_t lanes = Vec<T>::size, width = Tile<T>::columns;
  for (int64_t k = 0; k < depth; k += lanes) {
    const int64_t count = least(lanes, depth - k);
    for (int64_t v = 0; v < width; v += lanes) {
      Vec<T> square[lanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < lanes; ++j) {
        square[j] = v + j < columns ? take(b + (v + j) * column_stride + k, depth - k) : Vec<T>(T(0));
      }
      transpose(square);
#pragma GCC unroll 16
      for (int64_t l = 0; l < lanes; ++l) {
        if (l < count) square[l].store(to + (k + l) * width + v);
      }
    }
  }
}

template <class T>
VL_INLINE void pack_rows(const T* b, int64_t row_stride, int64_t column_stride, int64_t depth, int64_t columns, T* to) {
  constexpr int64_t width = Tile<T>::columns;
  for (int64_t k = 0; k < depth; ++k, b += row_stride, to += width) {
    if (column_stride == 1 && columns == width) {
      for (int v = 0; v < Tile<T>::vectors; ++v) Vec<T>::load(b + v * Vec<T>::size).store(to + v * Vec<T>::size);
    } else {
      for (int64_t j = 0; j < width; ++j) to[j] = j < columns ? b[j * column_stride] : T(0);
    }
  }
}

// Some panels of b (depth, columns); past its last column they are filled with zeros.
template <class T>
void product_pack(const T* b, int64_t row_stride, int64_t column_stride, int64_t depth, int64_t columns, int64_t first,
                  int64_t last, T* panels) {
  constexpr int64_t width = Tile<T>::columns;
  const int64_t count = (columns + width - 1) / width;
  for (int64_t cut = 0; cut < depth; cut += cut_rows<T>(depth)) {
    const int64_t rows = least(cut_rows<T>(depth), depth - cut);
    for (int64_t p = first; p < last; ++p) {
      const T* from = b + cut * row_stride + p * width * column_stride;
      T* to = panels + panel_at<T>(p, cut, rows, count);
      if (row_stride == 1 && column_stride != 1) {
        pack_columns(from, column_stride, rows, least(width, columns - p * width), to);
      } else {
        pack_rows(from, row_stride, column_stride, rows, least(width, columns - p * width), to);
      }
    }
  }
}

template <class T>
VL_INLINE void put_sum(Vec<T> sum, bool add, T* to, int64_t left) {
  if (left > 0) put(add ? take(to, left) + sum : sum, to, left);
}

// R rows of a tile.
template <class T, int R>
VL_INLINE void product_tile(const T* a, int64_t row, int64_t step, const T* panel, int64_t depth, bool add, T* out,
                            int64_t stride, int64_t columns) {
  constexpr int V = Tile<T>::vectors, lanes = Vec<T>::size;
  Vec<T> sum[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[i][v] = Vec<T>(T(0));
  }
  for (int64_t k = 0; k < depth; ++k, panel += V * lanes, a += step) {
    Vec<T> b[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) b[v] = Vec<T>::load(panel + v * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> x(a[i * row]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] = fma(x, b[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) put_sum(sum[i][v], add, out + i * stride + v * lanes, columns - v * lanes);
  }
}

// The same for at most R rows.
template <class T, int R>
void product_rest(int64_t rows, const T* a, int64_t row, int64_t step, const T* panel, int64_t depth, bool add, T* out,
                  int64_t stride, int64_t columns) {
  if constexpr (R > 0) {
    if (rows == R) {
      product_tile<T, R>(a, row, step, panel, depth, add, out, stride, columns);
    } else {
      product_rest<T, R - 1>(rows, a, row, step, panel, depth, add, out, stride, columns);
    }
  }
}

// Copies the left factor of a tile so that its rows lie beside each other.
template <class T>
VL_INLINE void pack_left(const T* a, int64_t row, int64_t step, int64_t rows, int64_t depth, T* to) {
  constexpr int64_t height = Tile<T>::rows;
  if (row == 1 && rows == height) {
    for (int64_t k = 0; k < depth; ++k) __builtin_memcpy(to + k * height, a + k * step, height * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < depth; ++k) to[k * height + i] = a[i * row + k * step];
  }
}

// Some tiles of rows and panels of columns of a product; the first tile of the first panel goes to p.out.
template <class T>
void product_block(const Product<T>& p, int64_t first_tile, int64_t last_tile, int64_t first_panel,
                   int64_t last_panel) {
  constexpr int height = Tile<T>::rows, width = Tile<T>::columns;
  const int64_t panels = (p.columns + width - 1) / width;
  // Rows at such a distance share their place in the level-1 cache.
  const bool packed = p.step != 1 || p.row * int64_t(sizeof(T)) % 2048 == 0;
  alignas(64) T left[height * kDepth<T>];
  for (int64_t cut = 0; cut < p.depth; cut += cut_rows<T>(p.depth)) {
    const int64_t depth = least(cut_rows<T>(p.depth), p.depth - cut);
    const bool add = p.add || cut > 0;
    for (int64_t group = first_panel; group < last_panel; group += kGroup) {
      const int64_t end = least(group + kGroup, last_panel);
      for (int64_t i = first_tile * height; i < least(last_tile * height, p.rows); i += height) {
        const int64_t rows = least(height, p.rows - i);
        const T* a = p.a + i * p.row + cut * p.step;
        if (packed) pack_left(a, p.row, p.step, rows, depth, left);
        for (int64_t j = group; j < end; ++j) {
          const T* panel = p.panels + panel_at<T>(j, cut, depth, panels);
          T* out = p.out + (i - first_tile * height) * p.stride + (j - first_panel) * width;
          const int64_t columns = p.columns - j * width;
          if (rows < height) {
            product_rest<T, height - 1>(rows, packed ? left : a, packed ? 1 : p.row, packed ? height : 1, panel, depth,
                                        add, out, p.stride, columns);
          } else if (packed) {
            product_tile<T, height>(left, 1, height, panel, depth, add, out, p.stride, columns);
          } else {
            product_tile<T, height>(a, p.row, 1, panel, depth, add, out, p.stride, columns);
          }
        }
      }
    }
  }
}

#define VL_INSTANTIATE(T)                                                                                        \
  template int64_t product_tile_rows<T>(const T*);                                                               \
  template int64_t product_panel_columns<T>(const T*);                                                           \
  template void product_pack<T>(const T*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, T*);             \
  template void product_block<T>(const Product<T>&, int64_t, int64_t, int64_t, int64_t);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
