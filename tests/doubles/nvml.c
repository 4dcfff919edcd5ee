/* A driver with two GPUs: the first counts energy, the second (older) says its power only. */
#include <string.h>

static int which[2] = {0, 1};
static unsigned long long millijoules = 5000;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
#ifdef LOST
    return 15;
#endif
    *device = &which[index];
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    strncpy(name, *(int *)device ? "Tesla P4" : "NVIDIA L4", length);
    return 0;
}
#ifndef OLD
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value) {
    if (*(int *)device) return 3;
    *value = millijoules;
    millijoules += 250;
    return 0;
}
#endif
int nvmlDeviceGetPowerUsage(void *device, unsigned int *value) { *value = *(int *)device ? 22500 : 31000; return 0; }
