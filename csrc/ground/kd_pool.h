/* kd_pool: threads that wait for work.
 *
 * A call into the core opens a team, runs any number of parallel loops on it, and closes it. The team
 * holds its threads for the whole call, so a loop costs a few atomic operations per thread, and no lock
 * unless one of them has waited so long that it sleeps. A loop ends when its items are done: it does not wait for a
 * thread that has not come to any. Several calls may have teams open at once.
 * Threads are started when first needed and then kept; a child of fork() starts with none and makes
 * its own.
 *
 * The work is a number of independent items. Which thread runs an item, and when, is not defined:
 * an item must write only what is its own, so results cannot depend on the number of threads.
 */
#ifndef KD_POOL_H
#define KD_POOL_H

#include "ground/kd_base.h"

typedef struct kd_team kd_team;

/* Does item `item` of a loop. `member`, 0 .. members - 1, is the thread's number, for scratch memory. */
typedef void (*kd_item)(void *context, ptrdiff_t item, int member);

enum { KD_POOL_MAX_THREADS = 256 };

/* Registers the fork handlers, the first time it is called in a process. KD_OK or KD_NO_THREADS. */
kd_status kd_pool_init(void);

/* Opens a team of `members` threads, the calling one included (1 .. KD_POOL_MAX_THREADS), and puts it
 * into `opened`. KD_OK, or KD_NO_THREADS or KD_NO_MEMORY when the operating system refuses a further one:
 * it is asked only when more members or more teams are open at once than ever before. */
kd_status kd_pool_open(kd_team **opened, int members);

void kd_pool_close(kd_team *team);

/* Runs items 0 .. items - 1 and returns when all are done. Without a team (NULL) the calling thread runs them. */
void kd_pool_run(kd_team *team, kd_item item, void *context, ptrdiff_t items);

#endif
