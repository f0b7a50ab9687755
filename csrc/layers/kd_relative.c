#include "layers/kd_relative.h"

#include <math.h>

ptrdiff_t kd_relative_bucket(ptrdiff_t offset, ptrdiff_t R, ptrdiff_t distance)
{
    const ptrdiff_t half = R / 2, single = half / 2, first = offset > 0 ? half : 0, d = offset < 0 ? -offset : offset;
    if (d < single)
        return first + d;
    const double share = log((double)d / (double)single) / log((double)distance / (double)single);
    return first + (share >= 1 ? half - 1 : kd_min(single + (ptrdiff_t)(share * (double)(half - single)), half - 1));
}

void kd_relative_spread(float *spread, const float *table, ptrdiff_t n, ptrdiff_t H, ptrdiff_t R, ptrdiff_t distance,
                        float scale)
{
    for (ptrdiff_t i = 0; i < 2 * n - 1; i++) {
        const float *of_bucket = table + kd_relative_bucket(i - (n - 1), R, distance) * H;
        for (ptrdiff_t head = 0; head < H; head++)
            spread[head * (2 * n - 1) + i] = scale * of_bucket[head];
    }
}

void kd_relative_gather(float *dtable, const float *dspread, ptrdiff_t n, ptrdiff_t H, ptrdiff_t R, ptrdiff_t distance,
                        float scale)
{
    for (ptrdiff_t i = 0; i < 2 * n - 1; i++) {
        float *of_bucket = dtable + kd_relative_bucket(i - (n - 1), R, distance) * H;
        for (ptrdiff_t head = 0; head < H; head++)
            of_bucket[head] += scale * dspread[head * (2 * n - 1) + i];
    }
}
