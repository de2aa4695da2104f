// The squared distance of two rows, from their differences. No include guard, see each_isa.h.

#include "vec_math.h"

template <class T>
VL_INLINE T squared_distance(const T* a, const T* b, int64_t n) {
  Vec<T> sum(T(0)), more(T(0));
  for (int64_t i = 0; i < n; i += 2 * Vec<T>::size) {
    const Vec<T> d = take(a + i, n - i) - take(b + i, n - i);
    sum = fma(d, d, sum);
    if (i + Vec<T>::size < n) {
      const Vec<T> e = take(a + i + Vec<T>::size, n - i - Vec<T>::size) - take(b + i + Vec<T>::size, n - i - Vec<T>::size);
      more = fma(e, e, more);
    }
  }
  return sum_of(sum + more);
}
