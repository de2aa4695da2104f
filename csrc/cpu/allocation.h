// Memory that the operators take themselves, and large pages for large results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vitlite {

// Advises the system to back fresh memory, which is not written yet, with pages of 2 MiB: the first touch of a fresh
// page costs more than the arithmetic on what it holds.
inline void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  if (static_cast<uintptr_t>(bytes) < 2 * kPage) return;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (from + kPage - 1) / kPage * kPage;
  const uintptr_t end = (from + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // only advice: a refusal does no harm
#else
  (void)memory;
  (void)bytes;
#endif
}

// Frees memory that begins at a multiple of 64 bytes.
struct ReleaseAligned {
  void operator()(void* memory) const {
    ::operator delete(memory, std::align_val_t{64});
  }
};

template <class T>
using AlignedMemory = std::unique_ptr<T, ReleaseAligned>;

template <class T>
AlignedMemory<T> aligned_memory(int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  return AlignedMemory<T>(static_cast<T*>(::operator new(bytes, std::align_val_t{64})));
}

// Memory of one thread, kept between calls so that a small call does not pay for page faults.
inline char* thread_memory(int64_t bytes) {
  static thread_local AlignedMemory<char> memory;
  static thread_local int64_t size = 0;
  if (size < bytes) {
    memory.reset();
    size = 0;
    memory = aligned_memory<char>(bytes);
    size = bytes;
  }
  return memory.get();
}

}  // namespace vitlite
