// Exponential and logarithms of vectors, accurate to about one unit in the last place, and the few operations they
// need that simd.h does not have. No include guard, see simd.h.
//
// NaN goes through every function; infinities, zeros and subnormal numbers give what std gives for them.

#include "../common/float_layout.h"

template <class T>
struct Integers {
  typedef typename Layout<T>::Int Native __attribute__((vector_size(VL_BYTES)));
  typedef typename Layout<T>::Unsigned Unsigned __attribute__((vector_size(VL_BYTES)));
};

template <class T>
VL_INLINE typename Integers<T>::Native bits_of(Vec<T> a) {
  return (typename Integers<T>::Native)a.v;
}

template <class T>
VL_INLINE Vec<T> value_of(typename Integers<T>::Native bits) {
  return Vec<T>((typename Vec<T>::Native)bits);
}

// Comparisons give a mask, all ones or all zeros per lane; a comparison with NaN is false.
template <class T>
VL_INLINE typename Integers<T>::Native below(Vec<T> a, Vec<T> b) {
  return a.v < b.v;
}

template <class T>
VL_INLINE Vec<T> pick(typename Integers<T>::Native mask, Vec<T> yes, Vec<T> no) {
  return Vec<T>(mask ? yes.v : no.v);
}

// Mask of the first n lanes.
template <class T>
VL_INLINE typename Integers<T>::Native lanes_below(int64_t n) {
  typename Integers<T>::Native lane;
  for (int i = 0; i < Vec<T>::size; ++i) lane[i] = i;
  return lane < (typename Layout<T>::Int)n;
}

// Loads and stores of the n elements that are left of a row, or of a whole vector if there are more.
template <class T>
VL_INLINE Vec<T> take(const T* from, int64_t n) {
  return n >= Vec<T>::size ? Vec<T>::load(from) : Vec<T>::load(from, n);
}

template <class T>
VL_INLINE void put(Vec<T> a, T* to, int64_t n) {
  if (n >= Vec<T>::size) {
    a.store(to);
  } else {
    a.store(to, n);
  }
}

// The first n lanes of a; the others are zero.
template <class T>
VL_INLINE Vec<T> first(Vec<T> a, int64_t n) {
  return n >= Vec<T>::size ? a : pick(lanes_below<T>(n), a, Vec<T>(T(0)));
}

// A polynomial in x whose coefficient of degree i is c[i].
template <class T, int N>
VL_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
  Vec<T> sum(c[N - 1]);
#pragma GCC unroll 20
  for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, Vec<T>(c[i]));
  return sum;
}

template <class T>
struct Coefficients {
  T exp[Layout<T>::exp_terms + 1];     // 1 / i!
  T log[Layout<T>::log_terms];         // 2 / (2 i + 3)
  T log1p[Layout<T>::log1p_terms];     // 2 / (2 i + 1)

  constexpr Coefficients() : exp(), log(), log1p() {
    double factorial = 1;
    for (int i = 0; i <= Layout<T>::exp_terms; ++i) {
      exp[i] = T(1 / factorial);
      factorial *= i + 1;
    }
    for (int i = 0; i < Layout<T>::log_terms; ++i) log[i] = T(2.0 / (2 * i + 3));
    for (int i = 0; i < Layout<T>::log1p_terms; ++i) log1p[i] = T(2.0 / (2 * i + 1));
  }
};

template <class T>
constexpr Coefficients<T> kCoefficients{};

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor series.
template <class T>
VL_INLINE Vec<T> exp_of(Vec<T> x) {
  typedef Layout<T> L;
  typedef typename Integers<T>::Native Int;
  // Unsigned: of an x far outside, whose lane is picked over at the end, these numbers wrap around.
  typedef typename Integers<T>::Unsigned Unsigned;
  const Vec<T> round(L::round);
  const Unsigned zero = (Unsigned)bits_of(round);
  const Vec<T> shifted = fma(x, Vec<T>(T(1.44269504088896340736)), round), n = shifted - round;
  Vec<T> r = fma(n, Vec<T>(-L::ln2_high), x);
  r = fma(n, Vec<T>(-L::ln2_low), r);
  // 2^n in two factors: n may reach beyond the exponents of T at either end.
  const Unsigned half = (Unsigned)bits_of(fma(n, Vec<T>(T(0.5)), round)) - zero;
  const Unsigned rest = (Unsigned)bits_of(shifted) - zero - half;
  const Vec<T> scale = value_of<T>((Int)((half + L::bias) << L::mantissa_bits));
  Vec<T> y = polynomial(r, kCoefficients<T>.exp) * scale * value_of<T>((Int)((rest + L::bias) << L::mantissa_bits));
  y = pick(below(Vec<T>(L::exp_overflow), x), value_of<T>(Int{} + L::infinity), y);
  return pick(below(x, Vec<T>(L::exp_underflow)), Vec<T>(T(0)), y);
}

