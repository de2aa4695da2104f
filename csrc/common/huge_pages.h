// Large results in large pages: the first touch of a fresh page costs more than the arithmetic on what it holds.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vitlite {

// Advises the system to back fresh memory, which nobody has written yet, with pages of 2 MiB.
inline void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  if (static_cast<uintptr_t>(bytes) < 2 * kPage) return;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (from + kPage - 1) / kPage * kPage;
  const uintptr_t end = (from + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: to be refused does no harm
#else
  (void)memory;
  (void)bytes;
#endif
}

// The same for a new tensor, which is returned.
inline const torch::stable::Tensor& huge_pages(const torch::stable::Tensor& fresh) {
  advise_huge_pages(fresh.data_ptr(), fresh.numel() * static_cast<int64_t>(fresh.element_size()));
  return fresh;
}

}  // namespace vitlite
