/* What tests and benchmarks ask of the emulated library: settings, counters, faults to come. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

enum { MAX_FAULTS = 16, MAX_TRIGGERS = 8 };

typedef struct {
    char function[48];
    int64_t calls_left, times; /* fails from when calls_left is 0, `times` times; < 0: for ever */
    int code;
} fault;

typedef struct {
    int action, core; /* core < 0: any */
    int32_t m, k, n;  /* 0: any */
} trigger;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
emulator_settings settings = {.context_limit = 128};
emulator_counters counters;
static fault faults[MAX_FAULTS];
static trigger triggers[MAX_TRIGGERS];

static const struct {
    const char *name;
    int64_t *value;
} named[] = {
    {"null", &settings.null},
    {"context_limit", &settings.context_limit},
    {"incoherent", &settings.incoherent},
    {"late_evict", &settings.late_evict},
    {"view_nosync", &settings.view_nosync},
    {"refuse", &settings.refuse},
    {"memory_limit", &settings.memory_limit},
    {"descriptors", &settings.descriptors},
};

EXPORT int emulator_set(const char *name, int64_t value)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!strcmp(name, named[i].name)) {
            *named[i].value = value;
            return RKNN_SUCC;
        }
    return RKNN_ERR_PARAM_INVALID;
}

EXPORT double emulator_get(const char *name)
{
    if (!strcmp(name, "calls"))
        return (double)counters.calls;
    if (!strcmp(name, "runs"))
        return (double)counters.runs;
    if (!strcmp(name, "contexts"))
        return (double)counters.contexts;
    if (!strcmp(name, "bytes_to_device"))
        return (double)counters.bytes_to_device;
    if (!strcmp(name, "bytes_from_device"))
        return (double)counters.bytes_from_device;
    if (!strcmp(name, "memory"))
        return (double)counters.memory;
    if (!strncmp(name, "seconds", 7) && name[7] >= '0' && name[7] <= '7' && !name[8])
        return counters.seconds[name[7] - '0'];
    return -1;
}

/* forgets counters, faults and triggers; keeps settings, contexts and memory */
EXPORT void emulator_reset(void)
{
    pthread_mutex_lock(&lock);
    counters.calls = counters.runs = counters.bytes_to_device = counters.bytes_from_device = 0;
    memset(counters.seconds, 0, sizeof counters.seconds);
    memset(faults, 0, sizeof faults);
    memset(triggers, 0, sizeof triggers);
    pthread_mutex_unlock(&lock);
}

/* the nth call of `function` from now on fails with `code`, and `times` - 1 more after it */
EXPORT int emulator_fault(const char *function, int64_t nth, int64_t times, int code)
{
    for (int i = 0; i < MAX_FAULTS; i++)
        if (!faults[i].function[0]) {
            snprintf(faults[i].function, sizeof faults[i].function, "%s", function);
            faults[i].calls_left = nth - 1;
            faults[i].times = times;
            faults[i].code = code;
            return RKNN_SUCC;
        }
    return RKNN_ERR_FAIL;
}

/* from now on a shape does what `action` says: "abort", "hang" or "wrong" */
EXPORT int emulator_trigger(const char *action, int32_t m, int32_t k, int32_t n, int32_t core)
{
    int kind = !strcmp(action, "abort")   ? TRIGGER_ABORT
               : !strcmp(action, "hang")  ? TRIGGER_HANG
               : !strcmp(action, "wrong") ? TRIGGER_WRONG
                                          : TRIGGER_NONE;
    for (int i = 0; kind != TRIGGER_NONE && i < MAX_TRIGGERS; i++)
        if (triggers[i].action == TRIGGER_NONE) {
            triggers[i] = (trigger){kind, core, m, k, n};
            return RKNN_SUCC;
        }
    return RKNN_ERR_PARAM_INVALID;
}

int triggered(const rknn_matmul_info *info, int core)
{
    for (int i = 0; i < MAX_TRIGGERS; i++) {
        const trigger *t = &triggers[i];
        if (t->action != TRIGGER_NONE && (t->core < 0 || t->core == core) &&
            (!t->m || t->m == info->m) && (!t->k || t->k == info->k) && (!t->n || t->n == info->n))
            return t->action;
    }
    return TRIGGER_NONE;
}

int enter(const char *function)
{
    int code = 0;
    pthread_mutex_lock(&lock);
    counters.calls++;
    for (int i = 0; i < MAX_FAULTS; i++) {
        fault *f = &faults[i];
        if (strcmp(f->function, function) || f->calls_left-- > 0 || f->times == 0)
            continue;
        f->times -= f->times > 0;
        code = f->code;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

/* one word of WHISPER_NPU_EMULATOR: "late_evict", "memory_limit=12000000", "hang=1500x384x128@2" */
static int apply(const char *word)
{
    char name[48];
    int m, k, n, core = -1;
    long long value = 1;
    if (sscanf(word, "%47[a-z_]=%dx%dx%d@%d", name, &m, &k, &n, &core) >= 4)
        return emulator_trigger(name, m, k, n, core);
    if (sscanf(word, "%47[a-z_]=%lld", name, &value) < 1)
        return RKNN_ERR_PARAM_INVALID;
    return emulator_set(name, value);
}

/* for whole programs: WHISPER_NPU_EMULATOR=word,word and
 * WHISPER_NPU_EMULATOR_FAULT=function:nth:times:code */
__attribute__((constructor)) static void from_environment(void)
{
    const char *text = getenv("WHISPER_NPU_EMULATOR_FAULT");
    char function[48], *rest, *word;
    long nth, times;
    int code;
    if (text && sscanf(text, "%47[a-zA-Z_0-9]:%ld:%ld:%d", function, &nth, &times, &code) == 4)
        emulator_fault(function, nth, times, code);
    char *words = strdup((text = getenv("WHISPER_NPU_EMULATOR")) ? text : "");
    for (word = words ? strtok_r(words, ",", &rest) : NULL; word; word = strtok_r(NULL, ",", &rest))
        if (apply(word))
            fprintf(stderr, "WHISPER_NPU_EMULATOR: %s is not understood\n", word);
    free(words);
}
