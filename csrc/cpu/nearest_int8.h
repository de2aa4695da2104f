// A search for the nearest row whose products are of 8-bit integers, if the processor multiplies these (VNNI).
//
// It finds what a search in float32 finds. A row is compared by |b|^2 / 2 - q b, and what rounding to integers may change
// of that is at most |q - q'| |b| + |q'| |b - b'|, where q' and b' are what was rounded to. That much less is a lower
// bound. Only rows whose bound is not above the score of the best so far can be nearer: a few of thousands, whose
// distances are computed in float32.
#pragma once

#include <cstdint>

namespace vitlite {

// For which instruction set the integers are laid out at this level of isa.h: 0 none, 1 AVX-VNNI, 2 AVX512-VNNI.
int int8_variant(int level);

// Where the parts of the layout of a bank (count, channels) begin, in floats.
struct Int8Layout {
  int64_t count, channels, quads, width, panels;

  Int8Layout(int64_t count, int64_t channels, int variant)
      : count(count),
        channels(channels),
        quads((channels + 3) / 4),
        width(variant == 2 ? 32 : 16),
        panels((count + width - 1) / width) {}
  // First whether the bank can be compared so, then the mean of its rows: all are taken relative to that.
  int64_t centre_at() const {
    return 16;
  }
  // Then panels of `width` rows: half of their squared norms less a rounding, norms, distances to what they are rounded
  // to, scales, what the sum of products begins with (int32), and the integers, four of a row beside each other.
  int64_t panel_size() const {
    return (5 + quads) * width;
  }
  int64_t panel_at(int64_t panel) const {
    return centre_at() + (channels + 15) / 16 * 16 + panel * panel_size();
  }
  int64_t size() const {
    return panel_at(panels);
  }
  // What float32 may round away of a sum over all channels, relative.
  float rounding() const {
    return 1.2e-7f * (8 + static_cast<float>(channels) / 8);
  }
};

// Lays out a bank, which cannot be compared so if a number is not finite or too large.
void int8_pack(const float* bank, const Int8Layout& layout, float* to);

// Indices of the nearest row for queries (rows, channels); -1 if there would be too many distances to compute, or if a
// number is not finite.
void int8_search(const float* q, int64_t rows, const float* bank, const float* packed, const Int8Layout& layout,
                 int variant, int64_t* indices);

}  // namespace vitlite
