// One Gaussian component of one row: log-density and gradients; and the logarithm of a sum of exponentials. No include
// guard, see each_isa.h.

#include "vec_math.h"
#include "../common/gmm_point.h"

// The first n lanes of a; the others are `fill`.
template <class T>
VL_INLINE Vec<T> filled(Vec<T> a, int64_t n, T fill) {
  if (n >= Vec<T>::size) return a;
  return pick(lanes_below<T>(n), a, Vec<T>(fill));
}

// Squares, whose sum is taken in double a few vectors at a time.
template <class T>
struct SumOfSquares {
  Vec<T> recent;
  WideSum<T> total;
  int64_t count;

  VL_INLINE SumOfSquares() : recent(T(0)), count(0) {}
  VL_INLINE void add(Vec<T> a) {
    recent = fma(a, a, recent);
    if (++count % 16 == 0) flush();
  }
  VL_INLINE void flush() {
    total.add(recent);
    recent = Vec<T>(T(0));
  }
  VL_INLINE double value() {
    flush();
    return total.value();
  }
};

// The sum of the logarithms of positive numbers, as that of their product.
template <class T>
struct LogOfProduct : MantissaProduct<T, Vec<T>, typename Integers<T>::Native, typename Integers<T>::Unsigned> {
  typedef MantissaProduct<T, Vec<T>, typename Integers<T>::Native, typename Integers<T>::Unsigned> Base;

  WideSum<T> logs;
  int64_t count, folds;

  VL_INLINE LogOfProduct() : Base(Vec<T>(T(1))), count(0), folds(0) {}

  VL_INLINE void add(Vec<T> a) {
    Base::add(a);
    if (++count % Base::kMost == 0) fold();
  }
  VL_INLINE void fold() {
    logs.add(log_of(this->mantissa_of(bits_of(this->product))));
    this->product = Vec<T>(T(1));
    ++folds;
  }
  // Whether every number was positive, normal and finite; else the value is not valid.
  VL_INLINE bool valid() const {
    bool any = false;
    for (int i = 0; i < Vec<T>::size; ++i) any |= this->odd[i] != 0;
    return !any;
  }
  VL_INLINE double value() {
    constexpr double kLog2 = 0.69314718055994530942;
    fold();
    int64_t sum = -(count + folds) * Vec<T>::size * int64_t(Layout<T>::bias);
    for (int i = 0; i < Vec<T>::size; ++i) sum += this->exponent[i];
    return double(sum) * kLog2 + logs.value();
  }
};

template <class T>
VL_INLINE double sum_of_logs(const T* a, int64_t n) {
  WideSum<T> sum;
  for (int64_t i = 0; i < n; i += Vec<T>::size) sum.add(log_of(filled(take(a + i, n - i), n - i, T(1))));
  return sum.value();
}

VL_INLINE double log_of_one(double a) {
  return log_of(Vec<double>(a)).v[0];
}

// The log-density of y (n), without log weight and without -n/2 log 2 pi; std holds n deviations, or one for all if
// `shared`.
template <class T>
VL_INLINE double component_log_density(const T* y, const T* mean, const T* std, bool shared, int64_t n) {
  SumOfSquares<T> squares;
  if (shared) {
    const Vec<T> s(std[0]);
    for (int64_t i = 0; i < n; i += Vec<T>::size) {
      squares.add(first((take(y + i, n - i) - take(mean + i, n - i)) / s, n - i));
    }
    return -0.5 * squares.value() - double(n) * log_of_one(std[0]);
  }
  LogOfProduct<T> logs;
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> s = filled(take(std + i, n - i), n - i, T(1));
    squares.add((take(y + i, n - i) - take(mean + i, n - i)) / s);
    logs.add(s);
  }
  return -0.5 * squares.value() - (logs.valid() ? logs.value() : sum_of_logs(std, n));
}

