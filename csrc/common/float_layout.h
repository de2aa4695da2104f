// How floating point numbers are laid out. No include guard: included once in every namespace that has its own numbers.

// The integers of the same width as T, and how T is laid out.
template <class T>
struct Layout;

template <>
struct Layout<float> {
  typedef int32_t Int;
  typedef uint32_t Unsigned;
  static constexpr int mantissa_bits = 23;
  static constexpr Int bias = 127;
  static constexpr Int sqrt_half = 0x3f3504f3;
  static constexpr Int one = 0x3f800000;
  static constexpr Int infinity = 0x7f800000;
  static constexpr float smallest = 1.17549435e-38f;  // of the normal numbers
  static constexpr float scale_up = 33554432.0f;      // 2^25
  static constexpr float scale_up_log2 = 25.0f;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860677e-06f;
  static constexpr float exp_overflow = 89.0f, exp_underflow = -104.0f;
  static constexpr int exp_terms = 7, log_terms = 4, log1p_terms = 8;
};

template <>
struct Layout<double> {
  typedef int64_t Int;
  typedef uint64_t Unsigned;
  static constexpr int mantissa_bits = 52;
  static constexpr Int bias = 1023;
  static constexpr Int sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr Int one = 0x3ff0000000000000;
  static constexpr Int infinity = 0x7ff0000000000000;
  static constexpr double smallest = 2.2250738585072014e-308;
  static constexpr double scale_up = 18014398509481984.0;  // 2^54
  static constexpr double scale_up_log2 = 54.0;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double exp_overflow = 710.0, exp_underflow = -746.0;
  static constexpr int exp_terms = 13, log_terms = 10, log1p_terms = 17;
};
