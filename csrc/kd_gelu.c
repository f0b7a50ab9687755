#include "kd_gelu.h"

void kd_gelu_forward(const kd_rows *rows, float *y, const float *x, ptrdiff_t n, kd_activation act)
{
    rows->activate(y, x, n, act);
}

void kd_gelu_backward(const kd_rows *rows, float *dx, const float *dy, const float *x, ptrdiff_t n, kd_activation act)
{
    rows->activate_backward(dx, dy, x, n, act);
}
