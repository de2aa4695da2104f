// The layout of a bank in 8-bit integers, and the choice of the instruction set that searches it.

#include "nearest_int8.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/host_device.h"
#include "../common/library.h"
#include "isa.h"
#include "target.h"
#include "tensors.h"

// Compilers that know both instruction sets.
#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define VITLITE_VNNI
#include <immintrin.h>
#endif

namespace vitlite {

// Bytes of a query in integers: whole cache lines, and rows that do not share their place in the level-1 cache.
constexpr int64_t int8_stride(int64_t channels) {
  const int64_t lines = (channels + 63) / 64;
  return (lines % 32 == 0 ? lines + 1 : lines) * 64;
}

}  // namespace vitlite

#if defined(VITLITE_VNNI)

VL_TARGET("avx2,fma,f16c,avxvnni")
#define VL_BYTES 32
#define VL_AVX2
namespace vitlite::avx_vnni {
#include "simd.h"
#include "nearest_int8_kernel.h"
}  // namespace vitlite::avx_vnni
#undef VL_AVX2
#undef VL_BYTES
#undef VL_INLINE
VL_TARGET_END

#if defined(__clang__)
VL_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#else
VL_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define VL_BYTES 64
#define VL_AVX512
namespace vitlite::avx512_vnni {
#include "simd.h"
#include "nearest_int8_kernel.h"
}  // namespace vitlite::avx512_vnni
VL_TARGET_END

#endif

namespace vitlite {
namespace {

// Rows of a panel from `first` on, less the centre; false if a number is not finite or too large.
bool pack_panel(const float* bank, const Int8Layout& layout, const float* centre, int64_t first, float* panel) {
  const int64_t width = layout.width, channels = layout.channels;
  std::memset(panel, 0, static_cast<size_t>(layout.panel_size()) * sizeof(float));
  auto* starts = reinterpret_cast<int32_t*>(panel + 4 * width);
  auto* integers = reinterpret_cast<int8_t*>(panel + 5 * width);
  std::vector<float> row(static_cast<size_t>(channels));
  bool finite = true;
  for (int64_t j = 0; j < width; ++j) {
    if (first + j >= layout.count) {  // no row
      panel[j] = std::numeric_limits<float>::max();
      continue;
    }
    float highest = 0;
    double square = 0, apart = 0;
    for (int64_t c = 0; c < channels; ++c) {
      row[c] = bank[(first + j) * channels + c] - centre[c];
      highest = std::max(highest, std::abs(row[c]));
      square += double(row[c]) * row[c];
    }
    if (!(square < 1e30)) {
      finite = false;
      continue;
    }
    const float scale = highest > 1e-30f ? highest / 127 : 0, inverse = highest > 1e-30f ? 127 / highest : 0;
    int32_t sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const auto whole = static_cast<int32_t>(std::lrint(row[c] * inverse));
      integers[(c / 4 * width + j) * 4 + c % 4] = static_cast<int8_t>(whole);
      sum += whole;
      const double rest = row[c] - double(whole) * scale;
      apart += rest * rest;
    }
    panel[j] = static_cast<float>(square / 2 - layout.rounding() * square);
    panel[width + j] = static_cast<float>(std::sqrt(square));
    panel[2 * width + j] = static_cast<float>(std::sqrt(apart));
    panel[3 * width + j] = scale;
    starts[j] = -128 * sum;  // the integers of queries are 128 higher than they should be
  }
  return finite;
}

}  // namespace

int int8_variant(int level) {
#if defined(VITLITE_VNNI)
  static const bool narrow = __builtin_cpu_supports("avxvnni"), wide = __builtin_cpu_supports("avx512vnni");
  return level == 2 && wide ? 2 : level == 1 && narrow ? 1 : 0;
#else
  (void)level;
  return 0;
#endif
}

void int8_pack(const float* bank, const Int8Layout& layout, float* to) {
  float* centre = to + layout.centre_at();
  std::vector<double> sums(static_cast<size_t>(layout.channels));
  for (int64_t i = 0; i < layout.count; ++i) {
    for (int64_t c = 0; c < layout.channels; ++c) sums[c] += bank[i * layout.channels + c];
  }
  std::fill(to, to + layout.panel_at(0), 0.0f);
  for (int64_t c = 0; c < layout.channels; ++c) centre[c] = static_cast<float>(sums[c] / double(layout.count));
  std::vector<char> finite(static_cast<size_t>(layout.panels));
  for_range(layout.panels, layout.width * layout.channels, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      finite[p] = pack_panel(bank, layout, centre, p * layout.width, to + layout.panel_at(p));
    }
  });
  to[0] = std::all_of(finite.begin(), finite.end(), [](char one) { return one != 0; }) ? 1 : 0;
}

void int8_search(const float* q, int64_t rows, const float* bank, const float* packed, const Int8Layout& layout,
                 int variant, int64_t* indices) {
#if defined(VITLITE_VNNI)
  const bool wide = variant == 2;
  const int64_t height = wide ? avx512_vnni::nearest_int8_rows() : avx_vnni::nearest_int8_rows();
  const int64_t bytes =
      wide ? avx512_vnni::nearest_int8_memory(layout.channels) : avx_vnni::nearest_int8_memory(layout.channels);
  parallel_for(0, (rows + height - 1) / height, 1, [&](int64_t first, int64_t last) {
    char* memory = thread_memory(bytes);
    if (wide) {
      avx512_vnni::nearest_int8(q, rows, first, last, bank, packed, layout, memory, indices);
    } else {
      avx_vnni::nearest_int8(q, rows, first, last, bank, packed, layout, memory, indices);
    }
  });
#else
  (void)q, (void)bank, (void)packed, (void)layout, (void)variant;
  std::fill(indices, indices + rows, int64_t{-1});
#endif
}

}  // namespace vitlite
