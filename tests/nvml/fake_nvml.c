/* A stand-in for libnvidia-ml.so.1 whose readings are scripted while it runs.
 *
 * NVML_SCRIPT names a text file that is read again on every call. A line is "key=value"; a value "!15" makes the call
 * return the error code 15. Keys: "*" (every call but init and shutdown), "init", "count", "process.<pid>", and for
 * device 0 "0.*", "0.handle", "0.name", "0.uuid", "0.total", "0.reserved", "0.used", "0.utilization",
 * "0.temperature", "0.power", "0.power_limit", "0.compute", "0.graphics". The last two list "pid:bytes" or "pid:na",
 * separated by commas. A key that is not there answers "not supported".
 * NVML_CALLS names a file that gets the name of each function called.
 * OLD_DRIVER leaves out what drivers before 510 do not export.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    UNKNOWN = 999
};

#define LINE_BYTES 4096
#define NOT_AVAILABLE 0xFFFFFFFFFFFFFFFFull
#define NO_INSTANCE 0xFFFFFFFFu

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} Memory2;

typedef struct {
    unsigned long long total, free, used;
} Memory1;

typedef struct {
    unsigned int gpu, memory;
} Utilization;

typedef struct {
    unsigned int version, sensor;
    int celsius;
} Temperature;

typedef struct {
    unsigned int pid;
    unsigned long long used_bytes;
    unsigned int gpu_instance, compute_instance;
} Process;

static int open_sessions = 0;

static void record(const char *function) {
    const char *path = getenv("NVML_CALLS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", function);
        fclose(file);
    }
}

/* Copy the value of key into value; 0 where the script holds no such key. */
static int find(const char *key, char *value) {
    const char *path = getenv("NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE_BYTES];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = '\0';
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static int error_in(const char *value) { return value[0] == '!' ? atoi(value + 1) : SUCCESS; }

static int scripted(const char *key, char *value) {
    if (!open_sessions) return UNINITIALIZED;
    if (find("*", value) && error_in(value)) return error_in(value);
    if (!find(key, value)) return NOT_SUPPORTED;
    return error_in(value);
}

static int of_device(const void *device, const char *name, char *value) {
    char key[64];
    snprintf(key, sizeof key, "%zu.*", (size_t)device - 1);
    if (open_sessions && find(key, value) && error_in(value)) return error_in(value);
    snprintf(key, sizeof key, "%zu.%s", (size_t)device - 1, name);
    return scripted(key, value);
}

static int number(const void *device, const char *name, unsigned long long *result) {
    char value[LINE_BYTES];
    int code = of_device(device, name, value);
    if (code == SUCCESS) *result = strtoull(value, NULL, 10);
    return code;
}

static int small_number(const void *device, const char *name, unsigned int *result) {
    unsigned long long wide;
    int code = number(device, name, &wide);
    if (code == SUCCESS) *result = (unsigned int)wide;
    return code;
}

static int text(const void *device, const char *name, char *buffer, unsigned int bytes) {
    char value[LINE_BYTES];
    int code = of_device(device, name, value);
    if (code != SUCCESS) return code;
    if (strlen(value) >= bytes) return INSUFFICIENT_SIZE;
    strcpy(buffer, value);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    char value[LINE_BYTES];
    (void)flags;
    record(__func__);
    if (find("init", value) && error_in(value)) return error_in(value);
    open_sessions++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    record(__func__);
    if (!open_sessions) return UNINITIALIZED;
    open_sessions--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the stand-in";
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    char value[LINE_BYTES];
    int code = scripted("count", value);
    record(__func__);
    if (code == SUCCESS) *count = (unsigned int)strtoul(value, NULL, 10);
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    char value[LINE_BYTES];
    int code;
    record(__func__);
    *device = (void *)((size_t)index + 1);
    code = of_device(*device, "handle", value);
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int bytes) {
    record(__func__);
    return text(device, "name", name, bytes);
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int bytes) {
    record(__func__);
    return text(device, "uuid", uuid, bytes);
}

/* The first version counts the driver's reserve as used. */
int nvmlDeviceGetMemoryInfo(void *device, Memory1 *memory) {
    unsigned long long reserved = 0;
    int code = number(device, "total", &memory->total);
    record(__func__);
    if (code == SUCCESS) code = number(device, "used", &memory->used);
    if (code == SUCCESS && number(device, "reserved", &reserved) == SUCCESS) memory->used += reserved;
    if (code == SUCCESS) memory->free = memory->total - memory->used;
    return code;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
    record(__func__);
    rates->memory = 0;
    return small_number(device, "utilization", &rates->gpu);
}

int nvmlDeviceGetTemperature(void *device, unsigned int sensor, unsigned int *celsius) {
    record(__func__);
    return sensor ? INVALID_ARGUMENT : small_number(device, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    record(__func__);
    return small_number(device, "power", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *milliwatts) {
    record(__func__);
    return small_number(device, "power_limit", milliwatts);
}

int nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int bytes) {
    char key[64], value[LINE_BYTES];
    int code;
    record(__func__);
    snprintf(key, sizeof key, "process.%u", pid);
    code = scripted(key, value);
    if (code != SUCCESS) return code == NOT_SUPPORTED ? NOT_FOUND : code;
    snprintf(name, bytes, "%s", value);
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(void *device, Memory2 *memory) {
    int code;
    record(__func__);
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID_ARGUMENT;
    code = number(device, "total", &memory->total);
    if (code == SUCCESS) code = number(device, "used", &memory->used);
    if (code == SUCCESS && number(device, "reserved", &memory->reserved) != SUCCESS) memory->reserved = 0;
    if (code == SUCCESS) memory->free = memory->total - memory->used - memory->reserved;
    return code;
}

int nvmlDeviceGetTemperatureV(void *device, Temperature *temperature) {
    unsigned int celsius = 0;
    int code;
    record(__func__);
    if (temperature->version != (sizeof *temperature | 1u << 24) || temperature->sensor) return INVALID_ARGUMENT;
    code = small_number(device, "temperature", &celsius);
    temperature->celsius = (int)celsius;
    return code;
}

static int processes(const void *device, const char *name, unsigned int *count, Process *list) {
    char value[LINE_BYTES], *rest, *entry;
    unsigned int needed = 0;
    int code = of_device(device, name, value);
    if (code != SUCCESS) return code;
    for (entry = strtok_r(value, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
        char *bytes = strchr(entry, ':') + 1;
        if (list && needed < *count) {
            list[needed].pid = (unsigned int)strtoul(entry, NULL, 10);
            list[needed].used_bytes = strcmp(bytes, "na") ? strtoull(bytes, NULL, 10) : NOT_AVAILABLE;
            list[needed].gpu_instance = list[needed].compute_instance = NO_INSTANCE;
        }
        needed++;
    }
    code = needed > (list ? *count : 0) ? INSUFFICIENT_SIZE : SUCCESS;
    *count = needed;
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, Process *list) {
    record(__func__);
    return processes(device, "compute", count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned int *count, Process *list) {
    record(__func__);
    return processes(device, "graphics", count, list);
}
#endif