// log x: x = 2^k m with m between sqrt(1/2) and sqrt(2), log m = 2 atanh((m - 1) / (m + 1)) by its series.
template <class T>
VL_INLINE Vec<T> log_of(Vec<T> x) {
  typedef Layout<T> L;
  typedef typename Integers<T>::Native Int;
  typedef typename Integers<T>::Unsigned Unsigned;
  const auto subnormal = below(x, Vec<T>(L::smallest));
  const Vec<T> scaled = pick(subnormal, x * Vec<T>(L::scale_up), x);
  const Int shifted = bits_of(scaled) - L::sqrt_half + L::one;
  const Vec<T> m = value_of<T>((shifted & (((typename L::Int)1 << L::mantissa_bits) - 1)) + L::sqrt_half);
  const Vec<T> round(L::round), one(T(1));
  const Int exponent = (Int)((Unsigned)shifted >> L::mantissa_bits);
  Vec<T> k = value_of<T>(exponent + bits_of(round)) - Vec<T>(L::round + T(L::bias));
  k = k - pick(subnormal, Vec<T>(L::scale_up_log2), Vec<T>(T(0)));

  const Vec<T> f = m - one, s = f / (m + one), s2 = s * s, half_f2 = Vec<T>(T(0.5)) * f * f;
  const Vec<T> tail = fma(s, fma(s2, polynomial(s2, kCoefficients<T>.log), half_f2), k * Vec<T>(L::ln2_low));
  const Vec<T> y = fma(k, Vec<T>(L::ln2_high), f - (half_f2 - tail));

  const Vec<T> zero(T(0)), infinity = value_of<T>(Int{} + L::infinity);
  Vec<T> other = pick(below(x, zero), infinity - infinity, x);  // infinity and NaN stay
  other = pick(x.v == zero.v, zero - infinity, other);
  return pick(below(zero, x) & below(x, infinity), y, other);
}

// log(1 + u) for u between 0 and 1.
template <class T>
VL_INLINE Vec<T> log1p_of(Vec<T> u) {
  const Vec<T> s = u / (u + Vec<T>(T(2)));
  return s * polynomial(s * s, kCoefficients<T>.log1p);
}

// The sum of all lanes, in pairs.
template <class T>
VL_INLINE T sum_of(Vec<T> a) {
  T lanes[Vec<T>::size];
  a.store(lanes);
#pragma GCC unroll 8
  for (int width = Vec<T>::size / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// A sum of vectors in double.
template <class T>
struct WideSum;

template <>
struct WideSum<double> {
  Vec<double> total;

  VL_INLINE WideSum() : total(0.0) {}
  VL_INLINE void add(Vec<double> a) {
    total = total + a;
  }
  VL_INLINE double value() const {
    return sum_of(total);
  }
};

template <>
struct WideSum<float> {
  typedef float Half __attribute__((vector_size(VL_BYTES / 2)));
  Vec<double> low, high;

  VL_INLINE WideSum() : low(0.0), high(0.0) {}
  VL_INLINE void add(Vec<float> a) {
    Half halves[2];
    __builtin_memcpy(halves, &a.v, VL_BYTES);
    low = low + Vec<double>(__builtin_convertvector(halves[0], Vec<double>::Native));
    high = high + Vec<double>(__builtin_convertvector(halves[1], Vec<double>::Native));
  }
  VL_INLINE double value() const {
    return sum_of(low + high);
  }
};