// Gradients of the log-density times `share`. Where the pointers are not null, those by mean and std are written, with
// one sum for a shared deviation, and that by y is added.
template <class T>
VL_INLINE void component_gradients(const T* y, const T* mean, const T* std, bool shared, int64_t n, T share,
                                   T* grad_mean, T* grad_std, T* grad_y) {
  const Vec<T> by(share), one(T(1)), minus_one(T(-1));
  SumOfSquares<T> squares;
  Vec<T> s(std[0]);
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    if (!shared) s = filled(take(std + i, n - i), n - i, T(1));
    const Vec<T> inverse = one / s, z = (take(y + i, n - i) - take(mean + i, n - i)) / s;
    const GmmSlopes<Vec<T>> slopes = gmm_slopes(z, inverse, by, minus_one);
    if (grad_mean != nullptr) put(slopes.mean, grad_mean + i, n - i);
    if (grad_y != nullptr) put(take(grad_y + i, n - i) - slopes.mean, grad_y + i, n - i);
    if (shared) {
      squares.add(first(z, n - i));
    } else if (grad_std != nullptr) {
      put(slopes.std, grad_std + i, n - i);
    }
  }
  if (shared && grad_std != nullptr) grad_std[0] = T(double(share) * (squares.value() - double(n)) / double(std[0]));
}

template <class T>
VL_INLINE void fill_zeros(T* to, int64_t n) {
  if (to != nullptr) __builtin_memset(to, 0, n * sizeof(T));
}

VL_INLINE double log_sum_exp(const double* a, int64_t n) {
  const double infinity = __builtin_inf();
  Vec<double> top(-infinity), sum(0.0);
  for (int64_t i = 0; i < n; i += Vec<double>::size) {
    const Vec<double> x = filled(take(a + i, n - i), n - i, -infinity);
    top = pick(below(top, x), x, top);
  }
  double shift = top.v[0];
  for (int i = 1; i < Vec<double>::size; ++i) shift = top.v[i] > shift ? top.v[i] : shift;
  // Infinities would be subtracted from each other.
  if (shift == infinity || shift == -infinity) shift = 0;
  for (int64_t i = 0; i < n; i += Vec<double>::size) {
    sum = sum + exp_of(filled(take(a + i, n - i), n - i, -infinity) - Vec<double>(shift));
  }
  return shift + log_of_one(sum_of(sum));
}

// The logarithms of weight and of density (n) of each component to the logarithm of its share of the likelihood;
// returns that of the likelihood of y of so many dimensions. All in double: the shares of a mixture in many dimensions
// are differences of large numbers. `wide` holds n numbers.
template <class T>
VL_INLINE double component_log_shares(const T* logits, const double* densities, int64_t n, int64_t dims, double* wide,
                                      T* log_shares) {
  constexpr double kHalfLogTwoPi = 0.91893853320467274178;
  for (int64_t k = 0; k < n; ++k) wide[k] = double(logits[k]);
  const double norm = log_sum_exp(wide, n);
  for (int64_t k = 0; k < n; ++k) wide[k] = (wide[k] - norm) + densities[k];
  const double total = log_sum_exp(wide, n);
  for (int64_t k = 0; k < n; ++k) log_shares[k] = T(wide[k] - total);
  return total - kHalfLogTwoPi * double(dims);
}

// Each component's share (n) of the gradient, and the gradient of the logits (n) if the pointer is not null.
template <class T>
VL_INLINE void component_shares(const T* logits, const T* log_shares, int64_t n, T grad, double* wide, T* shares,
                                T* grad_logits) {
  for (int64_t k = 0; k < n; ++k) wide[k] = double(logits[k]);
  const double norm = log_sum_exp(wide, n);
  for (int64_t k = 0; k < n; ++k) shares[k] = T(wide[k] - norm);
  const Vec<T> by(grad);
  for (int64_t i = 0; i < n; i += Vec<T>::size) {
    const Vec<T> share = exp_of(take(log_shares + i, n - i)), weight = exp_of(take(shares + i, n - i));
    if (grad_logits != nullptr) put((share - weight) * by, grad_logits + i, n - i);
    put(share * by, shares + i, n - i);
  }
}
