/* kd_arena: a bump allocator over memory the caller owns.
 *
 * One placement function serves twice: run on an arena without memory it measures, run on an arena
 * with that much memory it places. So a workspace's size cannot disagree with its layout.
 */
#ifndef KD_ARENA_H
#define KD_ARENA_H

#include "ground/kd_base.h"

typedef struct kd_arena {
    char *base;  /* NULL: measure only */
    size_t used; /* bytes taken so far, always a multiple of KD_ALIGN */
} kd_arena;

/* An arena over `base`, which must be KD_ALIGN-aligned and large enough (or NULL, to measure). */
kd_arena kd_arena_over(void *base);

/* Takes count * size bytes, KD_ALIGN-aligned. Returns NULL when the arena only measures. */
void *kd_arena_take(kd_arena *arena, ptrdiff_t count, size_t size);

/* The same for floats, the common case. */
float *kd_arena_floats(kd_arena *arena, ptrdiff_t count);

#endif
