// Rows of a nearest-neighbour search. No include guard, see each_isa.h.
//
// |q - b|^2 = |q|^2 + 2 (|b|^2 / 2 - q b): rows of the bank are compared by the term in brackets, their score. A tile of
// products with a few panels is compared while it is in the level-1 cache. The distances of the rows that are found are
// then computed from the differences, which loses nothing to cancellation.

#include "squared_distance.h"

// Of product_kernel.h, which product.cpp compiles.
template <class T>
int64_t product_tile_rows(const T*);
template <class T>
int64_t product_panel_columns(const T*);
template <class T>
void product_pack(const T*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, T*);
template <class T>
void product_block(const Product<T>&, int64_t, int64_t, int64_t, int64_t);

// Panels whose products with a tile are in memory at a time, and the most rows and vectors of columns that these have.
constexpr int64_t kPanels = 12, kMostRows = 14, kMostVectors = 2;

VL_INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

template <class T>
VL_INLINE bool any_below(Vec<T> a, Vec<T> b) {
#if defined(VL_AVX512)
  if constexpr (sizeof(T) == 4) {
    return _mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LT_OQ) != 0;
  } else {
    return _mm512_cmp_pd_mask((__m512d)a.v, (__m512d)b.v, _CMP_LT_OQ) != 0;
  }
#elif defined(VL_AVX2)
  if constexpr (sizeof(T) == 4) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a.v, (__m256)b.v, _CMP_LT_OQ)) != 0;
  } else {
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a.v, (__m256d)b.v, _CMP_LT_OQ)) != 0;
  }
#else
  const typename Integers<T>::Native mask = a.v < b.v;
  bool any = false;
  for (int i = 0; i < Vec<T>::size; ++i) any = any || mask[i] != 0;
  return any;
#endif
}

// Puts a row of the bank into the k best of a query, which are in ascending order; of equal scores the first that came
// stays in front.
template <class T>
void nearest_insert(T score, int64_t index, int64_t k, T* scores, int64_t* indices) {
  int64_t at = k - 1;
  for (; at > 0 && score < scores[at - 1]; --at) {
    scores[at] = scores[at - 1];
    indices[at] = indices[at - 1];
  }
  scores[at] = score;
  indices[at] = index;
}

// Compares products (rows, columns) of some queries with rows of the bank from `first` on; NaN is never below.
template <class T>
VL_INLINE void merge_products(const T* products, int64_t stride, int64_t rows, int64_t columns, const T* half_norms,
                              int64_t first_index, int64_t k, T* scores, int64_t* indices) {
  for (int64_t r = 0; r < rows; ++r, products += stride, scores += k, indices += k) {
    for (int64_t j = 0; j < columns; j += Vec<T>::size) {
      const Vec<T> found = take(half_norms + j, columns - j) - take(products + j, columns - j);
      if (!any_below(found, Vec<T>(scores[k - 1]))) continue;
      const int64_t count = least(Vec<T>::size, columns - j);
      for (int64_t lane = 0; lane < count; ++lane) {
        const T score = found.v[lane];
        if (score < scores[k - 1]) nearest_insert(score, first_index + j + lane, k, scores, indices);
      }
    }
  }
}

template <class T>
void nearest_merge(const T* products, int64_t rows, int64_t columns, const T* half_norms, int64_t first_index, int64_t k,
                   T* scores, int64_t* indices) {
  merge_products(products, columns, rows, columns, half_norms, first_index, k, scores, indices);
}

// The k best of the rows of some tiles, among the columns of some panels. What p says of its result is not used.
template <class T>
void nearest_block(const Product<T>& p, const T* half_norms, int64_t k, int64_t first_tile, int64_t last_tile,
                   int64_t first_panel, int64_t last_panel, T* scores, int64_t* indices) {
  const int64_t height = product_tile_rows(p.a), width = product_panel_columns(p.a);
  alignas(64) T sums[kMostRows * kPanels * kMostVectors * Vec<T>::size];
  Product<T> tile = p;
  tile.out = sums;
  tile.stride = kPanels * width;
  for (int64_t group = first_panel; group < last_panel; group += kPanels) {
    const int64_t end = least(group + kPanels, last_panel), columns = least(end * width, p.columns) - group * width;
    for (int64_t i = first_tile; i < last_tile; ++i) {
      product_block(tile, i, i + 1, group, end);
      const int64_t first = i * height;
      merge_products(sums, tile.stride, least(height, p.rows - first), columns, half_norms + group * width,
                     group * width, k, scores + first * k, indices + first * k);
    }
  }
}

