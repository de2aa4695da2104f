// The search of nearest_int8.h for one instruction set. No include guard: nearest_int8.cpp includes this for each.

#include "squared_distance.h"

#if defined(VL_AVX512)
typedef __m512i Whole;
constexpr int kRows = 14;
VL_INLINE Whole four_times(int32_t four) {
  return _mm512_set1_epi32(four);
}
VL_INLINE Whole add_products(Whole sum, Whole a, Whole b) {
  return _mm512_dpbusd_epi32(sum, a, b);
}
VL_INLINE Whole whole_at(const float* from) {
  return _mm512_loadu_si512(from);
}
VL_INLINE void put_whole(Whole a, float* to) {
  _mm512_storeu_si512(to, a);
}
VL_INLINE Vec<float> as_float(Whole a) {
  return Vec<float>((Vec<float>::Native)_mm512_cvtepi32_ps(a));
}
VL_INLINE Vec<float> lower(Vec<float> a, Vec<float> b) {
  return Vec<float>((Vec<float>::Native)_mm512_min_ps((__m512)a.v, (__m512)b.v));
}
VL_INLINE uint32_t not_above(Vec<float> a, Vec<float> b) {
  return _mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, _CMP_LE_OQ);
}
#else
typedef __m256i Whole;
constexpr int kRows = 6;
VL_INLINE Whole four_times(int32_t four) {
  return _mm256_set1_epi32(four);
}
VL_INLINE Whole add_products(Whole sum, Whole a, Whole b) {
  return _mm256_dpbusd_avx_epi32(sum, a, b);
}
VL_INLINE Whole whole_at(const float* from) {
  return _mm256_loadu_si256((const __m256i*)from);
}
VL_INLINE void put_whole(Whole a, float* to) {
  _mm256_storeu_si256((__m256i*)to, a);
}
VL_INLINE Vec<float> as_float(Whole a) {
  return Vec<float>((Vec<float>::Native)_mm256_cvtepi32_ps(a));
}
VL_INLINE Vec<float> lower(Vec<float> a, Vec<float> b) {
  return Vec<float>((Vec<float>::Native)_mm256_min_ps((__m256)a.v, (__m256)b.v));
}
VL_INLINE uint32_t not_above(Vec<float> a, Vec<float> b) {
  return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a.v, (__m256)b.v, _CMP_LE_OQ));
}
#endif

constexpr int kLanes = Vec<float>::size, kVectors = 2, kWidth = kVectors * kLanes;
// Panels whose bounds are in memory at a time, for the level-2 cache; and distances that are computed of a query: with
// more, products in float32 are faster.
constexpr int64_t kChunk = 32, kMost = 64;
constexpr float kNone = 3e38f;

// A query in integers, and the best row so far.
struct Query {
  const float* q;
  float square, scale, size, apart;  // |q|^2 and of q' its scale, |q'| and |q - q'|
  float best, limit;                 // least squared distance, and the bound above which no row is nearer
  int64_t index, computed;
};

VL_INLINE float limit_of(const Query& query, float rounding) {
  return (query.best - query.square) / 2 + rounding * (query.best + query.square);
}

// Rounds a query, less the centre, to integers from -127 to 127, which are stored 128 higher.
VL_INLINE Query rounded(const float* q, const float* centre, int64_t channels, float rounding, uint8_t* to, float* room) {
  Vec<float> most(0.0f), square(0.0f), size(0.0f), apart(0.0f);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Vec<float> d = take(q + c, channels - c) - take(centre + c, channels - c);
    put(d, room + c, channels - c);
    square = fma(d, d, square);
    most = Vec<float>(0.0f) - lower(Vec<float>(0.0f) - most, lower(d, Vec<float>(0.0f) - d));
  }
  float highest = 0;
  for (int i = 0; i < kLanes; ++i) highest = most.v[i] > highest ? most.v[i] : highest;
  Query query{q, square.sum(), 0, 0, 0, kNone, kNone, -1, 0};
  float inverse = 0;
  if (highest > 1e-30f) {
    query.scale = highest / 127;
    inverse = 127 / highest;
  }
  // Added to a number, this leaves its whole part in the lowest bits.
  const Vec<float> magic(12582912.0f);
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Vec<float> d = take(room + c, channels - c);
    const Vec<float> shifted = fma(d, Vec<float>(inverse), magic), whole = shifted - magic;
    const Vec<float> rest = d - whole * Vec<float>(query.scale);
    apart = fma(rest, rest, apart);
    size = fma(whole, whole, size);
    const Integers<float>::Native bits = bits_of(shifted);
    for (int i = 0; i < kLanes; ++i) to[c + i] = (uint8_t)(bits[i] ^ 0x80);
  }
  query.size = __builtin_sqrtf(size.sum()) * query.scale * (1 + rounding);
  query.apart = __builtin_sqrtf(apart.sum()) * (1 + rounding);
  return query;
}

