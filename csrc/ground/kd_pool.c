#include "ground/kd_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(KD_X86)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("isb") /* as in Rust's spin_loop: `yield` does nothing on most of these CPUs */
#else
#define PAUSE() ((void)0)
#endif

/* How often a member looks for the next loop, or for the end of this one, before it sleeps: about 50 us, as long as
 * waking it takes. sched_yield instead would give the core away for a whole time slice. */
enum { SPINS = 2500 };

/* How often a worker without a team looks for one before it sleeps: more than SPINS, since a training step opens a
 * team for each of its parts. */
enum { IDLE_SPINS = 4000 };

/* Threads that sleep until a number changes. pool_lock guards them; whoever changes the number wakes them. */
typedef struct sleepers {
    atomic_int count;
    pthread_cond_t woken;
} sleepers;

typedef struct worker worker;

struct worker {
    worker *next; /* in the list of idle workers, or of a team's workers */
    kd_team *team;
    int member;
    atomic_uint calls; /* how often it was given a team; changes last */
    sleepers call_sleepers;
    pthread_t thread;
};

/* The items of one member that nobody has taken yet. */
typedef struct share {
    _Alignas(KD_ALIGN) atomic_ptrdiff_t next;
    ptrdiff_t end;
} share;

struct kd_team {
    kd_team *next_closed;
    worker *workers;
    int members;
    kd_item item;
    void *context;
    share shares[KD_POOL_MAX_THREADS];
    _Alignas(KD_ALIGN) atomic_uint loop; /* counts loops; workers watch it */
    sleepers loop_sleepers;
    _Alignas(KD_ALIGN) atomic_uint inside; /* workers that may be at an item of the current loop */
    atomic_int open;                       /* whether one that comes may take items: they are all set up */
    atomic_uint serving;                   /* workers that have not left the team yet */
    sleepers end_sleepers;
    atomic_int leave; /* set before the last change of `loop` */
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_quiet = PTHREAD_COND_INITIALIZER; /* no team is open */
static worker *pool_idle;
/* Closed ones, to be opened again: a call in the middle of a step takes no memory, and none enters the allocator
 * while another Python thread may fork (AddressSanitizer's, before LLVM 18, leaves its lock taken in the child). */
static kd_team *pool_teams;
static int pool_open_teams;
static kd_status pool_status;

/* A member's own share of the items first, then what others have left of theirs. Loops over the same things give a
 * member the same share each time, which its core's caches may still hold; and no core has to ask another for each
 * item. */
static void take_items(kd_team *team, int member)
{
    for (int i = 0; i < team->members; i++) {
        share *s = &team->shares[(member + i) % team->members];
        while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
            ptrdiff_t item = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (item < s->end)
                team->item(team->context, item, member);
        }
    }
}

static void init_sleepers(sleepers *s)
{
    atomic_init(&s->count, 0);
    pthread_cond_init(&s->woken, NULL);
}

static void wake(sleepers *s)
{
    if (atomic_load(&s->count) == 0)
        return;
    pthread_mutex_lock(&pool_lock);
    pthread_cond_broadcast(&s->woken);
    pthread_mutex_unlock(&pool_lock);
}

/* Waits until `number` is no longer `seen`. A sleeper counts itself before it looks for the last time, and a waker
 * changes the number before it reads the count: one of the two sees the other. */
static void await_change(atomic_uint *number, unsigned seen, sleepers *s, int spins)
{
    for (int spin = 0; spin < spins; spin++) {
        if (atomic_load_explicit(number, memory_order_acquire) != seen)
            return;
        PAUSE();
    }
    pthread_mutex_lock(&pool_lock);
    atomic_fetch_add(&s->count, 1);
    while (atomic_load(number) == seen)
        pthread_cond_wait(&s->woken, &pool_lock);
    atomic_fetch_sub(&s->count, 1);
    pthread_mutex_unlock(&pool_lock);
}

/* One worker less of those that `number` counts. */
static void count_down(kd_team *team, atomic_uint *number)
{
    if (atomic_fetch_sub(number, 1) == 1)
        wake(&team->end_sleepers);
}

static void await_none(kd_team *team, atomic_uint *number)
{
    for (unsigned count; (count = atomic_load(number)) > 0;)
        await_change(number, count, &team->end_sleepers, SPINS);
}

/* A worker counts itself before it looks whether the loop is open, and the loop is closed before its workers are counted:
 * one of the two sees the other. So a loop waits for the workers that are at its items, and not for one that sleeps or
 * whose core does something else: the others do its share. */
static void serve(kd_team *team, int member)
{
    for (unsigned seen = 0;;) {
        await_change(&team->loop, seen, &team->loop_sleepers, SPINS);
        seen = atomic_load(&team->loop);
        if (atomic_load_explicit(&team->leave, memory_order_relaxed))
            break;
        atomic_fetch_add(&team->inside, 1);
        if (atomic_load(&team->open))
            take_items(team, member);
        count_down(team, &team->inside);
    }
    count_down(team, &team->serving);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    for (unsigned served = 0;; served++) {
        await_change(&self->calls, served, &self->call_sleepers, IDLE_SPINS);
        serve(self->team, self->member);
    }
    return NULL;
}

