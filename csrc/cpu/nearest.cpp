// The nearest rows of a bank on the CPU. Matrix products are compared tile by tile as they are summed, so that the
// (T, N) of them are never in memory. A bank that is laid out once may be searched in 8-bit integers first.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <vector>

#include "../common/library.h"
#include "isa.h"
#include "nearest_int8.h"
#include "product.h"
#include "tensors.h"

namespace vitlite {

// What the kernels of every instruction set are told; T is float or double.
template <class T>
struct NearestGrads {
  int64_t rows, channels, k;
  const T* q;              // (rows, channels)
  const T* bank;           // (N, channels)
  const T* distances;      // (rows, k)
  const int64_t* indices;  // (rows, k)
  const T* grad;           // (rows, k), of the distances
  T* grad_q;               // (rows, channels), or null
  T* grad_bank;            // (N, channels), zeros, or null
};

}  // namespace vitlite

#define VITLITE_KERNEL "nearest_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

// With fewer queries laying out the bank costs more than it saves.
constexpr int64_t kFewRows = 28;
// With fewer rows in the bank a search in integers saves little.
constexpr int64_t kManyRows = 256;
// Products that are in memory at a time if torch computes them: columns, and all.
constexpr int64_t kBlockColumns = 1 << 13, kBlockElements = 1 << 20;
// Multiply-adds that are worth another thread.
constexpr int64_t kSearchGrain = 1 << 17;

int64_t divided_up(int64_t a, int64_t by) {
  return (a + by - 1) / by;
}

// The arguments of one call in memory order.
struct Search {
  IsaScope isa;
  Tensor q, bank;
  int64_t rows, count, channels, k;
  Kind kind;

  Search(const Tensor& q_in, const Tensor& bank_in, int64_t k) : q(in_memory_order(q_in)), bank(in_memory_order(bank_in)), k(k) {
    STD_TORCH_CHECK(q.dim() == 2 && bank.dim() == 2, "nearest: expected q (T, C) and bank (N, C)");
    rows = q.size(0);
    count = bank.size(0);
    channels = q.size(1);
    STD_TORCH_CHECK(bank.size(1) == channels && channels > 0, "bank: wrong shape");
    STD_TORCH_CHECK(k >= 1 && k <= count, "k: expected 1 to the number of rows of bank");
    kind = checked_kind(q, "q");
    STD_TORCH_CHECK(kind == Kind::float32 || kind == Kind::float64, "q: expected float32 or float64");
    STD_TORCH_CHECK(bank.scalar_type() == q.scalar_type(), "bank: another dtype than q");
  }
};

// A bank as it lies in a tensor (size,): panels of the product, half norms, integers, and the instruction sets that the
// panels and the integers are for. Without one there are no panels: torch multiplies.
template <class T>
struct PackedBank {
  int64_t count, channels, panels = 0, width = 0;
  int level, variant;

  // `kept`: whether the layout is for many calls, which integers pay in.
  PackedBank(int64_t count, int64_t channels, int level, bool kept)
      : count(count),
        channels(channels),
        level(level),
        variant(kept && worth_integers(count, channels) ? int8_variant(level) : 0) {
    if (level == 0) return;
    const T* type = nullptr;
    width = VITLITE_ISA_CALL(product_panel_columns(type));
    panels = divided_up(count, width);
  }
  int64_t norms_at() const {
    return panels * width * channels;
  }
  int64_t integers_at() const {
    return (norms_at() + count + 15) / 16 * 16;
  }
  Int8Layout integers() const {
    return Int8Layout(count, channels, variant);
  }
  int64_t size() const {
    return (variant > 0 ? integers_at() + integers().size() : norms_at() + count) + 1;
  }
  T tag() const {
    return T(level + 4 * variant);
  }
  void fill(const T* bank, T* to) const {
    T* half_norms = to + norms_at();
    if (level > 0) {
      for_range(panels, width * channels, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(product_pack(bank, int64_t{1}, channels, channels, count, first, last, to));
      });
    }
    for_range(count, channels, [&](int64_t begin, int64_t end) {
      VITLITE_ISA_CALL(nearest_half_norms(bank + begin * channels, end - begin, channels, half_norms + begin));
    });
    if constexpr (sizeof(T) == 4) {
      if (variant > 0) int8_pack(bank, integers(), to + integers_at());
    }
    to[size() - 1] = tag();
  }

 private:
  // Sums of products of 8 bits must fit into 32.
  static bool worth_integers(int64_t count, int64_t channels) {
    return sizeof(T) == 4 && count >= kManyRows && channels <= (1 << 15);
  }
};

