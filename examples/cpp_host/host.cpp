// A program without Python that calls an operator of vitlite:
//
//   host LIBRARY            loads vitlite's _C.abi3.so and calls ssim through torch's dispatcher
//   host LIBRARY PACKAGE    runs a package of AOTInductor that holds the operators, on one random image pair
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <iostream>

using Ssim = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, double, double, bool, int64_t);

int main(int count, char** arguments) {
  if (count < 2 || dlopen(arguments[1], RTLD_NOW) == nullptr) {
    std::cerr << (count < 2 ? "usage: host LIBRARY [PACKAGE]" : dlerror()) << "\n";
    return 1;
  }
  const at::Tensor x = at::rand({2, 3, 64, 64}), y = at::rand({2, 3, 64, 64});
  // Arguments as the schema in csrc/library.cpp says: window, deviation, range, padded, and 1 for the mean.
  const auto ssim = c10::Dispatcher::singleton().findSchemaOrThrow("vitlite::ssim_forward", "").typed<Ssim>();
  std::cout << "same " << ssim.call(x, x, 11, 1.5, 1.0, true, 1).item<float>() << "\n";
  std::cout << "other " << ssim.call(x, y, 11, 1.5, 1.0, true, 1).item<float>() << "\n";
  if (count > 2) {
    torch::inductor::AOTIModelPackageLoader package(arguments[2]);
    std::cout << "package " << package.run({x, x})[0].item<float>() << "\n";
  }
  return 0;
}