// Sums of products of kRows queries and a panel, (kRows, kWidth).
VL_INLINE void products_of_panel(const int32_t* left, int64_t stride, const float* panel, int64_t quads, float* products) {
  Whole sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = whole_at(panel + 4 * kWidth + v * kLanes);
  }
  const float* right = panel + 5 * kWidth;
  for (int64_t k = 0; k < quads; ++k, right += kWidth) {
    Whole b[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) b[v] = whole_at(right + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Whole a = four_times(left[i * stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] = add_products(sum[i][v], a, b[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) put_whole(sum[i][v], products + i * kWidth + v * kLanes);
  }
}

// Lower bounds of the scores of kRows queries and a panel, and the least of each lane so far.
VL_INLINE void bounds_of_panel(const Query* queries, const float* products, const float* panel, float* bounds,
                               int64_t bounds_stride, Vec<float>* least) {
  for (int v = 0; v < kVectors; ++v) {
    const float* of = panel + v * kLanes;
    const Vec<float> half = Vec<float>::load(of), norm = Vec<float>::load(of + kWidth);
    const Vec<float> apart = Vec<float>::load(of + 2 * kWidth), scale = Vec<float>::load(of + 3 * kWidth);
    for (int i = 0; i < kRows; ++i) {
      const Vec<float> product = as_float(whole_at(products + i * kWidth + v * kLanes)) * scale;
      Vec<float> bound = fma(Vec<float>(-queries[i].apart), norm, half);
      bound = fma(Vec<float>(-queries[i].size), apart, bound);
      bound = fma(Vec<float>(-queries[i].scale), product, bound);
      bound.store(bounds + i * bounds_stride + v * kLanes);
      least[i] = lower(bound, least[i]);
    }
  }
}

VL_INLINE void compute(Query& query, const float* bank, int64_t index, int64_t channels, float rounding) {
  const float distance = squared_distance(query.q, bank + index * channels, channels);
  ++query.computed;
  if (distance < query.best || (distance == query.best && index < query.index)) {
    query.best = distance;
    query.index = index;
    query.limit = limit_of(query, rounding);
  }
}

// Computes the distances of those rows, from `first` on, that may be nearer than the best so far.
VL_INLINE void look_at(Query& query, const float* bounds, int64_t columns, Vec<float> least, const float* bank,
                       int64_t first, int64_t channels, float rounding) {
  float lowest = least.v[0];
  for (int i = 1; i < kLanes; ++i) lowest = least.v[i] < lowest ? least.v[i] : lowest;
  if (query.computed > kMost || !(lowest <= query.limit)) return;
  for (int64_t j = 0; j < columns; j += kLanes) {  // the likeliest first
    const uint32_t here = not_above(Vec<float>::load(bounds + j), Vec<float>(lowest));
    if (here == 0) continue;
    compute(query, bank, first + j + __builtin_ctz(here), channels, rounding);
    break;
  }
  const int64_t likeliest = query.index;
  for (int64_t j = 0; j < columns; j += kLanes) {
    for (uint32_t here = not_above(Vec<float>::load(bounds + j), Vec<float>(query.limit)); here != 0; here &= here - 1) {
      const int lane = __builtin_ctz(here);
      if (bounds[j + lane] > query.limit || first + j + lane == likeliest) continue;
      compute(query, bank, first + j + lane, channels, rounding);
      if (query.computed > kMost) return;
    }
  }
}

// Some tiles of kRows queries. `room` is for bounds, integers and a query.
void nearest_int8(const float* q, int64_t rows, int64_t first_tile, int64_t last_tile, const float* bank, const float* packed,
                  const Int8Layout& layout, char* memory, int64_t* indices) {
  const int64_t channels = layout.channels, stride = int8_stride(channels), chunk = kChunk * kWidth;
  const float rounding = layout.rounding(), *centre = packed + layout.centre_at();
  float *bounds = (float*)memory, *room = bounds + kRows * chunk;
  uint8_t* left = (uint8_t*)(room + stride);
  alignas(64) float products[kRows * kWidth];
  for (int64_t i = first_tile; i < last_tile; ++i) {
    const int64_t begin = i * kRows, count = rows - begin < kRows ? rows - begin : kRows;
    Query queries[kRows];
    for (int64_t r = 0; r < kRows; ++r) {  // the last tile repeats its last query
      const int64_t row = begin + (r < count ? r : count - 1);
      queries[r] = rounded(q + row * channels, centre, channels, rounding, left + r * stride, room);
      if (!(queries[r].square < 1e30f)) queries[r].computed = kMost + 1;
    }
    for (int64_t from = 0; from < layout.panels; from += kChunk) {
      const int64_t to = from + kChunk < layout.panels ? from + kChunk : layout.panels;
      Vec<float> least[kRows];
      for (int r = 0; r < kRows; ++r) least[r] = Vec<float>(kNone);
      for (int64_t p = from; p < to; ++p) {
        const float* panel = packed + layout.panel_at(p);
        products_of_panel((const int32_t*)left, stride / 4, panel, layout.quads, products);
        bounds_of_panel(queries, products, panel, bounds + (p - from) * kWidth, chunk, least);
      }
      for (int64_t r = 0; r < count; ++r) {
        look_at(queries[r], bounds + r * chunk, (to - from) * kWidth, least[r], bank, from * kWidth, channels,
                rounding);
      }
    }
    for (int64_t r = 0; r < count; ++r) indices[begin + r] = queries[r].computed > kMost ? -1 : queries[r].index;
  }
}

int64_t nearest_int8_rows() {
  return kRows;
}

int64_t nearest_int8_memory(int64_t channels) {
  return kRows * kChunk * kWidth * 4 + int8_stride(channels) * (4 + kRows);
}