template <class T>
Tensor packed_for(const Tensor& bank, int level, bool kept) {
  const PackedBank<T> layout(bank.size(0), bank.size(1), level, kept);
  const Tensor packed = new_tensor(bank, {layout.size()});
  layout.fill(data_of<const T>(bank), data_of<T>(packed));
  return packed;
}

// What is found: scores, which become distances, and indices of rows of the bank, (rows, k) each.
template <class T>
struct Found {
  T* scores;
  int64_t* indices;

  void clear(int64_t size) const {
    std::fill(scores, scores + size, std::numeric_limits<T>::infinity());
    std::fill(indices, indices + size, int64_t{-1});
  }
};

// The k best by products of torch, a block of them at a time.
template <class T>
void search_blocks(const Search& s, const T* half_norms, const Found<T>& found) {
  const int64_t columns = std::min(s.count, kBlockColumns), rows = std::max<int64_t>(1, std::min(s.rows, kBlockElements / columns));
  const Tensor block = new_tensor(s.q, {rows, columns});
  T* products = data_of<T>(block);
  for (int64_t begin = 0; begin < s.rows; begin += rows) {
    const Matrix<T> q(data_of<const T>(s.q) + begin * s.channels, std::min(rows, s.rows - begin), s.channels);
    for (int64_t from = 0; from < s.count; from += columns) {
      const Matrix<T> bank(data_of<const T>(s.bank) + from * s.channels, std::min(columns, s.count - from), s.channels);
      multiply(q, bank.transposed(), products);
      for_range(q.rows, bank.rows, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(nearest_merge(products + first * bank.rows, last - first, bank.rows, half_norms + from, from,
                                       s.k, found.scores + (begin + first) * s.k, found.indices + (begin + first) * s.k));
      });
    }
  }
}

// The k best by our own products. Threads share the queries, and the bank too if there are few of them.
template <class T>
void search_panels(const Search& s, const PackedBank<T>& layout, const T* packed, const Found<T>& found) {
  const Product<T> product{s.rows, s.count, s.channels, data_of<const T>(s.q), s.channels, 1, packed, nullptr, 0, false};
  const T* type = nullptr;
  const int64_t height = VITLITE_ISA_CALL(product_tile_rows(type)), tiles = divided_up(s.rows, height);
  const int64_t threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t parts = std::min(divided_up(layout.panels, 12), threads == 1 ? 1 : divided_up(2 * threads, tiles));
  const int64_t of_part = divided_up(layout.panels, parts), size = s.rows * s.k;
  Tensor part_scores, part_indices;
  Found<T> lists = found;
  if (parts > 1) {
    part_scores = empty(s.q, {parts * size}, s.q.scalar_type());
    part_indices = empty(s.q, {parts * size}, ScalarType::Long);
    lists = {data_of<T>(part_scores), data_of<int64_t>(part_indices)};
    lists.clear(parts * size);
  }
  const int64_t cost = height * s.channels * of_part * layout.width;
  parallel_for(
      0, parts * tiles, std::max<int64_t>(1, kSearchGrain / cost), [&](int64_t begin, int64_t end) {
        for (int64_t next; begin < end; begin = next) {
          const int64_t part = begin / tiles, first = begin % tiles;
          next = std::min(end, (part + 1) * tiles);
          VITLITE_ISA_CALL(nearest_block(product, packed + layout.norms_at(), s.k, first, first + next - begin,
                                         part * of_part, std::min((part + 1) * of_part, layout.panels),
                                         lists.scores + part * size, lists.indices + part * size));
        }
      });
  if (parts == 1) return;
  for_range(s.rows, parts * s.k, [&](int64_t begin, int64_t end) {
    VITLITE_ISA_CALL(nearest_join(lists.scores, lists.indices, parts, s.rows, begin, end, s.k, found.scores, found.indices));
  });
}

