// What csrc/cuda/tensors.h asks of torch's CUDA half, for tensors on the processor. See emulation.h.
#pragma once

namespace vitlite {

struct OnDevice {
  void* stream = nullptr;

  explicit OnDevice(const Tensor&) {}
};

inline void check_device(const Tensor& tensor, const Tensor& other, const char* name) {
  STD_TORCH_CHECK(tensor.get_device_index() == other.get_device_index(), name, ": on another device");
}

}  // namespace vitlite
