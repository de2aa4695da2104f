// What the GPU operators ask of torch beyond ../common/tensors.h.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "../common/tensors.h"

#if defined(VITLITE_EMULATION_TORCH)
#include VITLITE_EMULATION_TORCH
#else

// Part of torch's stable ABI that its headers only declare in a CUDA build, and that only such a build has.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace vitlite {

// The device of a tensor as the current one for as long as this lives, and its current stream.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;

  explicit OnDevice(const Tensor& tensor) : guard(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  }
};

inline void check_device(const Tensor& tensor, const Tensor& other, const char* name) {
  STD_TORCH_CHECK(tensor.is_cuda() && tensor.get_device_index() == other.get_device_index(), name,
                  ": not on the CUDA device of the first argument");
}

}  // namespace vitlite

#endif

namespace vitlite {

namespace device {
// In ssim.cu: this file is compiled without CUDA's headers.
const char* device_multiprocessors(int* count);
}  // namespace device

// For what a launching function returns.
inline void check_launch(const char* error) {
  STD_TORCH_CHECK(error == nullptr, "a CUDA kernel of vitlite could not be launched: ", error);
}

// Multiprocessors of the current device.
inline int multiprocessors() {
  int count = 0;
  check_launch(device::device_multiprocessors(&count));
  return count;
}

}  // namespace vitlite
