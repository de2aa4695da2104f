// Rows of the memory operator between its matrix products. No include guard, see each_isa.h.

#include "vec_math.h"

// Shorter vectors count as this long in the cosine, as in torch.nn.functional.cosine_similarity.
template <class T>
constexpr T kNormEps = T(1e-8);

template <class T>
VL_INLINE T length_of(const T* x, int64_t n) {
  Vec<T> sum(T(0)), more(T(0));
  for (int64_t i = 0; i < n; i += 2 * Vec<T>::size) {
    const Vec<T> a = take(x + i, n - i);
    sum = fma(a, a, sum);
    if (i + Vec<T>::size < n) {
      const Vec<T> b = take(x + i + Vec<T>::size, n - i - Vec<T>::size);
      more = fma(b, b, more);
    }
  }
  return __builtin_sqrt(sum_of(sum + more));
}

template <class T>
VL_INLINE T inverse_length(const T* x, int64_t n) {
  const T length = length_of(x, n);
  // A comparison the other way round would turn NaN into a number.
  return T(1) / (length < kNormEps<T> ? kNormEps<T> : length);
}

// Rows x (rows, n) over their lengths.
template <class T>
void memory_unit_rows(const T* x, int64_t rows, int64_t n, T* unit) {
  for (int64_t r = 0; r < rows; ++r, x += n, unit += n) {
    const Vec<T> inverse(inverse_length(x, n));
    for (int64_t i = 0; i < n; i += Vec<T>::size) put(take(x + i, n - i) * inverse, unit + i, n - i);
  }
}

// Division by one number as good as a / by: the reciprocal is kept with twice the digits.
template <class T>
struct Divisor {
  Vec<T> by, high, low;

  VL_INLINE explicit Divisor(double divisor) : by(T(divisor)), high(T(1.0 / divisor)), low(T(0)) {
    low = Vec<T>(T(1.0 / divisor - double(T(1.0 / divisor))));
  }
  VL_INLINE Vec<T> divide(Vec<T> a) const {
#if defined(VL_AVX2) || defined(VL_AVX512)
    if constexpr (sizeof(T) == 4) return fma(a, high, a * low);
#endif
    return a / by;
  }
};

// Scores (products with the unit items) to the softmax of the cosines, in place. Cosines are at most 1: no overflow.
// Returns the inverse sum of the exponentials.
template <class T>
VL_INLINE T softmax_row(T* row, int64_t n, T inverse) {
  const Vec<T> scale(inverse);
  // In double: N equal exponentials then have a softmax of 1 / N, rounded once, which is not above the threshold 1 / N.
  WideSum<T> sum;
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> exponential = first(exp_of(take(row + i, n - i) * scale), n - i);
    put(exponential, row + i, n - i);
    sum.add(exponential);
  }
  const Divisor<T> total(sum.value());
  for (int64_t i = 0; i < n; i += Vec<T>::size) put(total.divide(take(row + i, n - i)), row + i, n - i);
  return T(1.0 / sum.value());
}

// Hard shrinkage relu(w - t) w / (|w - t| + eps); NaN stays.
template <class T>
VL_INLINE Vec<T> shrink(Vec<T> weight, Vec<T> threshold, Vec<T> eps) {
  const Vec<T> gap = weight - threshold;
  const Vec<T> kept = pick(below(gap, Vec<T>(T(0))), Vec<T>(T(0)), gap);
  return kept * weight / (kept + eps);
}

// Its derivative.
template <class T>
VL_INLINE Vec<T> shrink_slope(Vec<T> weight, Vec<T> threshold, Vec<T> eps) {
  const Vec<T> gap = weight - threshold, inverse = Vec<T>(T(1)) / (gap + eps);
  const Vec<T> slope = fma(weight * eps * inverse, inverse, gap * inverse);
  return pick(gap.v <= Vec<T>(T(0)).v, Vec<T>(T(0)), slope);
}

// The softmax of one row to its shrunk weights; returns their sum.
template <class T>
VL_INLINE T shrink_row(const T* softmax, int64_t n, T threshold, T eps, T* weights) {
  const Vec<T> t(threshold), e(eps);
  Vec<T> sum(T(0));
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> shrunk = first(shrink(take(softmax + i, n - i), t, e), n - i);
    put(shrunk, weights + i, n - i);
    sum = sum + shrunk;
  }
  return sum_of(sum);
}

template <class T>
VL_INLINE Vec<T> log_of_kept(Vec<T> weight) {
  const Vec<T> zero(T(0));
  return pick(weight.v == zero.v, zero, log_of(weight));
}

// Divides one row of shrunk weights by their sum; returns -sum w log w.
template <class T>
VL_INLINE T normalise_row(T* weights, int64_t n, T total) {
  const Vec<T> by(total);
  Vec<T> sum(T(0));
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> weight = take(weights + i, n - i) / by;
    put(weight, weights + i, n - i);
    sum = sum - weight * log_of_kept(weight);
  }
  return sum_of(sum);
}

