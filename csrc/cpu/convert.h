// Rows of any floating dtype to and from the dtype that is computed in. No include guard, see simd.h; the including file
// includes torch's Half.h before.

static inline void widen(const uint16_t* from, float* to, int64_t n, bool is_bfloat) {
  if (is_bfloat) {
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = uint32_t(from[i]) << 16;
      __builtin_memcpy(to + i, &bits, 4);
    }
    return;
  }
  int64_t i = 0;
#if defined(VL_AVX2) || defined(VL_AVX512)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
#endif
  for (; i < n; ++i) to[i] = torch::headeronly::detail::fp16_ieee_to_fp32_value(from[i]);
}

static inline void narrow(const float* from, uint16_t* to, int64_t n, bool is_bfloat) {
  if (is_bfloat) {
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      __builtin_memcpy(&bits, from + i, 4);
      const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
      to[i] = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
    }
    return;
  }
  int64_t i = 0;
#if defined(VL_AVX2) || defined(VL_AVX512)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) to[i] = torch::headeronly::detail::fp16_ieee_from_fp32_value(from[i]);
}

// n elements of dtype `kind` at `from`, in the dtype of the computation: float, or double for float64.
static inline void load_row(const void* from, Kind kind, float* to, int64_t n) {
  if (kind == Kind::float32) {
    __builtin_memcpy(to, from, n * sizeof(float));
  } else {
    widen(static_cast<const uint16_t*>(from), to, n, kind == Kind::bfloat16);
  }
}

static inline void load_row(const void* from, Kind, double* to, int64_t n) {
  __builtin_memcpy(to, from, n * sizeof(double));
}

static inline void store_row(const float* from, void* to, Kind kind, int64_t n) {
  if (kind == Kind::float32) {
    __builtin_memcpy(to, from, n * sizeof(float));
  } else {
    narrow(from, static_cast<uint16_t*>(to), n, kind == Kind::bfloat16);
  }
}

static inline void store_row(const double* from, void* to, Kind, int64_t n) {
  __builtin_memcpy(to, from, n * sizeof(double));
}
