// What the CPU operators ask of torch beyond ../common/tensors.h.
#pragma once

#include <torch/headeronly/util/Half.h>  // for convert.h

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <type_traits>

#include "../common/tensors.h"
#include "allocation.h"
#include "isa.h"

namespace vitlite {

// The tensor, which is not written yet, in large pages if it is large.
inline const Tensor& in_huge_pages(const Tensor& fresh) {
  advise_huge_pages(fresh.data_ptr(), fresh.numel() * static_cast<int64_t>(fresh.element_size()));
  return fresh;
}

// A tensor like another, without numbers; of shape (0,) if it is not wanted.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> shape, bool wanted = true) {
  return in_huge_pages(empty(like, shape, wanted));
}

// `data_of<const T>` for what is only read: to ask for the other would copy an input that is copied on write.
template <class T>
T* data_of(const Tensor& tensor) {
  if constexpr (std::is_const_v<T>) {
    return static_cast<T*>(tensor.const_data_ptr());
  } else {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }
}

template <class T>
const T* data_of(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

// Calls work(T()) for the type that tensors of this kind are computed in.
template <class Work>
void in_compute_type(Kind kind, const Work& work) {
  kind == Kind::float64 ? work(double()) : work(float());
}

// Calls work(begin, end) for parts of 0 .. count on all threads; `cost` is the number of elements of each.
template <class Work>
void for_range(int64_t count, int64_t cost, const Work& work) {
  constexpr int64_t kGrain = 1 << 13;  // elements that are worth another thread
  parallel_for(0, count, std::max<int64_t>(1, kGrain / cost), work);
}

}  // namespace vitlite