template <class T>
bool integers_serve(const Search& s, const PackedBank<T>& layout, const T* packed) {
  if (layout.variant == 0 || s.k > 1 || packed[layout.integers_at()] == 0) return false;
  // Threads share the queries alone.
  return s.rows >= kFewRows * static_cast<int64_t>(torch::stable::get_num_threads());
}

// The best by products of integers, and by those of float32 for what queries these cannot decide.
template <class T>
void search_integers(const Search& s, const PackedBank<T>& layout, const T* packed, const Found<T>& found) {
  if constexpr (sizeof(T) == 4) {
    const T* q = data_of<const T>(s.q);
    int8_search(q, s.rows, data_of<const T>(s.bank), packed + layout.integers_at(), layout.integers(), layout.variant,
                found.indices);
    std::vector<int64_t> open;
    for (int64_t r = 0; r < s.rows; ++r) {
      if (found.indices[r] < 0) open.push_back(r);
    }
    if (open.empty()) return;
    const int64_t count = static_cast<int64_t>(open.size());
    const Tensor rest = new_tensor(s.q, {count, s.channels}), scores = new_tensor(s.q, {count});
    const Tensor indices = empty(s.q, {count}, ScalarType::Long);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(q + open[i] * s.channels, s.channels, data_of<T>(rest) + i * s.channels);
    }
    const Found<T> of_rest{data_of<T>(scores), data_of<int64_t>(indices)};
    of_rest.clear(count);
    search_panels(Search(rest, s.bank, 1), layout, packed, of_rest);
    for (int64_t i = 0; i < count; ++i) found.indices[open[i]] = of_rest.indices[i];
  }
}

// Scores that are not numbers, or infinite, are above none: the first rows that are not there take these places.
void complete(int64_t k, int64_t* indices) {
  int64_t unused = 0;
  for (int64_t i = 0; i < k; ++i) {
    if (indices[i] >= 0) continue;
    while (std::find(indices, indices + i, unused) != indices + i) ++unused;
    indices[i] = unused;
  }
}

template <class T>
void search(const Search& s, const PackedBank<T>& layout, const T* packed, const Found<T>& found) {
  found.clear(s.rows * s.k);
  if (s.rows == 0) return;
  if (layout.level > 0 && integers_serve(s, layout, packed)) {
    search_integers(s, layout, packed, found);
  } else if (layout.level > 0) {
    search_panels(s, layout, packed, found);
  } else {
    search_blocks(s, packed + layout.norms_at(), found);
  }
  for_range(s.rows, s.k * s.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) complete(s.k, found.indices + r * s.k);
    VITLITE_ISA_CALL(nearest_distances(data_of<const T>(s.q) + begin * s.channels, data_of<const T>(s.bank), end - begin, s.channels,
                                       s.k, found.scores + begin * s.k, found.indices + begin * s.k));
  });
}

std::tuple<Tensor, Tensor> searched(const Search& s, const Tensor& packed, int level, bool kept) {
  const Tensor distances = new_tensor(s.q, {s.rows, s.k}), indices = empty(s.q, {s.rows, s.k}, ScalarType::Long);
  in_compute_type(s.kind, [&](auto t) {
    using T = decltype(t);
    const PackedBank<T> layout(s.count, s.channels, level, kept);
    search<T>(s, layout, data_of<const T>(packed), {data_of<T>(distances), data_of<int64_t>(indices)});
  });
  return {distances, indices};
}

Tensor packed_bank(const Tensor& bank, Kind kind, int level, bool kept) {
  return kind == Kind::float64 ? packed_for<double>(bank, level, kept) : packed_for<float>(bank, level, kept);
}

