// Rows of a Gaussian mixture, forward and backward. No include guard, see each_isa.h.

#include "convert.h"
#include "gmm_component.h"

// Rows in the dtype of the computation: the originals if they have it, or else copies in the scratch memory.
template <class T>
struct GmmRows {
  const GmmProblem* problem;
  char* scratch;

  static constexpr int64_t kRows = 9;  // that scratch memory holds, each of the dimensions or the components

  VL_INLINE bool direct() const {
    return problem->kind == Kind::float32 || problem->kind == Kind::float64;
  }
  VL_INLINE int64_t pitch() const {
    const int64_t longest = problem->dims > problem->components ? problem->dims : problem->components;
    return (longest * int64_t(sizeof(T)) + 63) / 64 * 64;
  }
  VL_INLINE T* row(int64_t i) const {
    return reinterpret_cast<T*>(scratch + i * pitch());
  }
  VL_INLINE double* wide() const {
    return reinterpret_cast<double*>(scratch + 7 * pitch());  // two rows
  }
  VL_INLINE const T* read(const void* from, int64_t offset, int64_t n, int64_t slot) const {
    if (direct()) return static_cast<const T*>(from) + offset;
    load_row(static_cast<const char*>(from) + offset * 2, problem->kind, row(slot), n);
    return row(slot);
  }
  VL_INLINE const T* y(int64_t t) const {
    return read(problem->y, t * problem->dims, problem->dims, 0);
  }
  VL_INLINE const T* logits(int64_t t) const {
    return read(problem->logits, t * problem->components, problem->components, 1);
  }
  VL_INLINE const T* mean(int64_t t, int64_t k) const {
    const GmmTable& table = problem->mean;
    return read(table.data, t * table.row_stride + k * table.component_stride, problem->dims, 2);
  }
  VL_INLINE const T* std(int64_t t, int64_t k) const {
    const GmmTable& table = problem->std;
    return read(table.data, t * table.row_stride + k * table.component_stride, problem->shared ? 1 : problem->dims, 3);
  }
  // Where a row of results of n numbers is to be written, and what brings it to its place.
  VL_INLINE T* write(void* to, int64_t offset, int64_t slot) const {
    if (to == nullptr) return nullptr;
    return direct() ? static_cast<T*>(to) + offset : row(slot);
  }
  VL_INLINE void written(void* to, int64_t offset, int64_t n, int64_t slot) const {
    if (to != nullptr && !direct()) {
      store_row(row(slot), static_cast<char*>(to) + offset * 2, problem->kind, n);
    }
  }
};

inline int64_t gmm_scratch_bytes(const GmmProblem& problem) {
  return problem.kind == Kind::float64 ? GmmRows<double>::kRows * GmmRows<double>{&problem, nullptr}.pitch()
                                       : GmmRows<float>::kRows * GmmRows<float>{&problem, nullptr}.pitch();
}

// Log-densities of pairs of a row and a component, counted row by row.
template <class T>
void gmm_densities(const GmmProblem& problem, int64_t begin, int64_t end, double* densities, char* scratch) {
  const GmmRows<T> rows{&problem, scratch};
  const T* y = nullptr;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i / problem.components, k = i % problem.components;
    if (y == nullptr || k == 0) y = rows.y(t);
    densities[i] = component_log_density(y, rows.mean(t, k), rows.std(t, k), problem.shared, problem.dims);
  }
}

// Log-likelihoods of rows, and the logarithms of the components' shares of them.
template <class T>
void gmm_likelihoods(const GmmProblem& problem, int64_t begin, int64_t end, const double* densities, T* likelihood,
                     T* log_shares, char* scratch) {
  const GmmRows<T> rows{&problem, scratch};
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = t * problem.components;
    likelihood[t] = T(component_log_shares(rows.logits(t), densities + at, problem.components, problem.dims,
                                           rows.wide(), log_shares + at));
  }
}

template <class T>
void gmm_gradients(const GmmProblem& problem, const GmmGradients& to, int64_t begin, int64_t end, char* scratch) {
  const GmmRows<T> rows{&problem, scratch};
  const int64_t components = problem.components, dims = problem.dims, columns = problem.shared ? 1 : dims;
  T* shares = rows.row(4);
  for (int64_t t = begin; t < end; ++t) {
    T* grad_logits = rows.write(to.logits, t * components, 5);
    component_shares(rows.logits(t), static_cast<const T*>(to.log_shares) + t * components, components,
                     static_cast<const T*>(to.grad)[t], rows.wide(), shares, grad_logits);
    rows.written(to.logits, t * components, components, 5);
    if (to.y == nullptr && to.mean == nullptr && to.std == nullptr) continue;
    const T* y = rows.y(t);
    T* grad_y = rows.write(to.y, t * dims, 6);
    fill_zeros(grad_y, dims);
    for (int64_t k = 0; k < components; ++k) {
      const int64_t i = t * components + k;
      T* grad_mean = rows.write(to.mean, i * dims, 1);
      T* grad_std = rows.write(to.std, i * columns, 5);
      if (shares[k] == T(0)) {
        // Most components of a high-dimensional mixture; they need not be read.
        fill_zeros(grad_mean, dims);
        fill_zeros(grad_std, columns);
      } else {
        component_gradients(y, rows.mean(t, k), rows.std(t, k), problem.shared, dims, shares[k], grad_mean, grad_std,
                            grad_y);
      }
      rows.written(to.mean, i * dims, dims, 1);
      rows.written(to.std, i * columns, columns, 5);
    }
    rows.written(to.y, t * dims, dims, 6);
  }
}

#define VL_INSTANTIATE(T)                                                                       \
  template void gmm_densities<T>(const GmmProblem&, int64_t, int64_t, double*, char*);          \
  template void gmm_likelihoods<T>(const GmmProblem&, int64_t, int64_t, const double*, T*, T*, char*); \
  template void gmm_gradients<T>(const GmmProblem&, const GmmGradients&, int64_t, int64_t, char*);
VL_INSTANTIATE(float)
VL_INSTANTIATE(double)
#undef VL_INSTANTIATE
