// Marks functions that are compiled for the processor's vectors and for the GPU alike. Only a macro: this may be
// included anywhere.
#pragma once

#if defined(__CUDACC__)
#define VITLITE_HD __host__ __device__ __forceinline__
#else
#define VITLITE_HD inline __attribute__((always_inline))
#endif
