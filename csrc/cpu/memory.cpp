// Reading from a memory (Gong et al. 2019, equations 3 to 7 and 9) on the CPU: matrix products around one pass over
// the rows between them, for blocks of rows, so that only a block of the (T, N) weights is held at a time.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <tuple>

#include "../common/library.h"
#include "product.h"
#include "tensors.h"

namespace vitlite {

// What the kernels of every instruction set are told; T is float or double.

// Rows of queries against all items. Matrices hold their rows one after the other.
template <class T>
struct MemoryRows {
  int64_t items, channels;
  T limit, temperature;
  const T* z;   // (rows, channels)
  T* weights;   // (rows, items): products of z and the unit items; become the normalised weights
  T* entropy;   // (rows); if null, the weights are all that is wanted
  T* largest;   // (rows), of the scores, over log 2
  T* inverses;  // (rows), of the sums of exponentials
  T* totals;    // (rows), sums of the shrunk weights
};

// Gradients of the same rows.
template <class T>
struct MemoryGradRows {
  int64_t items, channels;
  T temperature;
  const T* z;             // (rows, channels)
  const T* weights;       // (rows, items), normalised
  T* grad;                // (rows, items): that of the weights; becomes that of the products of z and the unit items
  const T* grad_entropy;  // (rows)
};

}  // namespace vitlite

#define VITLITE_KERNEL "memory_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

// Elements of a block of weights, and the fewest rows of one: fewer make the matrix products slow.
constexpr int64_t kBlockElements = 1 << 20, kFewestRows = 64;
// Blocks of about the same size, a multiple of what the matrix products take at a time on one or several threads.
int64_t block_rows(int64_t rows, int64_t items) {
  constexpr int64_t kMultiple = 84;
  const int64_t most = std::max(kFewestRows, kBlockElements / items);
  const int64_t blocks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::min(rows, ((rows + blocks - 1) / blocks + kMultiple - 1) / kMultiple * kMultiple);
}

// The arguments of one call in memory order.
struct Memory {
  IsaScope isa;
  Tensor z, items;
  int64_t rows, count, channels;
  double threshold, temperature;
  Kind kind;

  Memory(const Tensor& z_in, const Tensor& items_in, std::optional<double> given, double temperature)
      : z(in_memory_order(z_in)),
        items(in_memory_order(items_in)),
        temperature(temperature) {
    STD_TORCH_CHECK(z.dim() == 2 && items.dim() == 2, "memory_read: expected z (T, C) and items (N, C)");
    rows = z.size(0);
    count = items.size(0);
    channels = z.size(1);
    STD_TORCH_CHECK(items.size(1) == channels && count > 0 && channels > 0, "items: wrong shape");
    threshold = given.value_or(1.0 / count);
    kind = checked_kind(z, "z");
    STD_TORCH_CHECK(kind == Kind::float32 || kind == Kind::float64, "z: expected float32 or float64");
    STD_TORCH_CHECK(items.scalar_type() == z.scalar_type(), "items: another dtype than z");
  }

  Tensor empty(std::initializer_list<int64_t> shape, bool wanted = true) const {
    return new_tensor(z, shape, wanted);
  }
  // Weights up to here are at the threshold: N equal ones, each of which rounding may leave a little above 1 / N.
  template <class T>
  T limit() const {
    return T(threshold * (1 + 8 * double(std::numeric_limits<T>::epsilon())));
  }
  template <class T>
  Tensor unit_items() const {
    const Tensor unit = empty({count, channels});
    const T* from = data_of<const T>(items);
    T* to = data_of<T>(unit);
    for_range(count, channels, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * channels;
      VITLITE_ISA_CALL(memory_unit_rows(from + at, end - begin, channels, to + at));
    });
    return unit;
  }
};

template <class T>
void forward(const Memory& memory, const Tensor& output, const Tensor& entropy, const Tensor& sums,
             const Tensor& kept) {
  const int64_t n = memory.count, c = memory.channels, block = block_rows(memory.rows, n);
  const bool keep = kept.numel() > 0;
  const Tensor unit = memory.unit_items<T>(), own = memory.empty({block, n}, !keep);
  const RightFactor<T> to_scores(Matrix<T>(data_of<T>(unit), n, c).transposed());
  const RightFactor<T> to_output(Matrix<T>(data_of<const T>(memory.items), n, c));
  for (int64_t begin = 0; begin < memory.rows; begin += block) {
    const int64_t count = std::min(block, memory.rows - begin);
    const T* z = data_of<const T>(memory.z) + begin * c;
    T* weights = keep ? data_of<T>(kept) + begin * n : data_of<T>(own);
    to_scores.multiply(Matrix<T>(z, count, c), weights);
    T* found = data_of<T>(sums) + begin;
    const MemoryRows<T> rows{n,
                             c,
                             memory.limit<T>(),
                             T(memory.temperature),
                             z,
                             weights,
                             data_of<T>(entropy) + begin,
                             found,
                             found + memory.rows,
                             found + 2 * memory.rows};
    for_range(count, n, [&](int64_t first, int64_t last) { VITLITE_ISA_CALL(memory_forward_rows(rows, first, last)); });
    to_output.multiply(Matrix<T>(weights, count, n), data_of<T>(output) + begin * c);
  }
}

// Output and entropy; what the weights were divided by, (3, T), that is the largest score of a query over log 2, the
// inverse sum of its exponentials and the sum of its shrunk weights; and if `save` the normalised weights (T, N), which the backward
// pass computes again otherwise.
std::tuple<Tensor, Tensor, Tensor, Tensor> memory_read_forward(const Tensor& z, const Tensor& items,
                                                               std::optional<double> threshold, double temperature,
                                                               bool save) {
  const Memory memory(z, items, threshold, temperature);
  const Tensor output = memory.empty({memory.rows, memory.channels}), entropy = memory.empty({memory.rows});
  const Tensor sums = memory.empty({3, memory.rows}), weights = memory.empty({memory.rows, memory.count}, save);
  in_compute_type(memory.kind, [&](auto t) { forward<decltype(t)>(memory, output, entropy, sums, weights); });
  return {output, entropy, sums, weights};
}

