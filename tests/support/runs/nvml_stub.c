/* A libnvidia-ml.so.1 for tests: the real pynvml loads it, a file says what it answers.
 *
 * $NVML_STUB names the file, read again on every call, of lines "name value":
 *   used, total, reserved, power, utilization, temperature, clock, energy: numbers; a negative one is NOT_SUPPORTED
 *   error: what every question about the card returns, as 15 for GPU_IS_LOST
 *   old: 1 for a driver that has no version 2 of the memory query
 *   process: pid and bytes, once a process; bytes -1 for "not available"
 *   mig: 1 for a card with one MIG instance
 * Compiled with -DWITHOUT_POWER the library has no nvmlDeviceGetPowerUsage at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define NOT_SUPPORTED 3
#define UNINITIALIZED 1
#define NOT_FOUND 6
#define VERSION_MISMATCH 25
#define INSUFFICIENT_SIZE 7

typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Process;
typedef void *Handle;

static int started = 0;

static double ask(const char *name, double otherwise) {
    double found = otherwise, value;
    char line[256], key[64];
    const char *path = getenv("NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return otherwise;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%63s %lf", key, &value) == 2 && !strcmp(key, name)) found = value;
    fclose(file);
    return found;
}

static int state(void) { return started ? (int)ask("error", 0) : UNINITIALIZED; }
static int number(const char *name, double otherwise, double *out) {
    int error = state();
    if (error) return error;
    *out = ask(name, otherwise);
    return *out < 0 ? NOT_SUPPORTED : 0;
}

API int nvmlInitWithFlags(unsigned flags) { (void)flags; started = 1; return 0; }
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlShutdown(void) { started = 0; return 0; }
API const char *nvmlErrorString(int error) { return error == 15 ? "GPU is lost" : error == 3 ? "Not Supported" : "stub error"; }
API int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.1"); return 0; }
API int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)ask("cards", 1); return 0; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle) {
    if (index >= (unsigned)ask("cards", 1)) return 2;
    *handle = (Handle)(size_t)(index + 1);
    return 0;
}
API int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *handle) {
    unsigned index;
    if (!strcmp(uuid, "MIG-stub-0")) { *handle = (Handle)(size_t)100; return 0; }
    if (sscanf(uuid, "GPU-stub-%u", &index) != 1) return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2(index, handle);
}
API int nvmlDeviceGetUUID(Handle handle, char *text, unsigned size) {
    if ((size_t)handle == 100) snprintf(text, size, "MIG-stub-0");
    else snprintf(text, size, "GPU-stub-%u", (unsigned)(size_t)handle - 1);
    return 0;
}
API int nvmlDeviceGetName(Handle handle, char *text, unsigned size) { (void)handle; snprintf(text, size, "Stub L4"); return 0; }
API int nvmlDeviceGetCudaComputeCapability(Handle handle, int *major, int *minor) { (void)handle; *major = 8; *minor = 9; return 0; }
API int nvmlDeviceGetMaxMigDeviceCount(Handle handle, unsigned *count) { (void)handle; *count = (unsigned)ask("mig", 0); return 0; }
API int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, unsigned index, Handle *instance) {
    (void)handle;
    if (index || !ask("mig", 0)) return NOT_FOUND;
    *instance = (Handle)(size_t)100;
    return 0;
}
API int nvmlDeviceGetMemoryInfo(Handle handle, Memory *memory) {
    double used = 0, reserved = ask("reserved", 500e6), total = ask("total", 24e9);
    int error = number("used", 0, &used);
    (void)handle;
    if (error) return error;
    memory->total = (u64)total; memory->used = (u64)(used + reserved); memory->free = (u64)(total - used - reserved);
    return 0;
}
API int nvmlDeviceGetMemoryInfo_v2(Handle handle, Memory2 *memory) {
    double used = 0, reserved = ask("reserved", 500e6), total = ask("total", 24e9);
    int error = number("used", 0, &used);
    (void)handle;
    if (error) return error;
    if (ask("old", 0)) return VERSION_MISMATCH;
    memory->total = (u64)total; memory->used = (u64)used; memory->reserved = (u64)reserved;
    memory->free = (u64)(total - used - reserved);
    return 0;
}
#ifndef WITHOUT_POWER
API int nvmlDeviceGetPowerUsage(Handle handle, unsigned *out) {
    double value = 0; int error = number("power", 70000, &value); (void)handle; *out = (unsigned)value; return error;
}
#endif
API int nvmlDeviceGetUtilizationRates(Handle handle, Utilization *out) {
    double value = 0; int error = number("utilization", 50, &value); (void)handle; out->gpu = (unsigned)value; return error;
}
API int nvmlDeviceGetTemperature(Handle handle, int sensor, unsigned *out) {
    double value = 0; int error = number("temperature", 40, &value); (void)handle; (void)sensor; *out = (unsigned)value; return error;
}
API int nvmlDeviceGetClockInfo(Handle handle, int clock, unsigned *out) {
    double value = 0; int error = number("clock", 1500, &value); (void)handle; (void)clock; *out = (unsigned)value; return error;
}
API int nvmlDeviceGetTotalEnergyConsumption(Handle handle, u64 *out) {
    double value = 0; int error = number("energy", 1000, &value); (void)handle; *out = (u64)value; return error;
}

static int processes(unsigned *count, Process *out) {
    char line[256]; unsigned pid, found = 0; double bytes;
    const char *path = getenv("NVML_STUB");
    FILE *file; int error = state();
    if (error) return error;
    file = path ? fopen(path, "r") : NULL;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "process %u %lf", &pid, &bytes) == 2) {
            if (out && found < *count) {
                out[found].pid = pid; out[found].used = bytes < 0 ? ~0ULL : (u64)bytes;
                out[found].gpu_instance = out[found].compute_instance = ~0u;
            }
            found++;
        }
    if (file) fclose(file);
    error = found > *count ? INSUFFICIENT_SIZE : 0;
    *count = found;
    return error;
}
API int nvmlDeviceGetComputeRunningProcesses_v3(Handle handle, unsigned *count, Process *out) { (void)handle; return processes(count, out); }
API int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle handle, unsigned *count, Process *out) { (void)handle; (void)out; *count = 0; return state(); }
