#include "ground/kd_arena.h"

kd_arena kd_arena_over(void *base)
{
    kd_arena arena = {base, 0};
    return arena;
}

void *kd_arena_take(kd_arena *arena, ptrdiff_t count, size_t size)
{
    size_t bytes = ((size_t)count * size + KD_ALIGN - 1) / KD_ALIGN * KD_ALIGN;
    void *place = arena->base ? arena->base + arena->used : NULL;
    arena->used += bytes;
    return place;
}

float *kd_arena_floats(kd_arena *arena, ptrdiff_t count) { return kd_arena_take(arena, count, sizeof(float)); }
