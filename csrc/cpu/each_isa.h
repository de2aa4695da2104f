// Compiles the file named by VITLITE_KERNEL three times, for the plain instruction set of the target, for AVX2 with FMA
// and for AVX-512, in the namespaces vitlite::baseline, vitlite::avx2 and vitlite::avx512. Include every other header
// first, this one last:
//
//   #define VITLITE_KERNEL "ssim_kernel.h"
//   #include "each_isa.h"
//
// and call the best one with VITLITE_ISA_CALL(function(arguments)); all three have the same signatures. No lambdas in a
// kernel: compilers disagree about whether they inherit the instruction set.

#include "../common/host_device.h"
#include "isa.h"
#include "target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define VL_BYTES 16
namespace vitlite::baseline {
#include "simd.h"
#include VITLITE_KERNEL
}  // namespace vitlite::baseline
#undef VL_BYTES
#undef VL_INLINE

#if defined(__x86_64__)

VL_TARGET("avx2,fma,f16c")
#define VL_BYTES 32
#define VL_AVX2
namespace vitlite::avx2 {
#include "simd.h"
#include VITLITE_KERNEL
}  // namespace vitlite::avx2
#undef VL_AVX2
#undef VL_BYTES
#undef VL_INLINE
VL_TARGET_END

#if defined(__clang__)
VL_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#else
VL_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define VL_BYTES 64
#define VL_AVX512
namespace vitlite::avx512 {
#include "simd.h"
#include VITLITE_KERNEL
}  // namespace vitlite::avx512
VL_TARGET_END

#define VITLITE_ISA_CALL(call)                                             \
  (::vitlite::isa_level() == 2   ? ::vitlite::avx512::call                 \
   : ::vitlite::isa_level() == 1 ? ::vitlite::avx2::call                   \
                                 : ::vitlite::baseline::call)

#else

#define VITLITE_ISA_CALL(call) (::vitlite::baseline::call)

#endif