static kd_status start_worker(worker **started)
{
    worker *w = calloc(1, sizeof *w);
    if (!w)
        return KD_NO_MEMORY;
    pthread_attr_t attributes;
    init_sleepers(&w->call_sleepers);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int failed = pthread_create(&w->thread, &attributes, worker_main, w);
    pthread_attr_destroy(&attributes);
    if (failed) {
        pthread_cond_destroy(&w->call_sleepers.woken);
        free(w);
        return KD_NO_THREADS;
    }
    *started = w;
    return KD_OK;
}

/* With pool_lock held: hands the team's workers back. */
static void release_workers(kd_team *team)
{
    while (team->workers) {
        worker *w = team->workers;
        team->workers = w->next;
        w->next = pool_idle;
        pool_idle = w;
    }
}

/* With pool_lock held: gives the team `members - 1` workers; without that many, gives it none and returns why. */
static kd_status gather_workers(kd_team *team)
{
    for (int member = 1; member < team->members; member++) {
        worker *w = pool_idle;
        if (w) {
            pool_idle = w->next;
        } else {
            kd_status status = start_worker(&w);
            if (status != KD_OK) {
                release_workers(team);
                return status;
            }
        }
        w->next = team->workers;
        w->member = member;
        team->workers = w;
    }
    return KD_OK;
}

/* With pool_lock held: returns a team without workers, or NULL when there is no memory for one. */
static kd_team *take_team(int members)
{
    kd_team *team = pool_teams;
    if (team) {
        pool_teams = team->next_closed;
    } else {
        if (!(team = aligned_alloc(KD_ALIGN, sizeof *team)))
            return NULL;
        init_sleepers(&team->loop_sleepers);
        init_sleepers(&team->end_sleepers);
    }
    team->workers = NULL;
    team->members = members;
    atomic_init(&team->loop, 0);
    atomic_init(&team->inside, 0);
    atomic_init(&team->open, 0);
    atomic_init(&team->serving, (unsigned)members - 1);
    atomic_init(&team->leave, 0);
    return team;
}

/* With pool_lock held: keeps the team, to be opened again. */
static void put_team_back(kd_team *team)
{
    team->next_closed = pool_teams;
    pool_teams = team;
}

kd_status kd_pool_open(kd_team **opened, int members)
{
    pthread_mutex_lock(&pool_lock);
    kd_team *team = take_team(members);
    kd_status status = team ? gather_workers(team) : KD_NO_MEMORY;
    if (status == KD_OK) {
        for (worker *w = team->workers; w; w = w->next) {
            w->team = team;
            atomic_fetch_add_explicit(&w->calls, 1, memory_order_release);
            pthread_cond_signal(&w->call_sleepers.woken);
        }
        pool_open_teams++;
        *opened = team;
    } else if (team) {
        put_team_back(team);
    }
    pthread_mutex_unlock(&pool_lock);
    return status;
}

static void call_workers(kd_team *team)
{
    atomic_fetch_add(&team->loop, 1);
    wake(&team->loop_sleepers);
}

void kd_pool_close(kd_team *team)
{
    atomic_store_explicit(&team->leave, 1, memory_order_relaxed);
    call_workers(team);
    await_none(team, &team->serving);

    pthread_mutex_lock(&pool_lock);
    release_workers(team);
    put_team_back(team);
    if (--pool_open_teams == 0)
        pthread_cond_broadcast(&pool_quiet);
    pthread_mutex_unlock(&pool_lock);
}

void kd_pool_run(kd_team *team, kd_item item, void *context, ptrdiff_t items)
{
    if (!team || team->members == 1 || items <= 1) {
        for (ptrdiff_t i = 0; i < items; i++)
            item(context, i, 0);
        return;
    }
    team->item = item;
    team->context = context;
    for (int member = 0; member < team->members; member++) {
        share *s = &team->shares[member];
        atomic_store_explicit(&s->next, member * items / team->members, memory_order_relaxed);
        s->end = (member + 1) * items / team->members;
    }
    atomic_store(&team->open, 1);
    call_workers(team);
    take_items(team, 0);
    atomic_store(&team->open, 0);
    await_none(team, &team->inside);
}

/* fork() copies one thread: it must see no team half way through a loop. So the parent waits until
 * every team is closed (other threads' calls are short), and the child forgets the workers, which only the parent
 * has; their few hundred bytes stay allocated in it. */
static void before_fork(void)
{
    pthread_mutex_lock(&pool_lock);
    while (pool_open_teams > 0)
        pthread_cond_wait(&pool_quiet, &pool_lock);
}

static void after_fork_in_parent(void) { pthread_mutex_unlock(&pool_lock); }

static void after_fork_in_child(void)
{
    pool_idle = NULL;
    /* A copied condition may count waiters that only the parent has. */
    pool_quiet = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pthread_mutex_unlock(&pool_lock);
}

static void register_fork_handlers(void)
{
    pool_status = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) ? KD_NO_THREADS : KD_OK;
}

/* Once in a process, however often the module is loaded: handlers run twice would take the lock twice. */
kd_status kd_pool_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handlers);
    return pool_status;
}
