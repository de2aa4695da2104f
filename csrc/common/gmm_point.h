// One element of a Gaussian component, forward and backward. N is a number of the GPU or a vector of the processor,
// whose `fma`, `bits_of` and `value_of` the including file brings, as it does float_layout.h. No include guard: included
// once in every namespace that has its own numbers.

// Derivatives of -((y - mean) / std)^2 / 2 - log std by mean and by std, times `share`; that by y is minus that by mean.
template <class N>
struct GmmSlopes {
  N mean, std;
};

// z is (y - mean) / std, inverse is 1 / std.
template <class N>
VITLITE_HD GmmSlopes<N> gmm_slopes(N z, N inverse, N share, N minus_one) {
  return {share * z * inverse, share * fma(z, z, minus_one) * inverse};
}

// The product of positive numbers in two parts, for the sum of their logarithms: the exponents are added as integers
// and the mantissas multiplied, which takes one logarithm for up to kMost numbers. T is float or double, N one or a
// vector of these, Int and Unsigned the integers of the same width.
template <class T, class N, class Int, class Unsigned>
struct MantissaProduct {
  typedef Layout<T> L;
  static constexpr int64_t kMost = 96;  // mantissas are below 2: the product stays finite
  static constexpr typename L::Int kExponentOne = typename L::Int(1) << L::mantissa_bits;

  N product;
  Int exponent, odd;

  VITLITE_HD explicit MantissaProduct(N one) : product(one), exponent(Int{}), odd(Int{}) {}

  // `odd` becomes nonzero if a number is not positive, normal and finite; the product is then not valid.
  VITLITE_HD void add(N a) {
    const Int bits = bits_of(a);
    odd = odd | (Int)((Unsigned)(bits - kExponentOne) >= (Unsigned)(Int{} + (L::infinity - kExponentOne)));
    product = product * mantissa_of(bits);
  }
  // Takes the exponent away, which goes to the others.
  VITLITE_HD N mantissa_of(Int bits) {
    exponent = exponent + (Int)((Unsigned)bits >> L::mantissa_bits);
    return value_of<T>((Int)((bits & (kExponentOne - 1)) | L::one));
  }
};
