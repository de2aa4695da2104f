// VL_TARGET(features) and VL_TARGET_END: what stands between is compiled for these instruction sets.
#pragma once

#if defined(__clang__)
#define VL_TARGET(features) \
  VL_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define VL_TARGET_END VL_PRAGMA(clang attribute pop)
#else
#define VL_TARGET(features) VL_PRAGMA(GCC push_options) VL_PRAGMA(GCC target(features))
#define VL_TARGET_END VL_PRAGMA(GCC pop_options)
#endif
#define VL_PRAGMA(text) _Pragma(#text)
