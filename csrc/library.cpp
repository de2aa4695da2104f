// Every operator schema of the library. The kernels register themselves in their own files with
// VITLITE_KERNELS(CPU, m). Nothing here needs Python: the library is loaded with
// torch.ops.load_library, so one build serves every Python version.

#include "common/library.h"

// Gradients are attached in Python (kernels/_operator.py); the operators themselves do not record any.
VITLITE_LIBRARY(m) {
  m.def("isa_level(int level=-1) -> int");

  m.def(
      "ssim_forward(Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same, int reduction)"
      " -> Tensor");
  m.def(
      "ssim_backward(Tensor grad, Tensor x, Tensor y, int window_size, float sigma, float data_range, bool same,"
      " int reduction, bool need_x, bool need_y) -> (Tensor, Tensor)");

  m.def(
      "memory_read_forward(Tensor z, Tensor items, float? threshold, float temperature, bool save)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "memory_read_backward(Tensor grad_output, Tensor grad_entropy, Tensor z, Tensor items, Tensor sums,"
      " Tensor weights, float? threshold, float temperature, bool need_z, bool need_items) -> (Tensor, Tensor)");

  m.def("nearest_forward(Tensor q, Tensor bank, int k) -> (Tensor, Tensor)");
  m.def(
      "nearest_backward(Tensor grad, Tensor q, Tensor bank, Tensor distances, Tensor indices, int k, bool need_q,"
      " bool need_bank) -> (Tensor, Tensor)");
  m.def("nearest_pack(Tensor bank) -> Tensor");
  m.def("nearest_packed(Tensor q, Tensor bank, Tensor packed, int k) -> (Tensor, Tensor)");

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
