/* For LD_PRELOAD: makes one allocation of one thread fail, the nth after kd_fail(n). Built and used by
 * test_allocations.py, with glibc's own functions underneath. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static __thread long left; /* allocations up to the one that fails; 0: it has, or none is to */
static __thread int no_threads;

/* Lets the calling thread's nth allocation from now on fail (0: none). Returns what was left of the last n. */
long kd_fail(long n)
{
    long before = left;
    left = n;
    return before;
}

/* Lets every new thread be refused. */
void kd_refuse_threads(int refuse) { no_threads = refuse; }

static int fails(void)
{
    if (left == 0 || --left > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return fails() ? NULL : __libc_realloc(block, size); }
void *aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size)
{
    if (fails())
        return ENOMEM;
    *block = __libc_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return no_threads ? EAGAIN : next(thread, attributes, start, argument);
}
