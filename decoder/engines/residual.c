/* MBP's head for one trial, its unit length and the cosines of a gallery, in one pass over each.

   The twin of decoder.residual.ResMLP in decoder.engines.graph.UnitLength and Scored. A row's sum is
   taken in LANES parts that are added in halves, whatever the row: equal images get equal cosines,
   to the bit, and a compiler may use its vectors without leave to change sums.
*/
#include <math.h>

#define LANES 32

static float inner_product(const float *row, const float *x, long n) {
    float parts[LANES] = {0};
    long i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            parts[k] += row[i + k] * x[i + k];
    for (int k = 0; i < n; i++, k++)
        parts[k] += row[i] * x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int k = 0; k < half; k++)
            parts[k] += parts[k + half];
    return parts[0];
}

/* expand (hidden, dim), contract (dim, hidden), norm's weight and bias (dim), gallery (n, dim);
   x (dim) in; hidden (hidden), z (dim) and cosines (n) are written. */
void residual(long dim, long n_hidden, long n_images, double eps, const float *expand,
              const float *contract, const float *weight, const float *bias, const float *gallery,
              const float *x, float *hidden, float *z, float *cosines) {
    double mean = 0, variance = 0, length = 0;
    for (long i = 0; i < n_hidden; i++) {
        float y = inner_product(expand + i * dim, x, dim);
        hidden[i] = 0.5f * y * (1 + erff(y * 0.70710678118654752f)); /* GELU */
    }
    for (long i = 0; i < dim; i++) {
        z[i] = x[i] + inner_product(contract + i * n_hidden, hidden, n_hidden);
        mean += z[i];
    }
    mean /= dim;
    for (long i = 0; i < dim; i++)
        variance += (z[i] - mean) * (z[i] - mean);
    const double scale = 1 / sqrt(variance / dim + eps);
    for (long i = 0; i < dim; i++) {
        z[i] = (float)((z[i] - mean) * scale) * weight[i] + bias[i];
        length += (double)z[i] * z[i];
    }
    length = sqrt(length);
    for (long i = 0; i < dim; i++)
        z[i] = (float)(z[i] / length);
    for (long i = 0; i < n_images; i++)
        cosines[i] = inner_product(gallery + i * dim, z, dim);
}
