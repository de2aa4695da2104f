// Vectors of one instruction set. No include guard: each_isa.h includes this once per set, inside its namespace,
// with VL_BYTES (vector width) and VL_AVX512 or VL_AVX2 defined as the set has them.
//
// Arithmetic, comparisons and ?: are those of the GCC and Clang vector extension, which Clang and GCC share; what the
// extension does not have (fused multiply-add, partial loads) is written out per set. A kernel that is included with
// this file must not call templates or inline functions of std: the linker would keep one copy for the whole library,
// perhaps the AVX-512 one, and the baseline would jump into it.

#define VL_INLINE inline __attribute__((always_inline))

// Spelled out for each type, because GCC drops the attribute from a type that depends on a template parameter.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Native __attribute__((vector_size(VL_BYTES)));
  typedef float Unaligned __attribute__((vector_size(VL_BYTES), aligned(4), may_alias));
};
template <>
struct Lanes<double> {
  typedef double Native __attribute__((vector_size(VL_BYTES)));
  typedef double Unaligned __attribute__((vector_size(VL_BYTES), aligned(8), may_alias));
};

#if defined(VL_AVX512)
VL_INLINE Lanes<float>::Native broadcast(float scalar) {
  return (Lanes<float>::Native)_mm512_set1_ps(scalar);
}
VL_INLINE Lanes<double>::Native broadcast(double scalar) {
  return (Lanes<double>::Native)_mm512_set1_pd(scalar);
}
#elif defined(VL_AVX2)
VL_INLINE Lanes<float>::Native broadcast(float scalar) {
  return (Lanes<float>::Native)_mm256_set1_ps(scalar);
}
VL_INLINE Lanes<double>::Native broadcast(double scalar) {
  return (Lanes<double>::Native)_mm256_set1_pd(scalar);
}
#else
VL_INLINE Lanes<float>::Native broadcast(float scalar) {
  return Lanes<float>::Native{scalar, scalar, scalar, scalar};
}
VL_INLINE Lanes<double>::Native broadcast(double scalar) {
  return Lanes<double>::Native{scalar, scalar};
}
#endif

template <class T>
struct Vec {
  static constexpr int size = VL_BYTES / sizeof(T);
  typedef typename Lanes<T>::Native Native;
  typedef typename Lanes<T>::Unaligned Unaligned;

  Native v;

  VL_INLINE Vec() {}
  VL_INLINE Vec(Native native) : v(native) {}
  VL_INLINE explicit Vec(T scalar) : v(broadcast(scalar)) {}

  static VL_INLINE Vec load(const T* from) {
    return Vec(Native(*reinterpret_cast<const Unaligned*>(from)));
  }
  VL_INLINE void store(T* to) const {
    *reinterpret_cast<Unaligned*>(to) = v;
  }

  // The first n lanes, 0 <= n <= size; the others are zero, or stay as they are in memory.
  static VL_INLINE Vec load(const T* from, int64_t n) {
#if defined(VL_AVX512)
    if constexpr (sizeof(T) == 4) {
      return Vec((Native)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), from));
    } else {
      return Vec((Native)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), from));
    }
#else
    T lanes[size] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = from[i];
    return load(lanes);
#endif
  }
  VL_INLINE void store(T* to, int64_t n) const {
#if defined(VL_AVX512)
    if constexpr (sizeof(T) == 4) {
      _mm512_mask_storeu_ps(to, __mmask16((1u << n) - 1), (__m512)v);
    } else {
      _mm512_mask_storeu_pd(to, __mmask8((1u << n) - 1), (__m512d)v);
    }
#else
    T lanes[size];
    store(lanes);
    for (int64_t i = 0; i < n; ++i) to[i] = lanes[i];
#endif
  }

  friend VL_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend VL_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend VL_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend VL_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }

  VL_INLINE T sum() const {
    T total = 0;
    for (int i = 0; i < size; ++i) total += v[i];
    return total;
  }
};

// a * b + c, rounded once if the set has the instruction.
template <class T>
VL_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  typedef typename Vec<T>::Native Native;
#if defined(VL_AVX512)
  if constexpr (sizeof(T) == 4) {
    return Vec<T>((Native)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
  } else {
    return Vec<T>((Native)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v));
  }
#elif defined(VL_AVX2)
  if constexpr (sizeof(T) == 4) {
    return Vec<T>((Native)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
  } else {
    return Vec<T>((Native)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v));
  }
#else
  return a * b + c;
#endif
}

// Lanes k .. k + size of the two vectors side by side. If the set has an instruction for it, this is cheaper than a
// load that crosses a cache line, as every second or every unaligned one does.
#if defined(VL_AVX512)
template <int k, class T>
VL_INLINE Vec<T> joined(Vec<T> low, Vec<T> high) {
  const __m512i a = (__m512i)low.v, b = (__m512i)high.v;
  typedef typename Vec<T>::Native Native;
  if constexpr (sizeof(T) == 4) {
    return Vec<T>((Native)_mm512_alignr_epi32(b, a, k));
  } else {
    return Vec<T>((Native)_mm512_alignr_epi64(b, a, k));
  }
}
#endif
