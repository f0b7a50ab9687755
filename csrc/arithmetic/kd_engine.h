/* kd_engine: a way to multiply rows with weights.
 *
 * Activations, biases, norms and gradients are float32, whatever the compute type. A compute type decides how a
 * weight lies packed and which instructions multiply with it, and an engine is these two together. To everybody else
 * packed weights are bytes: the engine counts them (packed_bytes), writes them (pack) and reads them (product). Part
 * of a packed operand is named by its first row and column in kd_product, never by a pointer into it.
 *
 * Another compute type adds a file kd_engine_<type>.c, and its line where kd_arithmetic_init chooses. If it has to
 * convert a product's left operand, it also adds a function that returns the bytes of scratch for that, and a pointer
 * to the scratch in kd_product; float32 reads the rows where they lie.
 */
#ifndef KD_ENGINE_H
#define KD_ENGINE_H

#include "arithmetic/kd_kernels.h"

typedef struct kd_engine kd_engine;
struct kd_engine {
    const char *name; /* "float32" */
    const kd_kernels *kernels;

    /* Bytes of a packed (K, N) operand. */
    ptrdiff_t (*packed_bytes)(const kd_engine *engine, ptrdiff_t K, ptrdiff_t N);

    /* right (K, N) = w for row-major w (K, N), rows `ld` apart: a weight as dy W reads it. Transposed, w is (N, K): a
     * weight as PyTorch stores it, for x W^T. `right` is KD_ALIGN-aligned. */
    void (*pack)(const kd_engine *engine, void *right, const float *w, ptrdiff_t ld, ptrdiff_t K, ptrdiff_t N,
                 int transposed);

    /* One product, see kd_product. A row of c sees the same operations whatever the other rows are. */
    void (*product)(const kd_product *product);
};

/* Weights in panels of float32, multiplied by the row kernels. */
kd_engine kd_engine_f32(const kd_kernels *kernels);

#endif
