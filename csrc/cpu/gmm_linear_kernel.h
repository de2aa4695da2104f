// Rows of a mixture density head between its matrix products. No include guard, see each_isa.h.

#include "convert.h"
#include "gmm_component.h"

// log(1 + e^x), and its derivative if wanted; NaN stays.
template <class T>
VL_INLINE Vec<T> softplus_of(Vec<T> x, Vec<T>* slope) {
  const Vec<T> zero(T(0)), one(T(1));
  const auto positive = below(zero, x);
  const Vec<T> exponential = exp_of(pick(positive, zero - x, x));
  if (slope != nullptr) *slope = pick(positive, one, exponential) / (one + exponential);
  return pick(positive, x, zero) + log1p_of(exponential);
}

template <class T>
VL_INLINE Vec<T> with_bias(const T* row, const T* bias, int64_t i, int64_t n) {
  const Vec<T> a = take(row + i, n - i);
  return bias == nullptr ? a : a + take(bias + i, n - i);
}

// Products of one component and their biases to means and deviations; `slope` (n) may be null.
template <class T>
VL_INLINE void apply_head(const GmmChunk<T>& chunk, int64_t component, T* mean, const T* raw, T* std, T* slope) {
  const int64_t n = chunk.dims;
  const T* mean_bias = chunk.mean_bias == nullptr ? nullptr : chunk.mean_bias + component * n;
  const T* std_bias = chunk.std_bias == nullptr ? nullptr : chunk.std_bias + component * n;
  const Vec<T> least(chunk.min_std);
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    if (mean_bias != nullptr) put(with_bias(mean, mean_bias, i, n), mean + i, n - i);
    Vec<T> by_raw;
    put(softplus_of(with_bias(raw, std_bias, i, n), slope == nullptr ? nullptr : &by_raw) + least, std + i, n - i);
    if (slope != nullptr) put(by_raw, slope + i, n - i);
  }
}

// Log-densities of pairs of a row and a component of the chunk, counted row by row.
template <class T>
void gmm_chunk_densities(const GmmChunk<T>& chunk, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i / chunk.size, k = i % chunk.size;
    T* mean = chunk.mean + i * chunk.dims;
    T* std = chunk.std + i * chunk.dims;
    apply_head(chunk, k, mean, std, std, static_cast<T*>(nullptr));
    chunk.densities[t * chunk.components + k] =
        component_log_density(chunk.y + t * chunk.dims, mean, std, false, chunk.dims);
  }
}

// Products of rows to the gradients of those products, in place; `scratch` holds two rows of the dimensions.
template <class T>
void gmm_chunk_gradients(const GmmChunk<T>& chunk, int64_t begin, int64_t end, T* scratch) {
  const int64_t dims = chunk.dims;
  T* slope = scratch + dims;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t k = 0; k < chunk.size; ++k) {
      T* mean = chunk.mean + (t * chunk.size + k) * dims;
      T* raw = chunk.std + (t * chunk.size + k) * dims;
      const T share = chunk.shares[t * chunk.components + k];
      if (share == T(0)) {
        fill_zeros(mean, dims);
        fill_zeros(raw, dims);
        continue;
      }
      apply_head(chunk, k, mean, raw, scratch, slope);
      component_gradients(chunk.y + t * dims, mean, scratch, false, dims, share, mean, raw,
                          chunk.grad_y == nullptr ? nullptr : chunk.grad_y + t * dims);
      for (int64_t i = 0; i < dims; i += Vec<T>::size) {
        put(take(raw + i, dims - i) * take(slope + i, dims - i), raw + i, dims - i);
      }
    }
  }
}

// `wide` holds a number for each component.
template <class T>
void gmm_rows_likelihoods(const T* logits, const double* densities, int64_t components, int64_t dims, T* likelihood,
                          T* log_shares, double* wide, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = t * components;
    likelihood[t] =
        T(component_log_shares(logits + at, densities + at, components, dims, wide, log_shares + at));
  }
}

template <class T>
void gmm_rows_shares(const T* logits, const T* log_shares, int64_t components, const T* grad, T* shares,
                     T* grad_logits, double* wide, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = t * components;
    component_shares(logits + at, log_shares + at, components, grad[t], wide, shares + at, grad_logits + at);
  }
}

// Adds the rows of a (rows, columns) to `to`, for at most kSumColumns of the columns; rows are summed in groups first,
// which keeps rounding errors from adding up.
template <class T>
void gmm_add_rows(const T* a, int64_t rows, int64_t columns, int64_t begin, int64_t end, T* to) {
  constexpr int64_t kGroup = 32;
  T sums[kSumColumns];
  for (int64_t t = 0; t < rows; t += kGroup) {
    fill_zeros(sums, kSumColumns);
    for (int64_t r = t; r < rows && r < t + kGroup; ++r) {
      const T* row = a + r * columns;
      for (int64_t i = begin; i < end; i += Vec<T>::size) {
        put(take(sums + (i - begin), end - i) + take(row + i, end - i), sums + (i - begin), end - i);
      }
    }
    for (int64_t i = begin; i < end; i += Vec<T>::size) {
      put(take(to + i, end - i) + take(sums + (i - begin), end - i), to + i, end - i);
    }
  }
}

template <class T>
void gmm_add_row(const T* a, int64_t n, T* to) {
  for (int64_t i = 0; i < n; i += Vec<T>::size) put(take(to + i, n - i) + take(a + i, n - i), to + i, n - i);
}

template <class T>
void gmm_add_bias(T* a, int64_t rows, int64_t columns, const T* bias) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < columns; i += Vec<T>::size) put(with_bias(a, bias, i, columns), a + i, columns - i);
    a += columns;
  }
}

inline void gmm_widen(const void* from, Kind kind, int64_t n, float* to) {
  load_row(from, kind, to, n);
}

inline void gmm_narrow(const float* from, Kind kind, int64_t n, void* to) {
  store_row(from, to, kind, n);
}

#define VL_INSTANTIATE(T)                                                                                            \
  template void gmm_chunk_densities<T>(const GmmChunk<T>&, int64_t, int64_t);                                        \
  template void gmm_chunk_gradients<T>(const GmmChunk<T>&, int64_t, int64_t, T*);                                    \
  template void gmm_rows_likelihoods<T>(const T*, const double*, int64_t, int64_t, T*, T*, double*, int64_t, int64_t); \
  template void gmm_rows_shares<T>(const T*, const T*, int64_t, const T*, T*, T*, double*, int64_t, int64_t); \
  template void gmm_add_rows<T>(const T*, int64_t, int64_t, int64_t, int64_t, T*);                                   \
  template void gmm_add_row<T>(const T*, int64_t, T*);                                                               \
  template void gmm_add_bias<T>(T*, int64_t, int64_t, const T*);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
