// The name under which torch lists the operators. It stands here and in kernels/_extension.py, and nowhere else:
// `python -m vitlite.kernels.vendor` writes another one in, and two copies of the operators serve one process.
#pragma once

#include <torch/csrc/stable/library.h>

#define VITLITE_NAMESPACE vitlite

// VITLITE_LIBRARY(m) { m.def(...); } and VITLITE_KERNELS(CPU, m) { m.impl(...); }; the second step puts the name in.
#define VITLITE_LIBRARY(m) VITLITE_LIBRARY_OF(VITLITE_NAMESPACE, m)
#define VITLITE_LIBRARY_OF(name, m) STABLE_TORCH_LIBRARY(name, m)
#define VITLITE_KERNELS(key, m) VITLITE_KERNELS_OF(VITLITE_NAMESPACE, key, m)
#define VITLITE_KERNELS_OF(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
