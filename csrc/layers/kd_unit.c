#include "layers/kd_unit.h"

#include <math.h>

#define LEAST_LENGTH 1e-12

/* In double: a row a sequence is little beside the products, and squares of floats can leave the range of float. */
static double product(const float *a, const float *b, ptrdiff_t C)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < C; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

void kd_unit_forward(float *y, const float *x, ptrdiff_t M, ptrdiff_t C)
{
    for (ptrdiff_t r = 0; r < M; r++, x += C, y += C) {
        const double scale = 1 / fmax(sqrt(product(x, x, C)), LEAST_LENGTH);
        for (ptrdiff_t i = 0; i < C; i++)
            y[i] = (float)(scale * x[i]);
    }
}

/* dx = (dy - y (y . dy)) / |x|: along x the length does not change. Where it is held at its least, only the division. */
void kd_unit_backward(float *dx, const float *dy, const float *x, ptrdiff_t M, ptrdiff_t C)
{
    for (ptrdiff_t r = 0; r < M; r++, x += C, dy += C, dx += C) {
        const double length = sqrt(product(x, x, C)), scale = 1 / fmax(length, LEAST_LENGTH);
        const double along = length > LEAST_LENGTH ? product(dy, x, C) * scale * scale : 0;
        for (ptrdiff_t i = 0; i < C; i++)
            dx[i] = (float)(scale * (dy[i] - along * x[i]));
    }
}
