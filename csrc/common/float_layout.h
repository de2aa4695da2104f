// How floating point numbers are laid out. No include guard: included once in every namespace that has its own numbers.

// What follows from the integers of the same width and from the number of bits of the mantissa.
template <class T, class I, class U, int bits>
struct LayoutOf {
  typedef I Int;
  typedef U Unsigned;
  static constexpr int mantissa_bits = bits;
  static constexpr Int bias = (Int(1) << (8 * sizeof(T) - bits - 2)) - 1;
  static constexpr Int one = bias << bits;
  static constexpr Int infinity = (2 * bias + 1) << bits;
  static constexpr T scale_up = T(Int(1) << (bits + 2)), scale_up_log2 = T(bits + 2);
  static constexpr T round = T(Int(3) << (bits - 1));  // 1.5 * 2^bits: adding it rounds to an integer
};

// The layout of T, and the constants of the functions in cpu/vec_math.h.
template <class T>
struct Layout;

template <>
struct Layout<float> : LayoutOf<float, int32_t, uint32_t, 23> {
  static constexpr Int sqrt_half = 0x3f3504f3;
  static constexpr float smallest = 1.17549435e-38f;  // of the normal numbers
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860677e-06f;
  static constexpr float exp_overflow = 89.0f, exp_underflow = -104.0f;
  static constexpr int exp_terms = 7, log_terms = 4, log1p_terms = 8;
};

template <>
struct Layout<double> : LayoutOf<double, int64_t, uint64_t, 52> {
  static constexpr Int sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double smallest = 2.2250738585072014e-308;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double exp_overflow = 710.0, exp_underflow = -746.0;
  static constexpr int exp_terms = 13, log_terms = 10, log1p_terms = 17;
};
