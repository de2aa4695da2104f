// The one-dimensional window of SSIM, along a row and down the columns. No include guard, see each_isa.h.

// The numbers 0 .. n - 1 as template arguments.
template <int... k>
struct Numbers {};
template <int n, int... k>
struct Counted {
  typedef typename Counted<n - 1, n - 1, k...>::Type Type;
};
template <int... k>
struct Counted<0, k...> {
  typedef Numbers<k...> Type;
};
template <int n>
using Steps = typename Counted<n>::Type;

// K neighbouring numbers for every lane: of the first lane from[0] .. from[K - 1].
template <class T, int K>
struct Neighbours {
#if defined(VL_AVX512)
  static constexpr int lanes = Vec<T>::size;
  static_assert(K <= 2 * lanes + 1, "three vectors hold all neighbours");
  Vec<T> pieces[3];

  VL_INLINE explicit Neighbours(const T* from) {
    pieces[0] = Vec<T>::load(from);
    pieces[1] = Vec<T>::load(from + lanes);
    if constexpr (K > lanes + 1) pieces[2] = Vec<T>::load(from + 2 * lanes);
  }
  template <int k>
  VL_INLINE Vec<T> at() const {
    if constexpr (k % lanes == 0) {
      return pieces[k / lanes];
    } else {
      return joined<k % lanes>(pieces[k / lanes], pieces[k / lanes + 1]);
    }
  }
#else
  const T* from;

  VL_INLINE explicit Neighbours(const T* from) : from(from) {}
  template <int k>
  VL_INLINE Vec<T> at() const {
    return Vec<T>::load(from + k);
  }
#endif
};

// The window; K is its length if the compiler is to know it and keep the weights in registers, or 0.
template <class T, int K>
struct Window {
  int64_t length;
  const T* weights;
  Vec<T> kept[K / 2 + 1];

  VL_INLINE Window(int64_t length, const T* weights) : length(length), weights(weights) {
#pragma GCC unroll 16
    for (int k = 0; k <= K / 2; ++k) kept[k] = Vec<T>(weights[k]);
  }

  VL_INLINE int64_t size() const {
    return K ? K : length;
  }

  // The filter along a row: `from` is the first of size() neighbours. Equal weights are shared by the two sides.
  VL_INLINE Vec<T> along(const T* from) const {
    if constexpr (K != 0) {
      return along_steps(from, Steps<K / 2>{});
    } else {
      const int64_t half = length / 2;
      Vec<T> sum = Vec<T>(weights[half]) * Vec<T>::load(from + half);
      for (int64_t k = 0; k < half; ++k) {
        sum = fma(Vec<T>(weights[k]), Vec<T>::load(from + k) + Vec<T>::load(from + (length - 1 - k)), sum);
      }
      return sum;
    }
  }

  template <int... k>
  VL_INLINE Vec<T> along_steps(const T* from, Numbers<k...>) const {
    const Neighbours<T, K> near(from);
    Vec<T> sum = kept[K / 2] * near.template at<K / 2>();
    ((sum = fma(kept[k], near.template at<k>() + near.template at<K - 1 - k>(), sum)), ...);
    return sum;
  }

  // The filter down the columns for kBlock output rows; rows[t] + at is the place in the t-th of size() + kBlock - 1 rows.
  VL_INLINE void down(const T* const* rows, int64_t at, Vec<T>* sums) const {
    if constexpr (K != 0) {
#pragma GCC unroll 32
      for (int t = 0; t < K + kBlock - 1; ++t) {
        const Vec<T> row = Vec<T>::load(rows[t] + at);
#pragma GCC unroll 8
        for (int v = 0; v < kBlock; ++v) {
          const int k = t - v;
          if (k == 0) sums[v] = kept[0] * row;
          if (k > 0 && k < K) sums[v] = fma(kept[k < K - 1 - k ? k : K - 1 - k], row, sums[v]);
        }
      }
    } else {
      for (int v = 0; v < kBlock; ++v) {
        Vec<T> sum = Vec<T>(weights[0]) * Vec<T>::load(rows[v] + at);
        for (int64_t k = 1; k < length; ++k) sum = fma(Vec<T>(weights[k]), Vec<T>::load(rows[v + k] + at), sum);
        sums[v] = sum;
      }
    }
  }
};
