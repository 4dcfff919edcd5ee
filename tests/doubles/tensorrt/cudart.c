/* A libcudart that has no GPU: it really copies, keeps the order of streams, and notes every mistake.

   What is put on a stream happens when the stream is waited for, as late as CUDA may do it. Mistakes (a copy
   beyond an allocation, from memory that is not pinned, of memory that was freed, an event that was not
   recorded) and, at the end, what was not given back are lines in the file EDGEBENCH_DOUBLE_LOG.
   EDGEBENCH_DOUBLE_GPU is `name:major.minor:integrated:MiB`. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GPU, PINNED, STREAM, EVENT, KINDS };
enum { COPY, MARK, KERNEL };
static const char *const names[] = {"device allocations", "pinned allocations", "streams", "events"};

typedef struct { int kind; void *at; size_t size; double ms; int recorded; } Thing;
typedef struct { int what; void *stream, *target; const void *source; size_t size; int direction; int (*kernel)(void); } Step;

static Thing things[4096];
static Step steps[4096];
static int count, queued;
static size_t used;

static int mistake(const char *what) {
    const char *path = getenv("EDGEBENCH_DOUBLE_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (log) { fprintf(log, "mistake: %s\n", what); fclose(log); }
    return 1; /* cudaErrorInvalidValue */
}

static void gpu(char *name, int *major, int *minor, int *integrated, size_t *bytes) {
    const char *said = getenv("EDGEBENCH_DOUBLE_GPU");
    long mib = 4096;
    strcpy(name, "NVIDIA Double");
    *major = 8; *minor = 7; *integrated = 0;
    if (said) sscanf(said, "%200[^:]:%d.%d:%d:%ld", name, major, minor, integrated, &mib);
    *bytes = (size_t)mib << 20;
}

static size_t total(void) {
    char name[256]; int a, b, c; size_t bytes;
    gpu(name, &a, &b, &c, &bytes);
    return bytes;
}

static Thing *found(int kind, const void *at) {
    for (int i = 0; i < count; i++)
        if (things[i].kind == kind && (kind > PINNED ? things[i].at == at
            : (char *)at >= (char *)things[i].at && (char *)at < (char *)things[i].at + things[i].size)) return &things[i];
    return NULL;
}

static int make(int kind, void **at, size_t size) {
    if (kind == GPU && used + size > total()) return 2; /* cudaErrorMemoryAllocation */
    if (count == 4096) return mistake("too many things are kept");
    *at = malloc(size ? size : 1);
    memset(*at, 0xA5, size ? size : 1); /* nobody may rely on zeros */
    things[count++] = (Thing){kind, *at, size, 0, 0};
    if (kind == GPU) used += size;
    return 0;
}

static int drop(int kind, void *at) {
    Thing *thing = found(kind, at);
    if (!thing || thing->at != at) return mistake("something is given back that is not there");
    if (kind == GPU) used -= thing->size;
    free(thing->at);
    *thing = things[--count];
    return 0;
}

__attribute__((destructor)) static void leaks(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        int left = 0;
        char text[80];
        for (int i = 0; i < count; i++) left += things[i].kind == kind;
        if (left) { snprintf(text, sizeof text, "%d %s were not given back", left, names[kind]); mistake(text); }
    }
}

int cudaRuntimeGetVersion(int *version) { *version = 12060; return 0; }
int cudaFree(void *at) { return at ? drop(GPU, at) : 0; }
int cudaMalloc(void **at, size_t size) { return make(GPU, at, size); }
int cudaMallocHost(void **at, size_t size) { return make(PINNED, at, size); }
int cudaFreeHost(void *at) { return drop(PINNED, at); }
int cudaStreamCreate(void **at) { return make(STREAM, at, 1); }
int cudaStreamDestroy(void *at) { return drop(STREAM, at); }
int cudaEventCreate(void **at) { return make(EVENT, at, 1); }
int cudaEventDestroy(void *at) { return drop(EVENT, at); }
int cudaMemGetInfo(size_t *free_bytes, size_t *all) { *all = total(); *free_bytes = *all - used; return 0; }

static int put(Step step) {
    if (!found(STREAM, step.stream)) return mistake("work for a stream that is not there");
    if (queued == 4096) return mistake("too much work on a stream");
    steps[queued++] = step;
    return 0;
}

int cudaMemcpyAsync(void *target, const void *source, size_t size, int direction, void *stream) {
    Thing *device = found(GPU, direction == 1 ? target : source), *host = found(PINNED, direction == 1 ? source : target);
    if (direction != 1 && direction != 2) return mistake("a copy that is neither to the GPU nor from it");
    if (!device) return mistake("a copy to or from GPU memory that is not there");
    if (!host) return mistake("a copy from or to host memory that is not pinned");
    if (size > device->size || size > host->size) return mistake("a copy beyond the end of memory");
    return put((Step){COPY, stream, target, source, size, direction, NULL});
}

int cudaEventRecord(void *event, void *stream) { return put((Step){MARK, stream, event, NULL, 0, 0, NULL}); }

int cudaStreamSynchronize(void *stream) {
    int left = 0, failed = 0;
    for (int i = 0; i < queued; i++) {
        Step step = steps[i];
        if (step.stream != stream) { steps[left++] = step; continue; }
        if (step.what == KERNEL) failed |= step.kernel();
        else if (step.what == MARK) {
            struct timespec now;
            Thing *event = found(EVENT, step.target);
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (event) { event->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6; event->recorded = 1; }
            else failed |= mistake("an event that is not there");
        } else if (found(GPU, step.direction == 1 ? step.target : step.source)) memcpy(step.target, step.source, step.size);
        else failed |= mistake("memory was freed before the copy was done");
    }
    queued = left;
    return failed ? 719 : 0; /* cudaErrorLaunchFailure */
}

int cudaEventElapsedTime(float *ms, void *begin, void *end) {
    Thing *first = found(EVENT, begin), *last = found(EVENT, end);
    if (!first || !last || !first->recorded || !last->recorded) return mistake("the time of an event that was not recorded");
    *ms = (float)(last->ms - first->ms);
    return 0;
}

int cudaGetDeviceProperties(char *properties, int device) {
    char name[256]; int a, b, c; size_t bytes;
    gpu(name, &a, &b, &c, &bytes);
    memset(properties, 0, 1032);
    strcpy(properties, name);
    return device ? 101 : 0; /* cudaErrorInvalidDevice */
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    char name[256]; int major, minor, integrated; size_t bytes;
    gpu(name, &major, &minor, &integrated, &bytes);
    *value = attribute == 75 ? major : attribute == 76 ? minor : attribute == 18 ? integrated : -1;
    return device || *value < 0 ? 1 : 0;
}

const char *cudaGetErrorString(int code) {
    return code == 0 ? "no error" : code == 2 ? "out of memory" : code == 719 ? "unspecified launch failure" : "invalid argument";
}

/* For the doubles of TensorRT and pycuda alone: put a kernel on a stream, and look at GPU memory. */
int double_launch(void *stream, int (*kernel)(void)) { return put((Step){KERNEL, stream, NULL, NULL, 0, 0, kernel}); }
size_t double_size(const void *at) { Thing *thing = found(GPU, at); return thing && thing->at == at ? thing->size : 0; }
int double_take(void **at, size_t size) { return make(GPU, at, size); }
