// Launching kernels. Everything that the kernels ask of CUDA beyond the numbers of numbers.h is here, so that the tests
// can bring a processor's version of it, named by VITLITE_EMULATION, and run the kernels where there is no GPU.
#pragma once

#if defined(VITLITE_EMULATION)
#include VITLITE_EMULATION
#else

#include <cuda_runtime.h>

#include <cstdint>

namespace vitlite::device {

// The shared memory of a block, as much as was asked for at the launch.
template <class T>
__device__ inline T* shared_memory() {
  extern __shared__ __align__(16) unsigned char vitlite_shared_memory[];
  return reinterpret_cast<T*>(vitlite_shared_memory);
}

// The value that the thread `lane ^ mask` of the warp has; all threads of the warp take part.
template <class T>
__device__ inline T from_lane(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// Queues a kernel; returns null, or else what is wrong.
template <class... Params, class... Args>
inline const char* launch(void (*kernel)(Params...), int64_t blocks, int threads, int64_t shared_bytes, void* stream,
                          const Args&... args) {
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
           static_cast<cudaStream_t>(stream)>>>(args...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Multiprocessors of the current device, or what is wrong.
inline const char* multiprocessors(int* count) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace vitlite::device

#endif

namespace vitlite::device {

// Blocks for so many pieces of work; a kernel goes on to further pieces if there are more than a grid can have.
inline int64_t blocks_for(int64_t pieces) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return pieces < kMost ? pieces : kMost;
}

// The sum of a number of every thread of the block, in a fixed order; `scratch` holds one for each of at most 512.
__device__ inline double block_sum(double value, double* scratch) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  __syncthreads();  // others may still read what is there
  scratch[thread] = value;
  __syncthreads();
  for (int half = 256; half > 0; half /= 2) {
    if (thread < half && thread + half < threads) scratch[thread] += scratch[thread + half];
    __syncthreads();
  }
  const double sum = scratch[0];
  __syncthreads();
  return sum;
}

}  // namespace vitlite::device