// Joins what was found in several parts of the bank: lists (parts, rows, k), those of one part after the other.
template <class T>
void nearest_join(const T* part_scores, const int64_t* part_indices, int64_t parts, int64_t all_rows, int64_t begin,
                  int64_t end, int64_t k, T* scores, int64_t* indices) {
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t at = (part * all_rows + r) * k;
      for (int64_t i = 0; i < k && part_scores[at + i] < scores[r * k + k - 1]; ++i) {
        nearest_insert(part_scores[at + i], part_indices[at + i], k, scores + r * k, indices + r * k);
      }
    }
  }
}

// Half of the squared norm of each row.
template <class T>
void nearest_half_norms(const T* bank, int64_t rows, int64_t n, T* half_norms) {
  for (int64_t r = 0; r < rows; ++r, bank += n) {
    Vec<T> sum(T(0));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      const Vec<T> a = take(bank + i, n - i);
      sum = fma(a, a, sum);
    }
    half_norms[r] = sum_of(sum) / 2;
  }
}

// Whether a row of the bank comes later: by distance, NaN last, then by index.
template <class T>
VL_INLINE bool comes_after(T distance, int64_t index, T other, int64_t other_index) {
  if (distance != other && !(distance != distance && other != other)) return distance > other || distance != distance;
  return index > other_index;
}

// The distances of the rows that were found for some queries, in ascending order; `scores` becomes the distances.
template <class T>
void nearest_distances(const T* q, const T* bank, int64_t rows, int64_t n, int64_t k, T* scores, int64_t* indices) {
  for (int64_t r = 0; r < rows; ++r, q += n, scores += k, indices += k) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t index = indices[i];
      const T distance = __builtin_sqrt(squared_distance(q, bank + index * n, n));
      int64_t at = i;
      for (; at > 0 && comes_after(scores[at - 1], indices[at - 1], distance, index); --at) {
        scores[at] = scores[at - 1];
        indices[at] = indices[at - 1];
      }
      scores[at] = distance;
      indices[at] = index;
    }
  }
}

// Gradients of the columns first .. last of the queries and of the bank (null if not wanted), from those of the
// distances; d|q - b| = (q - b) / |q - b|, and 0 if they are equal. The bank's is added to.
template <class T>
void nearest_backward_columns(const NearestGrads<T>& g, int64_t first, int64_t last) {
  for (int64_t r = 0; r < g.rows; ++r) {
    const T* q = g.q + r * g.channels;
    T* grad_q = g.grad_q == nullptr ? nullptr : g.grad_q + r * g.channels;
    if (grad_q != nullptr) {
      for (int64_t c = first; c < last; ++c) grad_q[c] = T(0);
    }
    for (int64_t i = r * g.k; i < (r + 1) * g.k; ++i) {
      const T distance = g.distances[i];
      const Vec<T> by(distance == T(0) ? T(0) : g.grad[i] / distance);
      const T* b = g.bank + g.indices[i] * g.channels;
      T* grad_bank = g.grad_bank == nullptr ? nullptr : g.grad_bank + g.indices[i] * g.channels;
      for (int64_t c = first; c < last; c += Vec<T>::size) {
        const Vec<T> part = by * (take(q + c, last - c) - take(b + c, last - c));
        if (grad_q != nullptr) put(take(grad_q + c, last - c) + part, grad_q + c, last - c);
        if (grad_bank != nullptr) put(take(grad_bank + c, last - c) - part, grad_bank + c, last - c);
      }
    }
  }
}

#define VL_INSTANTIATE(T)                                                                                           \
  template void nearest_merge<T>(const T*, int64_t, int64_t, const T*, int64_t, int64_t, T*, int64_t*);             \
  template void nearest_block<T>(const Product<T>&, const T*, int64_t, int64_t, int64_t, int64_t, int64_t, T*,      \
                                 int64_t*);                                                                         \
  template void nearest_join<T>(const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, int64_t, T*,          \
                                int64_t*);                                                                          \
  template void nearest_half_norms<T>(const T*, int64_t, int64_t, T*);                                              \
  template void nearest_distances<T>(const T*, const T*, int64_t, int64_t, int64_t, T*, int64_t*);                  \
  template void nearest_backward_columns<T>(const NearestGrads<T>&, int64_t, int64_t);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
