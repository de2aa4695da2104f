// Matrix products on the CPU: splits them among threads. No element's sum depends on the split, unless the product is
// torch's.

#include "product.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>


#define VITLITE_KERNEL "product_kernel.h"
#include "each_isa.h"

namespace vitlite {
namespace {

// Multiply-adds and packed elements that are worth another thread.
constexpr int64_t kProductGrain = 1 << 17, kPackGrain = 1 << 14;

// With fewer rows laying out the right factor costs more than it saves.
constexpr int64_t kFewRows = 28;

int64_t divided_up(int64_t a, int64_t by) {
  return (a + by - 1) / by;
}

}  // namespace

template <class T>
void RightFactor<T>::set(const Matrix<T>& b, int64_t rows) {
  matrix_ = b;
  level_ = rows < kFewRows ? 0 : isa_level();
  if (level_ == 0) return;
  const T* type = nullptr;
  const int64_t width = VITLITE_ISA_CALL(product_panel_columns(type)), count = divided_up(b.columns, width);
  const int64_t size = count * width * b.rows;
  if (size > capacity_) {
    panels_.reset();
    capacity_ = 0;
    panels_ = aligned_memory<T>(size);
    capacity_ = size;
    advise_huge_pages(panels_.get(), size * static_cast<int64_t>(sizeof(T)));
  }
  T* to = panels_.get();
  const int64_t grain = std::max<int64_t>(1, kPackGrain / (width * std::max<int64_t>(b.rows, 1)));
  parallel_for(0, count, grain, [&](int64_t first, int64_t last) {
    VITLITE_ISA_CALL(product_pack(b.data, b.row_stride, b.column_stride, b.rows, b.columns, first, last, to));
  });
}

template <class T>
void RightFactor<T>::multiply(const Matrix<T>& a, T* out, bool add) const {
  const Matrix<T>& b = *matrix_;
  if (a.rows == 0 || b.columns == 0) return;
  if (level_ == 0 || level_ != isa_level()) {
    vitlite::multiply(a, b, out, add);
    return;
  }
  const Product<T> product{a.rows, b.columns,    b.rows,        a.data, a.row_stride, a.column_stride,
                           panels_.get(), out,          b.columns,      add};
  const T* type = nullptr;
  const int64_t height = VITLITE_ISA_CALL(product_tile_rows(type));
  const int64_t width = VITLITE_ISA_CALL(product_panel_columns(type));
  const int64_t tiles = divided_up(a.rows, height), panels = divided_up(b.columns, width);
  const int64_t threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t cost = height * width * b.rows;
  // By rows or by columns, whichever leaves the threads more equal shares.
  const auto longest = [&](int64_t parts) { return double(divided_up(parts, threads)) / double(parts); };
  if (longest(tiles) <= longest(panels)) {
    parallel_for(0, tiles, std::max<int64_t>(1, kProductGrain / (cost * panels)), [&](int64_t first, int64_t last) {
      const auto own = product.with_out(out + first * height * b.columns);
      VITLITE_ISA_CALL(product_block(own, first, last, int64_t{0}, panels));
    });
  } else {
    parallel_for(0, panels, std::max<int64_t>(1, kProductGrain / (cost * tiles)), [&](int64_t first, int64_t last) {
      const auto own = product.with_out(out + first * width);
      VITLITE_ISA_CALL(product_block(own, int64_t{0}, tiles, first, last));
    });
  }
}

template class RightFactor<float>;
template class RightFactor<double>;

}  // namespace vitlite
