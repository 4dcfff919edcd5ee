/* libedgetpu 16.0: opens a delegate for each stick there is, and knows one option. */
#include <stdlib.h>
#include <string.h>

static int open_delegates;

const char *edgetpu_version(void) {
    return "BuildLabel(COMPILER=6.3.0,DATE=redacted,TIME=redacted,CL_NUMBER=000000000), RuntimeVersion(14)";
}

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    const char *sticks = getenv("EDGETPU_DOUBLE_STICKS");
    if (getenv("EDGETPU_DOUBLE_CRASH")) abort();
    if (!sticks || !strcmp(sticks, "0")) return NULL; /* it does not say why */
    for (size_t index = 0; index < count; ++index) {
        if (strcmp(keys[index], "device")) {
            report("unknown option");
            return NULL;
        }
        if (strncmp(values[index], "usb", 3) && values[index][0] != ':') return NULL; /* these sticks are USB's */
    }
    return &open_delegates;
}

void tflite_plugin_destroy_delegate(void *delegate) { (void)delegate; }