struct Grads {
  Tensor output, entropy, weights;
  Tensor z, items;  // results; empty if not wanted
  bool need_z, need_items;
};

template <class T>
void backward(const Memory& memory, const Grads& grads) {
  const int64_t n = memory.count, c = memory.channels, block = block_rows(memory.rows, n);
  const bool kept = grads.weights.numel() > 0;
  const Tensor unit = memory.unit_items<T>(), own = memory.empty({block, n}, !kept), scores = memory.empty({block, n});
  const Tensor by_weights = memory.empty({n, c}, grads.need_items);
  const Matrix<T> unit_items(data_of<T>(unit), n, c), items(data_of<const T>(memory.items), n, c);
  const RightFactor<T> to_weights(items.transposed());
  RightFactor<T> to_scores, to_z, rows_of_z, rows_of_grad;
  if (!kept) to_scores.set(unit_items.transposed());
  if (grads.need_z) to_z.set(unit_items);
  for (int64_t begin = 0; begin < memory.rows; begin += block) {
    const int64_t count = std::min(block, memory.rows - begin);
    const Matrix<T> z(data_of<const T>(memory.z) + begin * c, count, c);
    const Matrix<T> grad_output(data_of<const T>(grads.output) + begin * c, count, c);
    T* weights = kept ? data_of<T>(grads.weights) + begin * n : data_of<T>(own);
    if (!kept) {
      to_scores.multiply(z, weights);
      const MemoryRows<T> again{n, c, memory.limit<T>(), T(memory.temperature), z.data, weights, {}, {}, {}, {}};
      for_range(count, n, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(memory_forward_rows(again, first, last));
      });
    }
    to_weights.multiply(grad_output, data_of<T>(scores));
    const MemoryGradRows<T> rows{
        n, c, T(memory.temperature), z.data, weights, data_of<T>(scores), data_of<const T>(grads.entropy) + begin};
    for_range(count, n, [&](int64_t first, int64_t last) { VITLITE_ISA_CALL(memory_backward_rows(rows, first, last)); });
    const Matrix<T> by_scores(data_of<T>(scores), count, n);
    if (grads.need_z) {
      T* to = data_of<T>(grads.z) + begin * c;
      to_z.multiply(by_scores, to);
      for_range(count, c, [&](int64_t first, int64_t last) {
        VITLITE_ISA_CALL(memory_unit_backward_rows(z.data + first * c, last - first, c, false,
                                                   static_cast<const T*>(nullptr), to + first * c));
      });
    }
    if (grads.need_items) {
      rows_of_z.set(z);
      rows_of_z.multiply(by_scores.transposed(), data_of<T>(grads.items), begin > 0);
      rows_of_grad.set(grad_output);
      rows_of_grad.multiply(Matrix<T>(weights, count, n).transposed(), data_of<T>(by_weights), begin > 0);
    }
  }
  if (grads.need_items) {
    const T* more = data_of<T>(by_weights);
    T* to = data_of<T>(grads.items);
    if (memory.rows == 0) {
      std::fill(to, to + n * c, T(0));
      return;
    }
    for_range(n, c, [&](int64_t first, int64_t last) {
      VITLITE_ISA_CALL(memory_unit_backward_rows(items.data + first * c, last - first, c, true, more + first * c,
                                                 to + first * c));
    });
  }
}

std::tuple<Tensor, Tensor> memory_read_backward(const Tensor& grad_output, const Tensor& grad_entropy, const Tensor& z,
                                                const Tensor& items, const Tensor& sums, const Tensor& weights,
                                                std::optional<double> threshold, double temperature, bool need_z,
                                                bool need_items) {
  const Memory memory(z, items, threshold, temperature);
  STD_TORCH_CHECK(grad_output.dim() == 2 && grad_output.size(0) == memory.rows &&
                      grad_output.size(1) == memory.channels && grad_output.scalar_type() == memory.z.scalar_type(),
                  "grad_output: wrong shape or dtype");
  STD_TORCH_CHECK(grad_entropy.numel() == memory.rows && grad_entropy.scalar_type() == memory.z.scalar_type(),
                  "grad_entropy: wrong shape or dtype");
  STD_TORCH_CHECK(sums.numel() == 3 * memory.rows && sums.is_contiguous() &&
                      sums.scalar_type() == memory.z.scalar_type(),
                  "sums: wrong shape or dtype");
  STD_TORCH_CHECK(weights.numel() == 0 || (weights.numel() == memory.rows * memory.count && weights.is_contiguous() &&
                                           weights.scalar_type() == memory.z.scalar_type()),
                  "weights: wrong shape or dtype");
  const Grads grads{in_memory_order(grad_output),
                    in_memory_order(grad_entropy),
                    weights,
                    memory.empty({memory.rows, memory.channels}, need_z),
                    memory.empty({memory.count, memory.channels}, need_items),
                    need_z,
                    need_items};
  in_compute_type(memory.kind, [&](auto t) { backward<decltype(t)>(memory, grads); });
  return {grads.z, grads.items};
}

}  // namespace
}  // namespace vitlite

VITLITE_KERNELS(CPU, m) {
  m.impl("memory_read_forward", TORCH_BOX(&vitlite::memory_read_forward));
  m.impl("memory_read_backward", TORCH_BOX(&vitlite::memory_read_backward));
}