// Scores in rows.softmax to softmax, normalised weights and entropy.
template <class T>
void memory_forward_rows(const MemoryRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.items;
  for (int64_t r = begin; r < end; ++r) {
    T* softmax = rows.softmax + r * n;
    T* weights = rows.weights + r * n;
    rows.inverses[r] = softmax_row(softmax, n, inverse_length(rows.z + r * rows.channels, rows.channels));
    const T total = shrink_row(softmax, n, rows.threshold, rows.eps, weights);
    rows.totals[r] = total;
    rows.entropy[r] = normalise_row(weights, n, total < rows.eps ? rows.eps : total);
  }
}

template <class T>
void memory_softmax_rows(const T* z, int64_t channels, T* scores, int64_t items, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    softmax_row(scores + r * items, items, inverse_length(z + r * channels, channels));
  }
}

// One row of grad, for n normalised weights w = shrunk / total, to the gradient of the softmax; returns its sum with
// the softmax. The sum of w with the gradient is subtracted only if the total was not replaced by eps.
template <class T>
VL_INLINE T unshrink_row(const MemoryGradRows<T>& rows, const T* softmax, const T* weights, T* grad, T total, T sum) {
  const Vec<T> threshold(rows.threshold), eps(rows.eps), inverse(T(1) / (total < rows.eps ? rows.eps : total));
  const Vec<T> off(total > rows.eps ? sum : T(0)), zero(T(0));
  Vec<T> with_softmax(T(0));
  for (int64_t i = 0; i < rows.items; i += Vec<T>::size) {
    const Vec<T> p = take(softmax + i, rows.items - i), w = take(weights + i, rows.items - i);
    const Vec<T> by_shrunk = (take(grad + i, rows.items - i) - off) * inverse;
    const Vec<T> by_softmax = pick(w.v == zero.v, zero, by_shrunk * shrink_slope(p, threshold, eps));
    put(by_softmax, grad + i, rows.items - i);
    with_softmax = fma(by_softmax, p, with_softmax);
  }
  return sum_of(with_softmax);
}

template <class T>
void memory_backward_rows(const MemoryGradRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.items;
  const Vec<T> one(T(1)), threshold(rows.threshold), eps(rows.eps);
  for (int64_t r = begin; r < end; ++r) {
    const T* softmax = rows.softmax + r * n;
    T* weights = rows.weights + r * n;
    T* grad = rows.grad + r * n;
    const T total = rows.totals[r];
    const Vec<T> by(total < rows.eps ? rows.eps : total), grad_entropy(rows.grad_entropy[r]);
    Vec<T> with_weights(T(0));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      const Vec<T> weight = shrink(take(softmax + i, n - i), threshold, eps) / by;
      const Vec<T> by_weight = take(grad + i, n - i) - grad_entropy * (log_of_kept(weight) + one);
      put(weight, weights + i, n - i);
      put(by_weight, grad + i, n - i);
      with_weights = fma(by_weight, weight, with_weights);
    }
    const Vec<T> off(unshrink_row(rows, softmax, weights, grad, total, sum_of(with_weights)));
    const Vec<T> inverse(inverse_length(rows.z + r * rows.channels, rows.channels));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      const Vec<T> p = take(softmax + i, n - i);
      put(p * (take(grad + i, n - i) - off) * inverse, grad + i, n - i);
    }
  }
}

// Gradients of x over its length, grad (rows, n), to those of x, in place: subtracts the part along x. `scale` says
// whether grad is still to be divided by that length. Rows of `more` are added if it is not null.
template <class T>
void memory_unit_backward_rows(const T* x, int64_t rows, int64_t n, bool scale, const T* more, T* grad) {
  for (int64_t r = 0; r < rows; ++r, x += n, grad += n) {
    const T length = length_of(x, n), held = length < kNormEps<T> ? kNormEps<T> : length;
    Vec<T> dot(T(0));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      dot = fma(take(x + i, n - i), take(grad + i, n - i), dot);
    }
    // A short vector is divided by a constant: there is no part to subtract. NaN must stay.
    const Vec<T> along(length <= kNormEps<T> ? T(0) : sum_of(dot) / held / held), factor(scale ? T(1) / held : T(1));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      Vec<T> result = (take(grad + i, n - i) - along * take(x + i, n - i)) * factor;
      if (more != nullptr) result = result + take(more + r * n + i, n - i);
      put(result, grad + i, n - i);
    }
  }
}

#define VL_INSTANTIATE(T)                                                                     \
  template void memory_unit_rows<T>(const T*, int64_t, int64_t, T*);                          \
  template void memory_forward_rows<T>(const MemoryRows<T>&, int64_t, int64_t);               \
  template void memory_softmax_rows<T>(const T*, int64_t, T*, int64_t, int64_t, int64_t);     \
  template void memory_backward_rows<T>(const MemoryGradRows<T>&, int64_t, int64_t);          \
  template void memory_unit_backward_rows<T>(const T*, int64_t, int64_t, bool, const T*, T*);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
