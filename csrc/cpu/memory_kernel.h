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

// The largest of a row; NaN is passed over.
template <class T>
VL_INLINE T largest_of(const T* row, int64_t n) {
  const Vec<T> lowest(-__builtin_inf());
  Vec<T> best = lowest;
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    Vec<T> a = take(row + i, n - i);
    if (n - i < Vec<T>::size) a = pick(lanes_below<T>(n - i), a, lowest);
    best = pick(below(best, a), a, best);
  }
  T largest = best.v[0];
  for (int i = 1; i < Vec<T>::size; ++i) largest = best.v[i] > largest ? best.v[i] : largest;
  return largest;
}

// What one row of weights was divided by: exponentials are relative to that of the largest score.
template <class T>
struct RowSums {
  T largest, inverse, total;  // score, over log 2; of the sum of exponentials; sum of the weights that are kept
};

// Hard shrinkage: a weight at or below the limit becomes 0, one above it stays; so does NaN.
template <class T>
VL_INLINE Vec<T> shrink(Vec<T> weight, Vec<T> limit) {
  return pick(weight.v <= limit.v, Vec<T>(T(0)), weight);
}

// Scores (products with the unit items), times scale, to the softmax, and of it what is above the limit; in place.
template <class T>
VL_INLINE RowSums<T> shrunk_softmax(T* row, int64_t n, T scale, T limit) {
  const T largest = largest_of(row, n) * scale;
  // In double: a sum of N numbers that are rounded each would spend the room that a weight at the threshold has.
  WideSum<T> sum;
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> score = take(row + i, n - i) * Vec<T>(scale);
    const Vec<T> exponential = first(exp_of(score - Vec<T>(largest)), n - i);
    put(exponential, row + i, n - i);
    sum.add(exponential);
  }
  const Divisor<T> whole(sum.value());
  Vec<T> total(T(0));
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> weight = shrink(whole.divide(take(row + i, n - i)), Vec<T>(limit));
    put(weight, row + i, n - i);
    total = total + weight;
  }
  return {largest * T(1.44269504088896340736), T(1.0 / sum.value()), sum_of(total)};
}

template <class T>
VL_INLINE Vec<T> log_of_kept(Vec<T> weight) {
  const Vec<T> zero(T(0));
  return pick(weight.v == zero.v, zero, log_of(weight));
}

// Divides one row of shrunk weights by their sum, if there is one; returns -sum w log w.
template <class T>
VL_INLINE T normalise_row(T* weights, int64_t n, T total) {
  const Vec<T> by(total == T(0) ? T(1) : total);
  Vec<T> sum(T(0));
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> weight = take(weights + i, n - i) / by;
    put(weight, weights + i, n - i);
    sum = sum - weight * log_of_kept(weight);
  }
  return sum_of(sum);
}

// Scores in rows.weights to normalised weights; what they were divided by, and entropy, if wanted.
template <class T>
void memory_forward_rows(const MemoryRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.items;
  for (int64_t r = begin; r < end; ++r) {
    T* weights = rows.weights + r * n;
    const T scale = rows.temperature * inverse_length(rows.z + r * rows.channels, rows.channels);
    const RowSums<T> sums = shrunk_softmax(weights, n, scale, rows.limit);
    const T entropy = normalise_row(weights, n, sums.total);
    if (rows.entropy == nullptr) continue;
    rows.entropy[r] = entropy;
    rows.largest[r] = sums.largest;
    rows.inverses[r] = sums.inverse;
    rows.totals[r] = sums.total;
  }
}

// The weights are the softmax of the scores of what is kept, so their gradient is its gradient: what is shrunk away has
// none, and the sum that the threshold is compared with does not matter.
template <class T>
void memory_backward_rows(const MemoryGradRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.items;
  const Vec<T> one(T(1));
  for (int64_t r = begin; r < end; ++r) {
    const T* weights = rows.weights + r * n;
    T* grad = rows.grad + r * n;
    const Vec<T> grad_entropy(rows.grad_entropy[r]);
    Vec<T> with_weights(T(0));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      const Vec<T> weight = take(weights + i, n - i);
      const Vec<T> by_weight = take(grad + i, n - i) - grad_entropy * (log_of_kept(weight) + one);
      put(by_weight, grad + i, n - i);
      with_weights = fma(by_weight, weight, with_weights);
    }
    const Vec<T> off(sum_of(with_weights));
    const Vec<T> scale(rows.temperature * inverse_length(rows.z + r * rows.channels, rows.channels));
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      put(take(weights + i, n - i) * (take(grad + i, n - i) - off) * scale, grad + i, n - i);
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
  template void memory_backward_rows<T>(const MemoryGradRows<T>&, int64_t, int64_t);          \
  template void memory_unit_backward_rows<T>(const T*, int64_t, int64_t, bool, const T*, T*);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
