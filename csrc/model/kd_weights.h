/* kd_weights: gradients that sum over tokens, the last phase of backward: an item is a tile of a weight, a strip of the
 * embedding tables, or a strip of all vectors. The tiles come first, all of them before the rest where the head is tied:
 * both then add to the word embeddings. Each is summed by one thread in an order that depends on nothing else. */
#ifndef KD_WEIGHTS_H
#define KD_WEIGHTS_H

#include "model/kd_map.h"

ptrdiff_t kd_weights_items(const kd_run *run);
ptrdiff_t kd_weights_tiles(const kd_run *run); /* the items that are */
void kd_weights_item(kd_run *run, ptrdiff_t item, int member);

#endif
