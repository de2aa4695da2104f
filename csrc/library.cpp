// Every operator schema of the library, and the choice of instruction set. The kernels register themselves in their
// own files with STABLE_TORCH_LIBRARY_IMPL(vitlite, CPU, m). Nothing here needs Python: the library is loaded with
// torch.ops.load_library, so one build serves every Python version.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "common/isa.h"

// Gradients are attached in Python (kernels/*/op.py); the operators themselves do not record any.
STABLE_TORCH_LIBRARY(vitlite, m) {
  m.def("isa_level(int level=-1) -> int");

  m.def(
      "ssim_forward(Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same, int reduction)"
      " -> Tensor");
  m.def(
      "ssim_backward(Tensor grad, Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same,"
      " int reduction, bool need_x, bool need_y) -> (Tensor, Tensor)");

  m.def(
      "memory_read_forward(Tensor z, Tensor items, float threshold, float eps, bool save)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "memory_read_backward(Tensor grad_output, Tensor grad_entropy, Tensor z, Tensor items, Tensor sums,"
      " Tensor softmax, float threshold, float eps, bool need_z, bool need_items) -> (Tensor, Tensor)");

  m.def("gmm_log_likelihood_forward(Tensor y, Tensor logits, Tensor mean, Tensor std) -> (Tensor, Tensor)");
  m.def(
      "gmm_log_likelihood_backward(Tensor grad, Tensor y, Tensor logits, Tensor mean, Tensor std, Tensor log_shares,"
      " bool need_y, bool need_logits, bool need_mean, bool need_std)"
      " -> (Tensor, Tensor, Tensor, Tensor)");

  m.def(
      "linear_gmm_log_likelihood_forward(Tensor x, Tensor y, Tensor w_logits, Tensor w_mean, Tensor w_std,"
      " Tensor? b_logits, Tensor? b_mean, Tensor? b_std, float min_std, int chunk) -> (Tensor, Tensor, Tensor)");
  m.def(
      "linear_gmm_log_likelihood_backward(Tensor grad, Tensor x, Tensor y, Tensor w_logits, Tensor w_mean,"
      " Tensor w_std, Tensor? b_logits, Tensor? b_mean, Tensor? b_std, Tensor log_shares, Tensor logits,"
      " float min_std, int chunk, bool need_x, bool need_y, bool need_w_logits, bool need_w_mean, bool need_w_std)"
      " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

namespace vitlite {
namespace {

int detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  int level = 0;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    level = 1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      level = 2;
    }
  }
  return level;
#else
  return 0;
#endif
}

int best() {
  static const int level = detect();
  return level;
}

std::atomic<int>& current() {
  static std::atomic<int> level{best()};
  return level;
}

int64_t isa_level_op(int64_t level) {
  return level < 0 ? isa_level() : set_isa_level(static_cast<int>(level));
}

}  // namespace

int isa_level() {
  return current().load(std::memory_order_relaxed);
}

int set_isa_level(int level) {
  current().store(std::min(level, best()), std::memory_order_relaxed);
  return isa_level();
}

}  // namespace vitlite

STABLE_TORCH_LIBRARY_IMPL(vitlite, CompositeExplicitAutograd, m) {
  m.impl("isa_level", TORCH_BOX(&vitlite::isa_level_op));
}
