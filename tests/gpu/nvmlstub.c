/* A libnvidia-ml.so.1 without a GPU, under the real pynvml. Each setting is an environment variable
 * STUB_<NAME> (all GPUs) or STUB_<NAME>_<INDEX> (one GPU); functions left out are those that an old
 * library lacks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Result;
typedef struct Device { int index; } *Device;
static struct Device devices[16];

static const char *setting(const char *name, int index) {
  char key[64];
  snprintf(key, sizeof key, "STUB_%s_%d", name, index);
  const char *own = getenv(key);
  if (own) return own;
  snprintf(key, sizeof key, "STUB_%s", name);
  return getenv(key);
}

static long long number(const char *name, int index, long long otherwise) {
  const char *text = setting(name, index);
  return text ? atoll(text) : otherwise;
}

static Result ready(Device device) {
  if (number("HANG", device->index, 0)) sleep(600);
  return (Result)number("ERROR", device->index, 0);
}

Result nvmlInitWithFlags(unsigned flags) { (void)flags; if (number("HANG_INIT", -1, 0)) sleep(600); return (Result)number("INIT", -1, 0); }
Result nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(Result result) { return result == 15 ? "GPU is lost" : "stub error"; }

Result nvmlSystemGetDriverVersion(char *out, unsigned size) {
  snprintf(out, size, "%s", getenv("STUB_DRIVER") ? getenv("STUB_DRIVER") : "575.57");
  return 0;
}
Result nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = (int)number("CUDA", -1, 12090); return 0; }
Result nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)number("COUNT", -1, 0); return (Result)number("COUNTING", -1, 0); }

Result nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
  devices[index].index = (int)index;
  *out = &devices[index];
  return (Result)number("HANDLE", (int)index, 0);
}
Result nvmlDeviceGetName(Device d, char *out, unsigned size) {
  Result r = ready(d);
  snprintf(out, size, "Stub H100");
  return r;
}
Result nvmlDeviceGetUUID(Device d, char *out, unsigned size) {
  snprintf(out, size, "GPU-0000000%d-1111-2222-3333-444444444444", d->index);
  return ready(d);
}
Result nvmlDeviceGetComputeMode(Device d, unsigned *out) { *out = (unsigned)number("MODE", d->index, 0); return ready(d); }
Result nvmlDeviceGetMigMode(Device d, unsigned *now, unsigned *later) { *now = *later = (unsigned)number("MIG", d->index, 0); return ready(d); }
Result nvmlDeviceGetCudaComputeCapability(Device d, int *major, int *minor) { *major = 9; *minor = 0; return ready(d); }
Result nvmlDeviceGetTotalEccErrors(Device d, int kind, int counter, unsigned long long *out) {
  (void)kind; (void)counter;
  *out = (unsigned long long)number("ECC", d->index, 0);
  return ready(d);
}
typedef struct { unsigned long long total, free, used; } Memory;
Result nvmlDeviceGetMemoryInfo(Device d, Memory *out) {
  out->total = 80ULL << 30;
  out->used = (unsigned long long)number("USED_GIB", d->index, 0) << 30;
  out->free = out->total - out->used;
  return ready(d);
}
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } Process;
Result nvmlDeviceGetComputeRunningProcesses_v3(Device d, unsigned *count, Process *out) {
  const char *pids = setting("PIDS", d->index);
  unsigned room = out ? *count : 0, found = 0;
  while (pids && *pids) {
    char *end;
    unsigned pid = (unsigned)strtoul(pids, &end, 10);
    if (found < room) out[found] = (Process){pid, 30ULL << 30, -1u, -1u};
    found++;
    pids = *end ? end + 1 : end;
  }
  *count = found;
  return found > room ? 7 : ready(d);
}
Result nvmlDeviceGetP2PStatus(Device a, Device b, int index, int *out) {
  (void)b; (void)index;
  *out = (int)number("P2P", a->index, 0);
  return 0;
}
Result nvmlDeviceGetTopologyCommonAncestor(Device a, Device b, int *out) {
  (void)a; (void)b;
  *out = 40;
  return 0;
}

#ifndef OLD /* what drivers of some years ago do not export */
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
Result nvmlDeviceGetPciInfo_v3(Device d, Pci *out) {
  memset(out, 0, sizeof *out);
  snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", 0x18 + d->index);
  return ready(d);
}
Result nvmlDeviceGetRemappedRows(Device d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
  *corrected = 0;
  *uncorrected = *pending = (unsigned)number("PENDING", d->index, 0);
  *failed = (unsigned)number("REMAP_FAILED", d->index, 0);
  return ready(d);
}
Result nvmlDeviceGetRetiredPagesPendingStatus(Device d, unsigned *out) { (void)d; (void)out; return 3; }
Result nvmlDeviceGetCurrentClocksThrottleReasons(Device d, unsigned long long *out) {
  *out = (unsigned long long)number("SLOWED", d->index, 1);
  return ready(d);
}
Result nvmlDeviceGetCurrentClocksEventReasons(Device d, unsigned long long *out) {
  return nvmlDeviceGetCurrentClocksThrottleReasons(d, out);
}
Result nvmlDeviceGetPersistenceMode(Device d, unsigned *out) { *out = 1; return ready(d); }
Result nvmlDeviceGetNvLinkState(Device d, unsigned link, unsigned *out) {
  *out = 1;
  return link < number("LINKS", d->index, 0) ? ready(d) : 2;
}
Result nvmlDeviceGetMaxMigDeviceCount(Device d, unsigned *out) {
  *out = number("MIG", d->index, 0) ? 7 : 0;
  return ready(d);
}
Result nvmlDeviceGetMigDeviceHandleByIndex(Device d, unsigned index, Device *out) {
  *out = d;
  return index < 2 ? ready(d) : 6;
}
typedef struct { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned health; } Fabric;
Result nvmlDeviceGetGpuFabricInfoV(Device d, Fabric *out) {
  if (out->version != 0x02000024) return 25;
  out->state = (unsigned char)number("FABRIC", d->index, 0);
  out->status = (int)number("FABRIC_STATUS", d->index, 0);
  return ready(d);
}
#endif
