// SSIM of one window and its derivatives (Wang et al. 2004, eq. 13), from the four moments. N is a number of the GPU or
// a vector of the processor; the including file has `quotient`, what it divides with, and `bounded`, which brings a
// number to [-1, 1] and leaves NaN. No include guard: included once in every namespace that has its own numbers.

// c1 and c2 of the paper, which are positive, and the number one.
template <class N>
struct SsimConstants {
  N c1, c2, one;
};

// Moments: the weighted means of x, of y, of x^2 + y^2 and of x y.
template <class N>
VITLITE_HD N ssim_value(N mean_x, N mean_y, N squares, N product, const SsimConstants<N>& c) {
  // Not fused: equal images then give exactly one.
  const N xy = mean_x * mean_y, xx_yy = mean_x * mean_x + mean_y * mean_y;
  const N covariance = product - xy;
  const N luminance = quotient(xy + xy + c.c1, xx_yy + c.c1);
  // Of nearly equal images the variances may be rounded to less than the covariance.
  return bounded(luminance * quotient(covariance + covariance + c.c2, squares - xx_yy + c.c2));
}

// Derivatives by the four moments times `grad`; that by the squares, which is never positive, without its sign.
template <class N>
struct SsimSlopes {
  N mean_x, mean_y, squares, product;
};

template <class N>
VITLITE_HD SsimSlopes<N> ssim_slopes(N grad, N x, N y, N squares, N product, const SsimConstants<N>& c) {
  const N xy = x * y, xx_yy = x * x + y * y, covariance = product - xy;
  const N by_luminance = quotient(c.one, xx_yy + c.c1), by_contrast = quotient(c.one, squares - xx_yy + c.c2);
  const N luminance = (xy + xy + c.c1) * by_luminance;
  const N contrast = (covariance + covariance + c.c2) * by_contrast;
  const N value = grad * luminance * contrast;
  const N across = grad * (contrast * by_luminance - luminance * by_contrast);
  const N along = value * (by_contrast - by_luminance);
  const N by_x = y * across + x * along, by_y = x * across + y * along, by_product = grad * luminance * by_contrast;
  return {by_x + by_x, by_y + by_y, value * by_contrast, by_product + by_product};
}

// The gradient of a pixel with value a, where the other image has b: the slopes by its mean, the squares and the
// product, each gathered over all windows that hold the pixel.
template <class N>
VITLITE_HD N ssim_pixel(N mean, N squares, N product, N a, N b) {
  return mean + (b * product - a * (squares + squares));
}