std::tuple<Tensor, Tensor> nearest_forward(const Tensor& q, const Tensor& bank, int64_t k) {
  const Search s(q, bank, k);
  const int level = s.rows < kFewRows ? 0 : isa_level();
  return searched(s, packed_bank(s.bank, s.kind, level, false), level, false);
}

// The bank as nearest_packed takes it, in a layout for this processor.
Tensor nearest_pack(const Tensor& bank) {
  const Search s(bank, bank, 1);
  return packed_bank(s.bank, s.kind, isa_level(), true);
}

std::tuple<Tensor, Tensor> nearest_packed(const Tensor& q, const Tensor& bank, const Tensor& packed, int64_t k) {
  const Search s(q, bank, k);
  STD_TORCH_CHECK(packed.dim() == 1 && packed.is_contiguous() && packed.scalar_type() == s.q.scalar_type() &&
                      packed.numel() > 0,
                  "packed: not of this bank");
  const int level = isa_level();
  bool fits = false;
  in_compute_type(s.kind, [&](auto t) {
    using T = decltype(t);
    const PackedBank<T> layout(s.count, s.channels, level, true);
    fits = packed.numel() == layout.size() && data_of<const T>(packed)[layout.size() - 1] == layout.tag();
  });
  // Or it was packed for another instruction set.
  return searched(s, fits ? packed : packed_bank(s.bank, s.kind, level, true), level, true);
}

std::tuple<Tensor, Tensor> nearest_backward(const Tensor& grad, const Tensor& q, const Tensor& bank,
                                            const Tensor& distances, const Tensor& indices, int64_t k, bool need_q,
                                            bool need_bank) {
  const Search s(q, bank, k);
  const Tensor by = in_memory_order(grad), found = in_memory_order(distances), rows = in_memory_order(indices);
  const int64_t size = s.rows * k;
  STD_TORCH_CHECK(by.numel() == size && by.scalar_type() == s.q.scalar_type(), "grad: wrong shape or dtype");
  STD_TORCH_CHECK(found.numel() == size && found.scalar_type() == s.q.scalar_type(), "distances: wrong shape or dtype");
  STD_TORCH_CHECK(rows.numel() == size && rows.scalar_type() == ScalarType::Long, "indices: wrong shape or dtype");
  const int64_t* index = data_of<const int64_t>(rows);
  STD_TORCH_CHECK(std::all_of(index, index + size, [&](int64_t i) { return i >= 0 && i < s.count; }),
                  "indices: not those of rows of bank");
  const Tensor grad_q = new_tensor(s.q, {s.rows, s.channels}, need_q);
  const Tensor grad_bank = new_tensor(s.q, {s.count, s.channels}, need_bank);
  in_compute_type(s.kind, [&](auto t) {
    using T = decltype(t);
    T* to_bank = need_bank ? data_of<T>(grad_bank) : nullptr;
    if (need_bank) std::fill(to_bank, to_bank + s.count * s.channels, T(0));
    const NearestGrads<T> grads{s.rows,
                                s.channels,
                                k,
                                data_of<const T>(s.q),
                                data_of<const T>(s.bank),
                                data_of<const T>(found),
                                index,
                                data_of<const T>(by),
                                need_q ? data_of<T>(grad_q) : nullptr,
                                to_bank};
    // By columns: a row of the bank may be the nearest of many queries, and its gradient is added up in their order.
    constexpr int64_t kColumns = 64;
    for_range(divided_up(s.channels, kColumns), std::max<int64_t>(1, size) * kColumns, [&](int64_t first, int64_t last) {
      VITLITE_ISA_CALL(nearest_backward_columns(grads, first * kColumns, std::min(last * kColumns, s.channels)));
    });
  });
  return {grad_q, grad_bank};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("nearest_forward", TORCH_BOX(&vitlite::nearest_forward));
  m.impl("nearest_backward", TORCH_BOX(&vitlite::nearest_backward));
  m.impl("nearest_pack", TORCH_BOX(&vitlite::nearest_pack));
  m.impl("nearest_packed", TORCH_BOX(&vitlite::nearest_packed));
}
